"""What is told of a run's training beside its numbers: steps, and how much validation was still moving at the end."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eg3d.limits import read_json

from goae.config import TrainConfig, load_run, run_file
from goae.evaluation.runner import write_json
from goae.runs.setup import finished_stages
from goae.training.changes import read_changes
from goae.training.tracking import read_metrics

LAST = 0.2  # least share of the steps over which the change is told


def training_of(folder: Path, kept: Path) -> dict[str, dict[str, Any]]:
    """stage -> `steps`, `val_mse_change` and `since` where validation tells; kept in a file that outlives the run.

    Also `changes`, of settings while it was trained, and `skipped`, the steps that were undone; where there are any.

    Of a run that goes on from the stage 1 of another, that one's stage 1. Of a stage that is being trained anew or
    further, what was kept: its weights are still those of before.
    """
    found: dict[str, dict[str, Any]] = read_json(kept) if kept.exists() else {}
    if (folder / "config.yaml").exists():
        found |= _read(folder)
        write_json(found, kept)
    return found


def at_its_end(run: TrainConfig, folder: Path, stage: str) -> bool:
    """Whether a stage has left its weights, and its log reaches the number of steps that the run asks for."""
    rows = read_metrics(folder, stage)
    reached = bool(rows) and rows[-1]["step"] >= getattr(run.stages, stage).fit.steps
    return reached and (folder / f"{stage}.safetensors").exists()


def change_at_the_end(rows: Sequence[dict[str, float]], steps: int) -> dict[str, float]:
    """Validation MSE at the end over that before the last fifth, minus 1, and when it was; empty if one is missing.

    Validation is not measured at every step: `since` is the last at which it was, before the last fifth began.
    """
    measured = {int(row["step"]): row["val/mse"] for row in rows if "val/mse" in row}
    before = max((step for step in measured if step <= (1 - LAST) * steps), default=0)
    if not before or steps not in measured:
        return {}
    return {"val_mse_change": measured[steps] / measured[before] - 1, "since": before}


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    run = load_run(folder, TrainConfig)
    found: dict[str, dict[str, Any]] = {}
    if run.paths.encoder and (first := run_file(run.paths.encoder).parent / "config.yaml").exists():
        found |= _facts(load_run(first.parent, TrainConfig), first.parent, ["encoder"])
    return found | _facts(run, folder, [stage for stage in finished_stages(run) if stage in run.own_stages])


def _facts(run: TrainConfig, folder: Path, stages: Sequence[str]) -> dict[str, dict[str, Any]]:
    found = {}
    for stage in stages:
        if at_its_end(run, folder, stage):
            steps: int = getattr(run.stages, stage).fit.steps
            rows = read_metrics(folder, stage)
            found[stage] = {"steps": steps} | change_at_the_end(rows, steps) | _disturbances(folder, stage, rows, steps)
    return found


def _disturbances(folder: Path, stage: str, rows: Sequence[dict[str, float]], steps: int) -> dict[str, Any]:
    """What was changed before the last step, and how many steps were undone."""
    changes = [change for change in read_changes(folder, stage) if change["step"] < steps]
    skipped = int(max((row["skipped"] for row in rows if "skipped" in row), default=0))
    return ({"changes": changes} if changes else {}) | ({"skipped": skipped} if skipped else {})
