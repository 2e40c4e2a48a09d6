"""Stand-ins for what is downloaded: data sets after EG3D's preprocessing, and networks with random weights."""

import io
import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import torch
from eg3d.cameras import intrinsics_from_focal, join_label, mirror_label, pose_from_angles
from PIL import Image, ImageOps
from torch import Tensor, nn

COPY = re.compile(r"(?P<original>.+?)(?P<mirror>_mirror)?(?P<replica>_\d\d)?")  # of a stem


def write_crops(folder: Path, names: Sequence[str], *, side: int, unposed: Sequence[str] = ()) -> Path:
    """Smooth random pictures with cameras of their own around the head; those of `unposed` have no label.

    A stem that ends in `_mirror` shows the image of the rest of the stem mirrored, one that ends in two digits
    (`_01`) is a replica. The files are those of the in-the-wild preparation: crops, cameras.json and dataset.json.
    """
    labels, cameras = [], {}
    originals: dict[str, int] = {}
    for name in names:
        path = PurePosixPath(name)
        match = COPY.fullmatch(path.stem)
        assert match is not None
        number = originals.setdefault(path.with_name(match["original"]).as_posix(), len(originals))
        image, c = crop(number, side)
        if match["mirror"]:
            image, c = ImageOps.mirror(image), mirror_label(c)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name)
        if name not in unposed:
            labels.append([name, c.tolist()])
            cameras[name] = {"pose": c[:16].reshape(4, 4).tolist(), "intrinsics": c[16:].reshape(3, 3).tolist()}
    (folder / "cameras.json").write_text(json.dumps(cameras))
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    return folder


def crop(number: int, side: int) -> tuple[Image.Image, Tensor]:
    """The image and the label (25,) of a number; no two labels are equal, as they are or mirrored."""
    coarse = torch.tanh(torch.randn(1, 3, 5, 5, generator=torch.Generator().manual_seed(number)))
    pixels = nn.functional.interpolate(coarse, (side, side), mode="bicubic")[0].clamp(-1, 1)
    pose = pose_from_angles(0.3 * (number % 4) - 0.4, 0.1 + 0.001 * number)
    image = Image.fromarray(((pixels + 1) * 127.5).byte().permute(1, 2, 0).numpy())
    return image, join_label(pose, intrinsics_from_focal())[0]


def zip_crops(folder: Path, path: Path) -> Path:
    """Write crops as EG3D's data set tool does: in order, renamed, PNG and zip without compression."""
    labels = dict(json.loads((folder / "dataset.json").read_text())["labels"])
    entries = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number, name in enumerate(sorted(labels)):
            entry = f"{number // 1000:05d}/img{number:08d}.png"
            content = io.BytesIO()
            Image.open(folder / name).save(content, "png", compress_level=0)
            archive.writestr(entry, content.getvalue())
            entries.append([entry, labels[name]])
        archive.writestr("dataset.json", json.dumps({"labels": entries}))
    return path


def random_inception() -> dict[str, Tensor]:
    """Tensors of the shapes of FID's published Inception."""
    from torch_fidelity import feature_extractor_inceptionv3 as module

    torch.manual_seed(0)
    made: dict[str, Tensor] = {}
    original, module.load_state_dict_from_url = module.load_state_dict_from_url, lambda *args, **kwargs: made
    load = module.FeatureExtractorInceptionV3.load_state_dict
    module.FeatureExtractorInceptionV3.load_state_dict = lambda self, content: None
    try:
        network = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    finally:
        module.load_state_dict_from_url = original
        module.FeatureExtractorInceptionV3.load_state_dict = load
    made.update(network.state_dict())
    return made
