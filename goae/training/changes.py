"""Settings that changed while a run was trained: `changes.jsonl` in its folder, one line for each."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from goae.training import checkpoint


def note_changes(run_dir: Path, changes: Mapping[str, tuple[Any, Any]]) -> None:
    """Write down what a run goes on with: key -> value of before, value of now.

    A key `stages.encoder.*` concerns the stage `encoder`, and a key that names no stage concerns all. A stage without a
    checkpoint has not begun, so that nothing of it was trained with the value of before.
    """
    if not changes:
        return
    begun = {folder.name: checkpoint.newest(folder) for folder in sorted((run_dir / "checkpoints").glob("*"))}
    rows = [
        {"stage": stage, "step": checkpoint.step_of(newest), "key": key, "before": before, "after": after}
        for key, (before, after) in changes.items()
        for stage, newest in begun.items()
        if newest is not None and (stage in key.split(".") or not set(begun) & set(key.split(".")))
    ]
    if rows:
        with (run_dir / "changes.jsonl").open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


def read_changes(run_dir: Path, stage: str) -> list[dict[str, Any]]:
    """Step, key, before and after of each change of a stage, by steps; of several at one step, what came of them."""
    path = run_dir / "changes.jsonl"
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for row in map(json.loads, path.read_text().splitlines() if path.exists() else []):
        if row.pop("stage") == stage:
            before = found.get((row["step"], row["key"]), row)["before"]
            found[row["step"], row["key"]] = row | {"before": before}
    return sorted((row for row in found.values() if row["before"] != row["after"]), key=lambda row: row["step"])
