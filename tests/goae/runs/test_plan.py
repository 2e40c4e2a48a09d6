"""The plan of a run: what it says comes true, and printing it leaves nothing behind."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from composing import composed_as
from eg3d import checkpoint
from tiny import tiny_generator
from torch import Tensor

from goae.config import TrainConfig
from goae.runs.canonical import canonical_stats
from goae.runs.plan import average_step, disk_of, networks_of, trial_of
from goae.runs.train import train
from scripts import run_script


class World(NamedTuple):
    """A tiny generator with its statistics, and what names it and the data."""

    folder: Path
    given: list[str]

    def files(self) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in self.folder.rglob("*")}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> World:
    folder = tmp_path_factory.mktemp("plan")
    checkpoint.save(tiny_generator(), folder / "generator.safetensors")
    given = ["experiment=tiny", f"paths.runs={folder}", f"paths.generator={folder / 'generator.safetensors'}"]
    given += [f"data.{split}={tiny_data}" for split in ("train", "validation", "test")]
    canonical_stats(composed_as(TrainConfig, *given))
    return World(folder, given)


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and what is printed."""
    capsys.readouterr()
    code = run_script("train", *arguments, "plan=true")
    return code, capsys.readouterr().out


def tensor_bytes(values: Any) -> int:
    if isinstance(values, Tensor):
        return values.numel() * values.element_size()
    inner = values.values() if isinstance(values, dict) else values if isinstance(values, list | tuple) else []
    return sum(tensor_bytes(value) for value in inner)


def test_a_plan_measures_both_stages_and_leaves_nothing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    before = world.files()
    code, told = planned(capsys, *world.given, "run=new")
    assert code == 0 and world.files() == before
    assert "train                  12 images, of which 0 are mirrored copies" in told and "missing" not in told
    for stage in ("encoder", "refiner"):
        assert re.search(
            rf"  {stage} +4 steps of 4 images to go: \S+ at [0-9.]+ s a step \(first step [0-9.]+ s\)", told
        )
    assert len(told.splitlines()) < 30


def test_its_sizes_are_those_of_the_run(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    given = [*world.given, "run=sized", "stages.encoder.fit.ema=0.9", "stages.encoder.stage_steps=[0,0,0]"]
    config = composed_as(TrainConfig, *given)
    todo = ["encoder", "refiner"]
    expected = disk_of(config, todo, networks_of(config, todo))
    train(config)
    states = [torch.load(path, weights_only=True) for path in config.run_dir.glob("checkpoints/*/*.pt")]
    kept = [[state[part] for part in ("modules", "optimizers", "average")] for state in states]
    assert len(states) == 4 and expected["checkpoints"] == tensor_bytes(kept)
    weights = sum(path.stat().st_size for path in config.run_dir.glob("*.safetensors"))
    assert expected["weights"] <= weights < 1.3 * expected["weights"]  # names and shapes beside the tensors
    assert planned(capsys, *given) == (0, f"{config.run_dir}: training is complete\n")


def test_every_run_of_a_sweep_has_a_plan(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = planned(capsys, "-m", *world.given, "method=psp", "seed=0,1")
    assert code == 0 and told.count("4 steps of 4 images to go") == 2
    assert {path.name for path in world.folder.glob("*psp*")} == set()


@pytest.mark.parametrize("method", ["psp", "e4e", "ide3d"])
def test_rivals_have_plans(world: World, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = planned(capsys, *world.given, f"method={method}")
    assert code == 0 and "  encoder                4 steps" in told and "refiner" not in told


def test_stage_2_of_another_run_has_a_plan(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    given = [*world.given, "stage=refiner", f"paths.encoder={world.folder / 'first/encoder.safetensors'}"]
    code, told = planned(capsys, *given)
    assert code == 1 and "missing  paths.encoder" in told and "time and memory: not measured" in told
    train(composed_as(TrainConfig, *world.given, "run=first", "stage=encoder", "stages.encoder.fit.steps=1"))
    code, told = planned(capsys, *given)
    assert code == 0 and "  refiner                4 steps" in told and "feature alignment" in told


def test_all_that_is_missing_is_listed_at_once(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOAE_CACHE", str(tmp_path / "cache"))
    code, told = planned(capsys, "experiment=ffhq", f"paths.runs={tmp_path}", *world.given[3:4])
    assert code == 1 and not list(tmp_path.iterdir())
    lines = told.splitlines()
    assert "images cannot be used:" in told and "expected 512x512" in told and "since data.validation, " in told
    for key, remedy in {
        "data.validation": "python scripts/prepare_ffhq.py --images FFHQ_512.zip",
        "paths.generator": "python scripts/fetch_weights.py ffhqrebalanced512-128 --accept-licence",
        "paths.backbone": "python scripts/fetch_weights.py swin --accept-licence",
        "paths.canonical_stats": "python scripts/canonical_stats.py experiment=ffhq, with the keys of this run",
        "perception.lpips": "python scripts/fetch_weights.py alex",
    }.items():
        row = next(i for i, line in enumerate(lines) if line.startswith(f"   missing  {key} "))
        assert lines[row + 1].strip() == remedy


def test_a_run_that_could_not_go_on_has_no_plan(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    train(composed_as(TrainConfig, *world.given, "run=other", "stage=encoder", "stages.encoder.fit.steps=1"))
    assert run_script("train", *world.given, "run=other", "stages.encoder.bg=1.0", "plan=true") == 1
    assert "stages.encoder.bg: 5.0 in the run, 1.0 now" in capsys.readouterr().err


def test_rare_terms_count_by_their_period() -> None:
    assert average_step([9.0, 1.0, 3.0, 1.0], 4) == pytest.approx(1.5)
    assert average_step([9.0, 1.0, 1.0, 1.0], 1) == pytest.approx(1.0)
    trial = trial_of(composed_as(TrainConfig, "experiment=mini"))
    assert trial.stages.encoder.background.every == trial.stages.encoder.adversary.r1_every == 2
    assert trial.stages.refiner.background.every == 2
