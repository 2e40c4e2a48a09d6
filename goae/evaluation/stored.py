"""What a folder of a protocol's results holds of a method, and whether it is all."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from eg3d.limits import read_json
from torch import Tensor

from goae.evaluation.protocols import as_table, common_tasks
from goae.evaluation.results import Results, Row
from goae.evaluation.sets import Sets, of_these, read_sets

TOGETHER = "together"  # in a method's seconds: when the pass began in which several methods were timed


@dataclass(frozen=True)
class Stored:
    """The rows of a method, the distances of their sets, what they depend on, and what they took."""

    folder: Path
    method: str
    rows: list[Row]
    sets: Sets
    settings: dict[str, Any]
    seconds: dict[str, Any] | None  # of one inversion; input view alone
    cost: dict[str, Any] | None  # of measuring it all

    def chosen(self, group: str, tasks: set[str]) -> list[Row]:
        """A group's rows of these tasks."""
        return [row for row in self.rows if row["group"] == group and row["task"] in tasks]

    def distances(self, group: str, tasks: set[str]) -> dict[str, Any]:
        """Distances of that group's set of images; empty if they were not kept for these tasks."""
        found: dict[str, Any] = of_these(self.sets, tasks).get(group, {})
        return found


def read_stored(folder: Path, method: str) -> Stored:
    """Read `<method>.*`, for which no features are needed. Raises: FileNotFoundError if there are no rows."""
    results = Results.stored(folder, method)
    return Stored(
        folder,
        method,
        results.rows(),
        read_sets(results),
        results.settings,
        _read_json(time_path(folder, method)),
        _read_json(results.cost_path),
    )


def time_path(folder: Path, method: str) -> Path:
    """The seconds of one inversion."""
    return folder / f"{method}.time.json"


def is_complete(folder: Path, method: str) -> bool:
    """Whether every task of a method was measured there; its time may be missing."""
    try:
        stored = read_stored(folder, method)
    except FileNotFoundError:
        return False
    wanted = len(stored.settings.get("subset", ())) or stored.settings["num_tasks"]
    tasks = tasks_of([stored])
    return len(tasks) == wanted and bool(of_these(stored.sets, tasks))


def tasks_of(runs: Sequence[Stored]) -> set[str]:
    """The tasks that all runs of a row have."""
    return common_tasks([run.rows for run in runs])


def per_image(runs: Sequence[Stored], group: str, metric: str, tasks: set[str]) -> tuple[Tensor, Tensor]:
    """Values (runs, N) of a group's rows, and persons (N,); NaN in all runs where one could not be measured.

    Raises: ValueError if the runs show different images.
    """
    values, keys = [], []
    persons = torch.zeros(0)
    for run in runs:
        rows = run.chosen(group, tasks)
        found, persons = as_table(rows, [metric])
        values.append(found[:, 0])
        keys.append([(row["task"], row["place"], row["target"]) for row in rows])
    if any(key != keys[0] for key in keys):
        raise ValueError(f"{runs[0].folder} and the other runs of its row were not measured on the same images")
    table = torch.stack(values)
    return table.masked_fill(table.isnan().any(0), float("nan")), persons


def _read_json(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.exists() else None
