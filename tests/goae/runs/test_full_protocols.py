"""The full world's protocols on four-image stand-ins, with random networks of the published sizes: every column.

As in test_full_world.py the rays of the raw image, the samples along a ray and the rays behind the mask are fewer than
published, since they change cost and not shapes. Cats have no protocol in the paper: their images are split.
"""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from composing import composed_as
from eg3d import checkpoint
from eg3d.generator import GeneratorConfig, TriPlaneGenerator
from facenet_pytorch import InceptionResnetV1
from safetensors.torch import save_file
from standins import random_inception, write_crops

from goae.config import ProtocolConfig, TrainConfig
from goae.data.datasets import PosedImages
from goae.extractors import lpips
from goae.extractors.arcface import IRSE50
from goae.loading import save_encoder, save_refiner
from goae.models.afa import AFA
from goae.models.encoder import Encoder
from goae.models.goae import GOAEConfig
from goae.models.occlusion import MixConfig
from goae.runs.protocol import run_protocol
from scripts import run_script

SIDE = 512
COLUMNS = {"mse", "psnr", "ssim", "ms_ssim", "lpips", "id", "id_independent", "geo"}
TABLE = ("psnr", "ssim", "mse", "lpips", "fid", "id", "geo")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that is emptied afterwards: weights of this size add up."""
    path = tmp_path_factory.mktemp("full")
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def weights(folder: Path) -> list[str]:
    """Files of all networks; the overrides that name them."""
    config = composed_as(TrainConfig, "experiment=ffhq", "paths.generator=random")
    write_generator(config.generator, folder / "generator.safetensors")
    torch.manual_seed(1)
    save_encoder(Encoder(config.encoder, num_ws=14, w_dim=512), folder / "encoder.safetensors")
    goae = GOAEConfig(mix=MixConfig(depth_resolution=64))
    save_refiner(AFA(config.afa), goae, folder / "refiner.safetensors")
    trunk = {n: t for n, t in lpips.build("alex").state_dict().items() if n.startswith("net.")}
    save_file({n: t.contiguous() for n, t in trunk.items()}, folder / "alexnet.safetensors")
    torch.save(IRSE50().state_dict(), folder / "arcface.pth")
    torch.save(InceptionResnetV1(pretrained=None).state_dict(), folder / "facenet.pt")
    torch.save(random_inception(), folder / "inception.pth")
    networks = {
        "lpips": "alexnet.safetensors",
        "identity": "arcface.pth",
        "identity_independent": "facenet.pt",
        "features": "inception.pth",
    }
    return [
        *[f"{name}_path={folder / name}.safetensors" for name in ("generator", "encoder", "refiner")],
        *[f"metrics.{name}_path={folder / file}" for name, file in networks.items()],
        "world=full",
        "methods=[full]",
        "timing_images=1",
        "warm_up=0",
        "resamples=20",
        "device=cpu",
    ]


def write_generator(config: GeneratorConfig, path: Path) -> None:
    """A random generator with few rays and samples."""
    config.neural_rendering_resolution = 32
    config.rendering.depth_resolution = config.rendering.depth_resolution_importance = 8
    torch.manual_seed(0)
    checkpoint.save(TriPlaneGenerator(config).eval(), path)


def write_depth(images: Path, folder: Path) -> Path:
    """Pseudo-depth of each image, known in the middle."""
    for i, name in enumerate(PosedImages(images).names):
        depth = np.full((128, 128), np.nan, np.float32)
        depth[32:96, 32:96] = np.random.RandomState(i).randn(64, 64)
        path = folder / Path(name).with_suffix(".npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, depth=depth)
    return folder


def measured(script: str, output: Path, *overrides: str) -> tuple[dict[str, float], list[dict[str, str]]]:
    """The columns of the paper's tables and the rows of the method."""
    summary = run_protocol(composed_as(ProtocolConfig, *overrides, f"output={output}", name=script))
    with (output / "full.csv").open() as file:
        return json.loads(summary.read_text())["methods"]["full"]["table"], list(csv.DictReader(file))


@pytest.mark.slow
def test_celebahq(folder: Path, weights: list[str]) -> None:
    crops = write_crops(folder / "celeba", [f"{i}.png" for i in range(4)], side=SIDE)
    (folder / "list.txt").write_text("".join(f"{i}.png\n" for i in range(4)))
    drawn = ["--list", folder / "list.txt", "--num", 4, "--out", folder / "celebahq.zip"]
    assert run_script("prepare_celebahq", "--images", crops, *drawn) == 0
    depth = write_depth(folder / "celebahq.zip", folder / "celebahq-depth")
    table, rows = measured(
        "eval_celebahq",
        folder / "input",
        *weights,
        f"images.input_view={folder / 'celebahq.zip'}",
        f"pseudo_depth.input_view={depth}",
    )
    assert len(rows) == 4
    assert all(np.isfinite(float(row[name])) for row in rows for name in COLUMNS)
    assert set(table) == {*TABLE, "time"} and all(np.isfinite(value) for value in table.values())


@pytest.mark.slow
def test_mead(folder: Path, weights: list[str]) -> None:
    """One person from three of the five views; a side and the front are inverted, each into the two others."""
    views = ("left_60", "front", "right_30")
    crops = write_crops(folder / "mead", [f"M003/{view}/1.png" for view in views], side=SIDE)
    drawn = ["--views", *views, "--persons", 1, "--frames", 1, "--out", folder / "mead.zip"]
    assert run_script("prepare_mead", "--images", crops, *drawn) == 0
    depth = write_depth(folder / "mead.zip", folder / "mead-depth")
    table, rows = measured(
        "eval_mead",
        folder / "novel",
        *weights,
        "timing_images=0",
        "yaws=[-60,0,30]",
        "inputs=[60,0]",
        f"images.novel_view={folder / 'mead.zip'}",
        f"pseudo_depth.novel_view={depth}",
    )
    assert len(rows) == 4 and {row["yaw"] for row in rows} == {"-60", "0"}
    assert all(np.isfinite(float(row[name])) for row in rows for name in COLUMNS)
    assert set(table) == {f"{name}{group}" for name in TABLE for group in ("60", "0")}
    assert all(np.isfinite(value) for value in table.values())


@pytest.mark.slow
def test_afhq(folder: Path) -> None:
    crops = write_crops(folder / "cats", [f"{i}.png" for i in range(4)], side=SIDE)
    assert run_script("prepare_afhq", "--images", crops, "--out", folder / "afhq_cat") == 0
    sizes = {split: len(PosedImages(folder / "afhq_cat" / f"{split}.zip", SIDE)) for split in ("train", "val", "test")}
    assert sizes == {"train": 2, "val": 1, "test": 1}
