"""Inversion of heads by optimisation on a tiny generator: numbers, resume, what is refused."""

import csv
import json
from pathlib import Path

import pytest
import torch
from composing import composed_as
from eg3d import checkpoint
from PIL import Image
from tiny import tiny_generator
from torch import Tensor

from goae.baselines.optimization import LatentOptimization, Optimized
from goae.config import InvertHeadsConfig
from goae.data.datasets import PosedImages
from goae.data.mini import SplitConfig, write_split
from goae.evaluation.image_metrics import psnr
from goae.runs.invert_heads import invert_heads

METHODS = ["mean_image", "nearest", "w_avg", "w", "w_plus"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("heads")
    write_split(SplitConfig("test", 5, 0, 32), folder / "test.zip", workers=1, progress=lambda done: None)
    checkpoint.save(tiny_generator(), folder / "generator.safetensors")
    return {"train": tiny_data, "test": folder / "test.zip", "generator_path": folder / "generator.safetensors"}


def heads(files: dict[str, Path], folder: Path, *more: str) -> InvertHeadsConfig:
    given = [f"{name}={path}" for name, path in files.items()]
    small = ["batch_size=2", "num_shown=2", "device=cpu", "optimization.steps=6", "optimization.lpips=0"]
    out = [f"output={folder / 'out'}", f"metrics={folder / 'metrics.json'}", "optimization.samples=4"]
    return composed_as(InvertHeadsConfig, *given, *small, *out, *more, name="invert_heads")


@pytest.fixture(scope="module")
def whole(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run without a stop."""
    folder = tmp_path_factory.mktemp("whole")
    assert invert_heads(heads(files, folder)) == folder / "out" / "summary.json"
    return folder


def column(path: Path, name: str) -> list[float]:
    with path.open() as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def test_every_method_has_a_row_per_image_and_its_means_are_recorded(whole: Path, files: dict[str, Path]) -> None:
    summary = json.loads((whole / "out" / "summary.json").read_text())
    prior = json.loads((whole / "metrics.json").read_text())["prior"]
    assert list(summary["methods"]) == METHODS
    for name, values in summary["methods"].items():
        for metric in ("psnr", "depth_error"):
            rows = column(whole / "out" / f"{name}.csv", metric)
            assert len(rows) == 5 and values[metric] == pytest.approx(sum(rows) / 5)
            recorded = prior[f"{name.replace('w_plus', 'wplus')}_{metric}"]
            assert recorded == values[metric] > 0
            low, high = values[f"{metric}_interval"]
            assert low <= recorded <= high
    assert prior["wplus_psnr"] > prior["w_psnr"] > prior["w_avg_psnr"]
    assert prior["inverted"]["num_images"] == 5 and prior["inverted"]["optimization"]["steps"] == 6
    # rows of two: input, five answers, four depths
    assert Image.open(whole / "out" / "inversions.png").size == (10 * 34 - 2, 2 * 34 - 2)


def test_floors_are_those_of_the_training_images(whole: Path, files: dict[str, Path]) -> None:
    train, test = PosedImages(files["train"], 32), PosedImages(files["test"], 32)
    stored = torch.stack([train[i]["image"] for i in range(len(train))])
    for i, name in enumerate(test.names):
        image = test[i]["image"].expand_as(stored)
        assert column(whole / "out" / "nearest.csv", "psnr")[i] == pytest.approx(float(psnr(stored, image).max()), 1e-5)
        mean = float(psnr(stored.mean(0, keepdim=True), image[:1]))
        assert column(whole / "out" / "mean_image.csv", "psnr")[i] == pytest.approx(mean, 1e-4)
        assert name in (whole / "out" / "w.csv").read_text()


def test_a_stopped_run_loses_one_batch(
    whole: Path, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    invert, calls = LatentOptimization.invert, []

    def stopping(self: LatentOptimization, image: Tensor, c: Tensor) -> Optimized:
        calls.append(self.space)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return invert(self, image, c)

    monkeypatch.setattr(LatentOptimization, "invert", stopping)
    with pytest.raises(KeyboardInterrupt):
        invert_heads(heads(files, tmp_path))
    assert not (tmp_path / "metrics.json").exists()
    assert sorted(p.name for p in (tmp_path / "out" / "codes").iterdir()) == [
        "w-00000.safetensors",
        "w-00001.safetensors",
    ]
    invert_heads(heads(files, tmp_path))
    assert calls == ["w"] * 4 + ["w_plus"] * 3  # the third batch of w twice, no other
    for name in METHODS:
        for metric in ("psnr", "depth_error"):
            again, first = (column(p / "out" / f"{name}.csv", metric) for p in (tmp_path, whole))
            assert again == first
    invert_heads(heads(files, tmp_path))
    assert len(calls) == 7


def test_codes_of_other_settings_are_refused(whole: Path, files: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"w-00000\.safetensors holds codes of other images.*output=FOLDER"):
        invert_heads(heads(files, whole, "optimization.steps=7"))


def test_a_trial_records_nothing_and_wrong_settings_are_named(files: dict[str, Path], tmp_path: Path) -> None:
    invert_heads(heads(files, tmp_path, "metrics=", "num_images=2", "spaces=[w]"))
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert len(column(tmp_path / "out" / "w.csv", "psnr")) == 2 and not (tmp_path / "out" / "w_plus.csv").exists()
    with pytest.raises(ValueError, match="expected some of w, w_plus"):
        heads(files, tmp_path, "spaces=[z]")
