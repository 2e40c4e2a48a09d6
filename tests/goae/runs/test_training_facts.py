"""How much validation still moved when training ended."""

import json
from pathlib import Path

import pytest
from composing import composed_as

from goae.config import TrainConfig, claim_run
from goae.runs.training_facts import change_at_the_end, training_of


def test_the_last_fifth_is_compared() -> None:
    rows = [{"step": step, "val/mse": 1 / (1 + step)} for step in (0, 4, 7, 8, 9, 10)] + [{"step": 10, "e/l2": 0.0}]
    assert change_at_the_end(rows, 10) == pytest.approx({"val_mse_change": 9 / 11 - 1, "since": 8})
    assert not change_at_the_end(rows, 11)  # the end was not measured
    assert not change_at_the_end(rows[:1] + rows[-2:], 10)  # nothing before it but the untrained network


def test_the_first_stage_of_another_run_is_told_and_outlives_it(tmp_path: Path) -> None:
    folders = {}
    for run, more in (("first", []), ("second", [f"paths.encoder={tmp_path / 'first' / 'encoder.safetensors'}"])):
        config = composed_as(TrainConfig, "experiment=tiny", f"run={run}", f"paths.runs={tmp_path}", *more)
        claim_run(config)
        folders[run] = config.run_dir
    steps = config.stages.encoder.fit.steps
    rows = [{"step": steps * share, "val/mse": 2.0 - share} for share in (0.5, 1.0)]
    (folders["first"] / "encoder.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = tmp_path / "training.json"
    told = training_of(folders["second"], kept)
    assert told["encoder"] == {"steps": steps, "val_mse_change": pytest.approx(1 / 1.5 - 1), "since": steps // 2}
    assert told["refiner"] == {"steps": config.stages.refiner.fit.steps}
    assert training_of(tmp_path / "gone", kept) == told


def test_a_stage_that_was_not_trained_is_not_told(tmp_path: Path) -> None:
    config = composed_as(TrainConfig, "experiment=tiny", "stage=encoder", "run=first", f"paths.runs={tmp_path}")
    claim_run(config)
    assert training_of(config.run_dir, tmp_path / "training.json").keys() == {"encoder"}
