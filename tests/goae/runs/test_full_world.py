"""The published sizes with random weights: both recipes compose, train a step of each stage, and invert a photo.

Every network has its real size and its file is read from disk; only the samples along a ray, the rays of the raw image
and the rays behind the mask are fewer than published, since they change cost and not shapes. The cats' generator, which
has the shapes of the faces', has half their channels after the features that are aligned and in its super-resolution.
"""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from composing import composed_as
from eg3d import checkpoint
from eg3d.cameras import canonical_label, intrinsics_from_focal, join_label, pose_from_angles
from eg3d.generator import TriPlaneGenerator
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models.segmentation import deeplabv3_resnet50

from goae.config import TrainConfig
from goae.data.datasets import PosedImages
from goae.extractors import lpips
from goae.extractors.arcface import IRSE50
from goae.extractors.bisenet import BiSeNet
from goae.runs.setup import run_inverter
from goae.runs.train import train
from goae.training.canonical import CanonicalStats
from goae.training.tracking import read_metrics

SIDE = 512
RAW = 32  # rays along each axis of the raw image, published 128
LOSSES = {
    "ffhq": {
        "encoder": {"d/real", "d/fake", "r1/r1", "e/l2", "e/lpips", "e/id", "e/adv", "e/bg"},
        "refiner": {"afa/l2", "afa/lpips", "afa/id", "afa/bg", "afa/df"},
    },
    "afhq_cat": {
        "encoder": {"d/real", "d/fake", "r1/r1", "e/l2", "e/lpips", "e/adv", "e/bg"},
        "refiner": {"afa/l2", "afa/lpips", "afa/bg", "afa/df"},
    },
}
VALIDATED = [("ffhq", "encoder")]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that is emptied afterwards: checkpoints of this size add up."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def write_images(folder: Path, num: int) -> str:
    """Smooth random pictures with cameras around the head, in EG3D's format."""
    folder.mkdir()
    rng = torch.Generator().manual_seed(3)
    labels = []
    for i in range(num):
        coarse = torch.tanh(torch.randn(1, 3, 5, 5, generator=rng))
        image = nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic")[0].clamp(-1, 1)
        Image.fromarray(((image + 1) * 127.5).byte().permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
        c = join_label(pose_from_angles(0.3 * i - 0.2, 0.1), intrinsics_from_focal())
        labels.append([f"{i}.png", c.flatten().tolist()])
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    return str(folder)


def write_generator(config: TrainConfig, path: Path) -> TriPlaneGenerator:
    """A random generator of the configured sizes with few samples, and the statistics that lie beside it."""
    config.generator.neural_rendering_resolution = RAW
    rendering = config.generator.rendering
    rendering.depth_resolution = rendering.depth_resolution_importance = 8
    torch.manual_seed(0)
    generator = TriPlaneGenerator(config.generator).eval()
    checkpoint.save(generator, path)
    stats = CanonicalStats(
        torch.tensor(2.9),
        torch.full((1, 1, RAW, RAW), 2.9),
        generator.w_avg.clone(),
        1,
        checkpoint.generator_hash(generator),
        "8 + 8",
    )
    stats.save(path.with_name(f"{path.stem}-canonical.safetensors"))
    return generator


def write_perception(folder: Path, background: str) -> list[str]:
    """Files with random weights of the real perception networks; the overrides that name them."""
    torch.manual_seed(1)
    trunk = {n: t for n, t in lpips.build("alex").state_dict().items() if n.startswith("net.")}
    save_file({n: t.contiguous() for n, t in trunk.items()}, folder / "alexnet.safetensors")
    torch.save(IRSE50().state_dict(), folder / "model_ir_se50.pth")
    network = BiSeNet() if background == "parser" else deeplabv3_resnet50(weights_backbone=None, aux_loss=True)
    last = network.conv_out.conv_out if background == "parser" else network.classifier[-1]
    with torch.no_grad():
        last.weight[0].abs_()  # class 0, the background, wins over features that are not negative
    torch.save(network.state_dict(), folder / "background.pth")
    files = {"lpips": "alexnet.safetensors", "identity": "model_ir_se50.pth", "background": "background.pth"}
    return [f"perception.{name}_path={folder / file}" for name, file in files.items()]


def configured(experiment: str, folder: Path) -> TrainConfig:
    """The recipe with files of `folder`, one step of each stage and one image of validation."""
    # no previews, and validation only where VALIDATED says: each costs several super-resolutions to 512²
    fit = []
    for stage in LOSSES[experiment]:
        every = int((experiment, stage) in VALIDATED)
        values = {"steps": 1, "batch_size": 1, "log_every": 1, "image_every": 0, "evaluate_every": every}
        fit += [f"stages.{stage}.fit.{key}={value}" for key, value in values.items()]
    if experiment == "afhq_cat":
        fit += ["generator.channel_base=16384", "generator.superresolution_channels=[128,64]"]
    return composed_as(
        TrainConfig,
        f"experiment={experiment}",
        *fit,
        *write_perception(folder, "parser" if experiment == "ffhq" else "segmenter"),
        f"paths.runs={folder}",
        f"paths.generator={folder / 'generator.safetensors'}",
        "paths.backbone=random",
        f"data.train={write_images(folder / 'train', 2)}",
        f"data.validation={write_images(folder / 'validation', 1)}",
        "run=full",
        "device=cpu",
        "goae.mix.depth_resolution=64",
        "validation.num_images=1",
        "validation.batch_size=1",
        "logging.progress=false",
    )


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["ffhq", "afhq_cat"])
def test_one_step_of_each_stage_and_an_inversion(experiment: str, folder: Path) -> None:
    config = configured(experiment, folder)
    generator = write_generator(config, Path(config.paths.generator))
    run_dir = train(config)

    for stage, losses in LOSSES[experiment].items():
        rows = read_metrics(run_dir, stage)
        logged = {name: value for row in rows for name, value in row.items()}
        assert losses <= logged.keys()
        assert all(math.isfinite(logged[name]) for name in losses)
        assert logged["e/bg_share" if stage == "encoder" else "afa/bg_share"] > 0  # the mask is not empty
        validated = 2 if (experiment, stage) in VALIDATED else 0  # before and after the step
        assert sum("val/mse" in row for row in rows) == validated
        tensors = load_file(run_dir / f"{stage}.safetensors")
        assert all(torch.isfinite(tensor.float()).all() for tensor in tensors.values())

    inverter = run_inverter(config)
    assert inverter.generator_hash == checkpoint.generator_hash(generator)
    sample = PosedImages(config.data.validation, SIDE)[0]
    inversion = inverter.invert(sample["image"][None], sample["c"])
    assert inversion.ws.shape == (1, 14, 512)
    assert inversion.features.shape == (1, 512, 32, 32)
    assert inversion.planes.shape == (1, 3, 32, 256, 256)
    view = inverter.render(inversion, canonical_label())
    assert view.image.shape == (1, 3, SIDE, SIDE)
    assert torch.isfinite(view.image).all() and view.image.std() > 0
