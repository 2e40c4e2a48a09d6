"""How much validation still moved when training ended."""

import json
from pathlib import Path

import pytest
from composing import composed_as

from goae.config import TrainConfig, claim_run
from goae.runs.setup import finished_stages
from goae.runs.training_facts import change_at_the_end, training_of


def test_the_last_fifth_is_compared() -> None:
    rows = [{"step": step, "val/mse": 1 / (1 + step)} for step in (0, 4, 7, 8, 9, 10)] + [{"step": 10, "e/l2": 0.0}]
    assert change_at_the_end(rows, 10) == pytest.approx({"val_mse_change": 9 / 11 - 1, "since": 8})
    assert not change_at_the_end(rows, 11)  # the end was not measured
    assert not change_at_the_end(rows[:1] + rows[-2:], 10)  # nothing before it but the untrained network


def trained(tmp_path: Path, run: str, *overrides: str) -> TrainConfig:
    """A run with weights and logs to the end of its own stages."""
    config = composed_as(TrainConfig, "experiment=tiny", f"run={run}", f"paths.runs={tmp_path}", *overrides)
    claim_run(config)
    for stage in set(config.own_stages) & set(finished_stages(config)):
        rows = [{"step": getattr(config.stages, stage).fit.steps * x, "val/mse": 2.0 - x} for x in (0.5, 1.0)]
        (config.run_dir / f"{stage}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (config.run_dir / f"{stage}.safetensors").touch()
    return config


def test_the_first_stage_of_another_run_is_told_and_outlives_it(tmp_path: Path) -> None:
    first = trained(tmp_path, "first", "stage=encoder")
    second = trained(tmp_path, "second", f"paths.encoder={tmp_path / 'first' / 'encoder.safetensors'}")
    kept, steps = tmp_path / "training.json", first.stages.encoder.fit.steps
    told = training_of(second.run_dir, kept)
    assert told["encoder"] == {"steps": steps, "val_mse_change": pytest.approx(1 / 1.5 - 1), "since": steps // 2}
    assert told["refiner"]["steps"] == second.stages.refiner.fit.steps
    assert training_of(tmp_path / "gone", kept) == told


def test_a_stage_that_was_not_trained_is_not_told(tmp_path: Path) -> None:
    config = trained(tmp_path, "first", "stage=encoder")
    assert training_of(config.run_dir, tmp_path / "training.json").keys() == {"encoder"}
    (config.run_dir / "encoder.safetensors").unlink()
    assert not training_of(config.run_dir, tmp_path / "other.json")


def test_steps_of_a_training_that_goes_on_are_not_those_of_the_weights(tmp_path: Path) -> None:
    config, kept = trained(tmp_path, "first", "stage=encoder"), tmp_path / "training.json"
    told = training_of(config.run_dir, kept)
    config.stages.encoder.fit.steps *= 5
    claim_run(config)
    assert training_of(config.run_dir, kept) == told
    assert not training_of(config.run_dir, tmp_path / "other.json")
