"""A miniature of the full world in the formats of its makers: data sets, published networks, and what users write.

Data sets are named and packed as EG3D's preparation leaves them. Networks have every part of the published ones at
small width; those whose loaders take no width have the published sizes. All weights are random.
"""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from eg3d.cameras import canonical_label
from eg3d.generator import GeneratorConfig, TriPlaneGenerator
from eg3d.rendering.renderer import RenderingConfig
from facenet_pytorch import InceptionResnetV1
from pickling import dumps, published, snapshot
from safetensors.torch import save_file
from standins import random_inception, write_crops, zip_crops
from timm.models.swin_transformer_v2 import SwinTransformerV2
from tiny import seeded_weights
from torch import Tensor, nn
from torchvision.models.segmentation import deeplabv3_resnet50

from goae.data.datasets import PosedImages
from goae.extractors import lpips
from goae.extractors.arcface import IRSE50
from goae.extractors.bisenet import BiSeNet
from goae.extractors.parsing import MEAN, STD, VOC_CLASSES
from goae.ir_se import Trunk
from goae.models.afa import AFA, AFAConfig
from goae.models.encoder import Encoder, EncoderConfig
from goae.models.published import export_afa, export_encoder
from goae.weights import FILES, cache
from scripts import run_script

SIDE = 128  # of images, published 512
RAW = 32  # rays along each axis of the raw image, published 128
WIDTH = 64  # of codes and of the features that are aligned, published 512
ATTRIBUTES = ("glasses", "smile", "age")
CAT = 8  # of the classes of VOC
PERSONS, MOMENTS = ("M003", "W009"), ("happy/level_3/001", "neutral/level_1/002")
VIEWS = ("left_60", "left_30", "front", "right_30", "right_60")

SWIN = {"embed_dim": 16, "depths": [2, 2, 18, 2], "num_heads": [1, 2, 4, 8], "window_size": 4}
PRETRAINED_WINDOWS = [3, 3, 3, 2]
SWIN_SIDE = RIVAL_SIDE = 64
RIVAL = {"widths": [16, 16, 32, 32], "units": [3, 4, 14, 3]}


# Sizes and steps, appended to the commands of docs/full-world.md -----------------------------------------------------


def short(value: object) -> str:
    """A value as Hydra's command line takes it."""
    return str(value).replace(" ", "")


def fit(stage: str, **values: int) -> list[str]:
    """A few steps of a stage, with everything that long ones do in between."""
    every = {"log_every": 1, "image_every": 2, "evaluate_every": 2, "save_every": 1}
    return [f"{stage}.fit.{key}={value}" for key, value in (every | values).items()]


GENERATOR = [
    *[f"generator.{name}={WIDTH}" for name in ("z_dim", "w_dim", "channel_max")],
    *[f"generator.channel_base={32 * WIDTH}", "generator.plane_channels=8"],
    *[f"generator.image_resolution={SIDE}", f"generator.neural_rendering_resolution={RAW}"],
    *[f"generator.superresolution_input={SIDE // 4}", "generator.superresolution_channels=[16,8]"],
    *[f"generator.rendering.{name}=8" for name in ("depth_resolution", "depth_resolution_importance")],
]
TRAINED = [
    *[*GENERATOR, f"data.resolution={SIDE}", f"data.loss_resolution={SIDE // 2}"],
    *["device=cpu", "logging.progress=false", "validation.batch_size=1"],
]
TRAIN = [
    *TRAINED,
    *[f"encoder.backbone.{name}={short(value)}" for name, value in SWIN.items()],
    f"encoder.backbone.pretrained_window_sizes={short(PRETRAINED_WINDOWS)}",
    *[f"encoder.backbone.image_resolution={SWIN_SIDE}", f"encoder.feedforward_dim={WIDTH}"],
    f"latent_discriminator.w_dim={WIDTH}",
    *[f"afa.feature_channels={WIDTH}", f"afa.image_resolution={SIDE}", "afa.widths=[16,16,32]", "afa.squeeze=8"],
    f"afa.feedforward_dim={WIDTH}",
    "goae.mix.depth_resolution=64",
    *[f"rival.{name}={short(value)}" for name, value in RIVAL.items()],
    *[f"rival.image_resolution={RIVAL_SIDE}", "rival.unlock_start=1", "rival.unlock_every=1"],
    *fit("stages.encoder", steps=2, batch_size=1),
    *fit("stages.refiner", steps=2, batch_size=1),
    *["stages.encoder.stage_steps=[0,0,0]", "stages.encoder.adversary.r1_every=2", "stages.encoder.adversary.pool=4"],
    *["validation.num_images=1", "canonical.num_samples=2", "canonical.batch_size=2"],
]
SEARCHES = ("pti.pivot", "pti.tuning", "pose_opt.pivot", "pose_opt.tuning")
PROTOCOL = [
    *[
        f"resolution={SIDE}",
        f"metric_resolution={SIDE // 2}",
        f"metrics.grid={RAW}",
        "device=cpu",
        "resamples=20",
        "num_inputs=2",
    ],
    *["timing_images=1", "warm_up=0", "subset.timing_images=1", "batch_size=4"],
    *[f"baselines.{search}.steps=1" for search in SEARCHES],
    *[f"baselines.{search}.lpips_resolution=0" for search in SEARCHES],
]
PREPARE = ["--resolution", str(SIDE)]
OVERLAY: dict[str, list[str]] = {
    "prepare_ffhq": [*PREPARE, "--num", "2"],
    "prepare_celebahq": [*PREPARE, "--num", "3"],
    "prepare_mead": [*PREPARE, "--persons", "1", "--frames", "1"],
    "prepare_afhq": PREPARE,
    "canonical_stats": TRAIN,
    "train": TRAIN,
    "train_camera": [
        *[*TRAINED, "regressor.resolution=64", "regressor.channels=[8,8,8,8]", "regressor.hidden=8"],
        *[*fit("camera", steps=2, batch_size=2, micro_batch=0), "validation.num_images=2"],
    ],
    "eval_celebahq": [*PROTOCOL, "methods=[full]"],
    "eval_mead": [*PROTOCOL, "methods=[full]"],
    "evaluate": ["num_images=1", "timing_images=1"],
    "sweep_report": ["num_images=1", "timing_images=1"],
    "tables": PROTOCOL,
    "train_directions": ["sampling.num_samples=24", "sampling.extremes=8", "num_measured=4", "device=cpu"],
    "figures": [
        *["conditions.num_z=2", "num_fronts=2", "subjects=[0,1]", "device=cpu"],
        *[f"optimisers.{search}.steps=1" for search in SEARCHES],
        *[f"optimisers.{search}.lpips_resolution=0" for search in SEARCHES],
    ],
}


def run_commands(commands: Sequence[Sequence[str]]) -> None:
    """Run commands of the page in this process, each with its part of the overlay; downloads have to be there.

    Raises: RuntimeError for a command that fails.
    """
    for python, path, *arguments in commands:
        name, printed = Path(path).stem, shlex.join([python, path, *arguments])
        if (python, path) != ("python", f"scripts/{name}.py"):
            raise RuntimeError(f"{printed}: expected python scripts/NAME.py")
        if name == "fetch_weights" and "--list" not in arguments:
            missing = [a for a in arguments if not a.startswith("--") and not (cache() / FILES[a]).is_file()]
            if missing:
                raise RuntimeError(f"{printed}: the miniature has no {', '.join(missing)}")
            continue
        if "scores=scores.csv" in arguments:
            write_scores(Path("heads"), Path("scores.csv"), ATTRIBUTES)
        began = time.monotonic()
        if run_script(name, *arguments, *OVERLAY.get(name, [])):
            raise RuntimeError(f"{printed} failed, see what it wrote")
        print(f"{time.monotonic() - began:6.1f} s  {printed}", flush=True)


# Data sets ------------------------------------------------------------------------------------------------------------


def write_ffhq(folder: Path) -> Path:
    """Rebalanced FFHQ as EG3D's tool packs it: 10 people, some of them two or four times, all of them mirrored, too."""
    times = [1, 1, 1, 1, 1, 2, 2, 2, 4, 4]
    names = [
        f"00000/img{i:08d}{mirror}{f'_{k:02d}' if k else ''}.png"
        for i, replicas in enumerate(times)
        for mirror in ("", "_mirror")
        for k in range(replicas)
    ]
    return zip_crops(write_crops(folder / "ffhq_crops", names, side=SIDE), folder / "ffhq_512.zip")


def write_afhq(folder: Path) -> Path:
    """AFHQv2 cats likewise: 20, each with its mirrored copy."""
    names = [f"flickr_cat_{i:06d}{mirror}.png" for i in range(20) for mirror in ("", "_mirror")]
    return zip_crops(write_crops(folder / "afhq_crops", names, side=SIDE), folder / "afhq_512.zip")


def with_mirrors(stems: Sequence[str]) -> list[str]:
    """What EG3D's preparation of photographs leaves: a mirrored crop beside each."""
    return [f"{stem}{mirror}.png" for stem in stems for mirror in ("", "_mirror")]


def write_celebahq(folder: Path) -> None:
    """Crops of 8 images, and CelebA's and CelebA-HQ's lists: 5 are in the test partition, no face was found in one."""
    write_crops(folder / "celebahq_crops", with_mirrors([str(i) for i in range(8) if i != 6]), side=SIDE)
    files = [f"{1000 + i:06d}.jpg" for i in range(8)]
    mapping = ["idx     orig_idx     orig_file", *(f"{i}     {999 + i}     {file}" for i, file in enumerate(files))]
    parts = [2, 0, 2, 2, 1, 2, 2, 0]
    lists = {
        "CelebA-HQ-to-CelebA-mapping.txt": mapping,
        "list_eval_partition.txt": [f"{file} {part}" for file, part in zip(files, parts, strict=True)],
        "identity_CelebA.txt": [f"{file} {7 + i}" for i, file in enumerate(files)],
    }
    for name, lines in lists.items():
        (folder / name).write_text("\n".join(lines) + "\n")


def write_mead(folder: Path) -> None:
    """Crops of two persons' frames in MEAD's folders: person/view/emotion/level/clip."""
    stems = [f"{person}/{view}/{moment}" for person in PERSONS for moment in MOMENTS for view in VIEWS]
    write_crops(folder / "mead_crops", with_mirrors(stems), side=SIDE)


def write_depth(images: Path, folder: Path) -> Path:
    """What the user's face reconstruction network writes: depth of each image, known in the middle."""
    for i, name in enumerate(PosedImages(images).names):
        depth = np.full((SIDE, SIDE), np.nan, np.float32)
        depth[SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4] = np.random.RandomState(i).randn(SIDE // 2, SIDE // 2)
        path = folder / Path(name).with_suffix(".npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, depth=depth)
    return folder


def write_scores(heads: Path, path: Path, attributes: Sequence[str]) -> Path:
    """What the user's classifier writes: a number of each attribute for every picture."""
    rng = np.random.RandomState(0)
    lines = [f"{picture.name},{','.join(str(x) for x in rng.randn(3))}" for picture in sorted(heads.glob("*.png"))]
    path.write_text("\n".join([",".join(["name", *attributes]), *lines]) + "\n")
    return path


# Networks -------------------------------------------------------------------------------------------------------------


def narrow_generator(pivot: float) -> TriPlaneGenerator:
    """EG3D's 512² generator at small width: 14 rows, planes of 256², super-resolution by 4."""
    config = GeneratorConfig(
        z_dim=WIDTH,
        w_dim=WIDTH,
        image_resolution=SIDE,
        plane_channels=8,
        channel_base=32 * WIDTH,
        channel_max=WIDTH,
        neural_rendering_resolution=RAW,
        superresolution_input=SIDE // 4,
        superresolution_channels=[16, 8],
        avg_camera_pivot=[0.0, 0.0, pivot],
        rendering=RenderingConfig(depth_resolution=8, depth_resolution_importance=8),
    )
    generator = TriPlaneGenerator(config).eval().requires_grad_(False)
    seeded_weights(generator, equalized=True)
    return generator


@torch.no_grad()
def fronts(generator: TriPlaneGenerator) -> Tensor:
    """Front views of canonical codes and of others, as parsers see them."""
    rng, c = torch.Generator().manual_seed(0), canonical_label()
    codes = [generator.mapping(torch.randn(1, WIDTH, generator=rng), c) for _ in range(4)]
    for _ in range(20):
        base, deltas = (torch.randn(1, rows, WIDTH, generator=rng) for rows in (1, generator.num_ws))
        codes.append(generator.w_avg + base + 0.3 * deltas)
    image = torch.cat([generator.synthesis(ws, c).image for ws in codes])
    image = nn.functional.interpolate(image, (256, 256), mode="bilinear")
    return ((image + 1) / 2 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


@torch.no_grad()
def tell_apart(network: nn.Module, head: nn.Conv2d, images: Tensor, first: int, second: int) -> None:
    """Let the last layer find these two classes alone, each in about half of the pixels of every image."""
    seen: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network.eval()(images)
    hook.remove()
    means = seen[0].mean((2, 3))
    away = torch.eye(means.shape[1]) - torch.linalg.pinv(means) @ means  # from what tells these images from each other
    pixels = (seen[0] - means[:, :, None, None]).movedim(1, -1).flatten(0, 2) @ away
    direction = torch.linalg.eigh(pixels.T @ pixels)[1][:, -1]  # what varies most does so smoothly
    head.weight.zero_()
    head.weight[first, :, 0, 0], head.weight[second, :, 0, 0] = direction, -direction
    if head.bias is not None:
        head.bias.zero_()


def write_cache(cache: Path) -> None:
    """All published files under their names, as scripts/fetch_weights.py and the user put them there."""
    cache.mkdir(parents=True)
    torch.manual_seed(0)
    faces, cats = narrow_generator(0.2), narrow_generator(-0.06)
    (cache / FILES["ffhqrebalanced512-128"]).write_bytes(dumps(snapshot(faces)))
    (cache / FILES["afhqcats512-128"]).write_bytes(dumps(snapshot(cats)))
    trunk = {n: t.contiguous() for n, t in lpips.build("alex").state_dict().items() if n.startswith("net.")}
    save_file(trunk, cache / FILES["alex"])
    swin = SwinTransformerV2(SWIN_SIDE, num_classes=10, pretrained_window_sizes=tuple(PRETRAINED_WINDOWS), **SWIN)  # type: ignore[arg-type]
    seeded_weights(swin, equalized=False)
    save_file({n: t.contiguous() for n, t in swin.state_dict().items()}, cache / FILES["swin"])
    torch.save(IRSE50().state_dict(), cache / FILES["arcface"])
    parser = BiSeNet()
    tell_apart(parser, parser.conv_out.conv_out, fronts(faces), 0, 1)
    torch.save(parser.state_dict(), cache / FILES["parser"])
    segmenter = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=VOC_CLASSES, aux_loss=True)
    tell_apart(segmenter, segmenter.classifier[-1], fronts(cats)[::4], 0, CAT)
    torch.save(segmenter.state_dict(), cache / FILES["segmenter"])
    torch.save(random_inception(), cache / FILES["inception"])
    facenet = InceptionResnetV1(pretrained=None).state_dict()
    torch.save(
        facenet | {"logits.weight": torch.zeros(8631, 512), "logits.bias": torch.zeros(8631)}, cache / FILES["facenet"]
    )


def write_released(folder: Path) -> None:
    """The generator and the authors' encoder and AFA, whose loaders take no width: the published sizes."""
    torch.manual_seed(1)
    generator = TriPlaneGenerator(
        GeneratorConfig(rendering=RenderingConfig(depth_resolution=8, depth_resolution_importance=8))
    )
    (folder / FILES["ffhqrebalanced512-128"]).write_bytes(dumps({"G_ema": published(generator)}))
    export_encoder(Encoder(EncoderConfig(), num_ws=14, w_dim=512), folder / FILES["encoder_ffhq"])
    export_afa(AFA(AFAConfig(variant="official")), folder / FILES["afa_ffhq"])


def write_trunk(path: Path) -> None:
    """IR-SE50 at the rivals' width, by ArcFace's names; its last layers are of no use to them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    trunk = Trunk(3, RIVAL["widths"], RIVAL["units"], 16)
    torch.save(trunk.state_dict() | {"output_layer.0.weight": torch.ones(32)}, path)


def write_downloads(folder: Path) -> None:
    """The data sets after EG3D's preparation."""
    write_ffhq(folder)
    write_afhq(folder)
    write_celebahq(folder)
    write_mead(folder)
