"""Training a camera regressor on tiny runs: exact resume, poses of a data set, errors on its images."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from composing import composed_as
from PIL import Image
from safetensors.torch import load_file

from goae.camera.regressor import estimate_camera, load_regressor
from goae.config import CameraConfig, InvertConfig
from goae.data.datasets import PosedImages
from goae.runs.invert import invert
from goae.runs.train_camera import pose_labels, train_camera
from goae.training import checkpoint
from goae.training.tracking import read_metrics

CPU = torch.device("cpu")


def config(folder: Path, *more: str) -> CameraConfig:
    return composed_as(CameraConfig, "experiment=tiny_camera", f"paths.runs={folder}", *more, name="train_camera")


def state(run: Path) -> dict[str, Any]:
    path = checkpoint.newest(run / "checkpoints" / "camera")
    assert path is not None
    return checkpoint.load(path, torch.device("cpu"))


def logged(run: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_metrics(run, "camera")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    made = config(tmp_path_factory.mktemp("camera"), "run=whole", f"data.validation={tiny_data}")
    return train_camera(made).parent


def test_a_run_leaves_a_regressor_its_errors_and_pictures(whole: Path, tiny_data: Path) -> None:
    errors = json.loads((whole / "camera-errors.json").read_text())
    assert errors.keys() == {f"{prefix}{n}" for prefix in ("", "data_") for n in ("angle", "yaw", "pitch", "roll")}
    rows = logged(whole)
    assert {name for row in rows for name in row} >= {"camera/angles", "val/angle", "val/data_angle"}
    assert rows[-1]["val/angle"] == pytest.approx(errors["angle"], rel=1e-5)
    images = PosedImages(tiny_data, 32)
    found = load_regressor(whole / "camera.safetensors").estimate(images[0]["image"][None])
    assert found.shape == (1, 25)
    assert (whole / "camera-best.safetensors").exists()
    assert Image.open(whole / "images" / "camera-000000004.png").size == (2 * 34 - 2, 8 * 34 - 2)


def test_photos_without_labels_are_inverted_from_its_estimates(whole: Path, tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (2, 40, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, one in zip(paths, pixels.numpy(), strict=True):
        Image.fromarray(one).save(path)
    file = whole / "camera.safetensors"
    expected = estimate_camera(pixels.numpy(), load_regressor(file))
    job = {"input": str(tmp_path), "run": "mini_long-seed0", "device": "cpu"}
    out = invert(InvertConfig(**job, regressor_path=str(file), output=str(tmp_path / "out")))
    found = [load_file(out / name / "inversion.safetensors")["c"][0] for name in ("a", "b")]
    assert torch.allclose(torch.stack(found), expected, atol=1e-5)


@pytest.mark.parametrize("cameras", [{}, {"camera": "a.json", "regressor_path": "b.safetensors"}])
def test_photos_need_labels_or_a_regressor(cameras: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="one of camera and regressor_path must be given"):
        InvertConfig(input="a.png", run="any", **cameras)


def test_stop_and_resume_equals_uninterrupted(whole: Path, tiny_data: Path, tmp_path: Path) -> None:
    for steps in (1, 3, 4):
        more = ("run=parts", f"data.validation={tiny_data}", f"camera.fit.steps={steps}")
        train_camera(config(tmp_path, *more))
    ours, theirs = state(tmp_path / "parts"), state(whole)
    assert ours["step"] == theirs["step"] == 4
    for kind in ("modules", "average"):
        a, b = (s[kind]["regressor"] if kind == "modules" else s[kind] for s in (ours, theirs))
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    kept = [row for row in logged(tmp_path / "parts") if row["step"] not in (1, 3)]  # a last step is also measured
    assert kept == [row for row in logged(whole) if row["step"] not in (1, 3)]


def test_poses_are_the_labels_of_the_training_images(tiny_data: Path, tmp_path: Path) -> None:
    assert pose_labels(config(tmp_path)) is None
    labels = PosedImages(tiny_data, 32).labels
    both = pose_labels(config(tmp_path, f"data.train={tiny_data}"))
    assert both is not None and len(both) == 2 * len(labels) and torch.equal(both[: len(labels)], labels)
    plain = pose_labels(config(tmp_path, f"data.train={tiny_data}", "data.mirror=false"))
    assert plain is not None and torch.equal(plain, labels)


def test_the_sphere_is_the_generators() -> None:
    full = composed_as(CameraConfig, "experiment=camera", name="train_camera")
    assert full.regressor.sphere.pivot == [0.0, 0.0, 0.2] and full.regressor.sphere.radius == 2.7
    assert (full.regressor.resolution, full.data.resolution) == (256, 512)
