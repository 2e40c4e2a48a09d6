"""A table's cells from stored results, and the differences of its rows on the same images.

Cells hold means over images; an interval is that of the mean over persons, of images averaged over the runs first, and
the spread is the standard deviation over runs. Distances between sets and times have no interval.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from goae.evaluation.intervals import Estimate, mean_intervals
from goae.evaluation.paper_tables import METRICS, PaperTable
from goae.evaluation.stored import Stored, per_image, tasks_of

SETS = ("fid", "kid", "fid_beside", "kid_beside")  # of whole sets of images
COUNTS = ("num_real", "num_distinct", "num_shown", "num_features", "note")  # what those depend on
TITLES = {"id_independent": "ID (independent)", "depth": "depth error", "ms_ssim": "MS-SSIM", "kid": "KID"}
BESIDE = {"fid_beside": "FID", "kid_beside": "KID"}
EXTRA = (*TITLES, *BESIDE)  # measured beside the paper's columns
Numbers = dict[str, Any]
Measured = Mapping[str, Sequence[Stored]]  # protocol -> the runs that a row is made of


def split_column(name: str) -> tuple[str, str]:
    """A column's metric, and its group of rows: "" for the input view."""
    found = re.fullmatch(r"([A-Za-z_]+?)(\d*)", name)
    assert found is not None
    return found[1].lower(), found[2]


def protocol_of(column: str) -> str:
    """The protocol that a column comes from."""
    return "novel_view" if split_column(column)[1] else "input_view"


def extra_columns(table: PaperTable) -> list[str]:
    """Columns that are measured and that the paper does not have."""
    suffixes = dict.fromkeys(split_column(c.name)[1] for c in table.columns)
    return [f"{metric}{suffix}" for suffix in suffixes for metric in EXTRA]


def column_title(column: str, features: Mapping[str, str]) -> str:
    """A heading for a column that the paper has not. `features`: the networks behind distances between sets."""
    metric, group = split_column(column)
    if metric in BESIDE:
        name = f"{BESIDE[metric]} ({features['features_beside']})"
    else:
        name = TITLES.get(metric) or METRICS[metric].heading
    return f"{name}, yaw {'±' if group != '0' else ''}{group}°" if group else f"{name}, input view"


def cell(runs: Sequence[Stored], column: str, tasks: set[str], *, resamples: int) -> Numbers | None:
    """A measured cell; None if it was not.

    Returns: `ours`, `low` and `high` of its interval, `spread` over several runs, `num` images; for sets `COUNTS`.
    """
    metric, group = split_column(column)
    if metric == "time":
        return _time_cell(runs)
    if metric in SETS:
        return _sets_cell([run.distances(group, tasks) for run in runs], metric)
    if any(metric not in row for run in runs for row in run.rows[:1]):
        return None
    table, persons = per_image(runs, group, metric, tasks)
    known = ~table[0].isnan()
    if not known.any():
        return None
    estimate = mean_intervals(table.mean(0)[:, None], persons, num=resamples)[0]
    assert estimate is not None  # as there is a number
    low, high = _ends(estimate)
    return _numbers(table[:, known].mean(1).tolist(), int(known.sum())) | {"low": low, "high": high}


def _time_cell(runs: Sequence[Stored]) -> Numbers | None:
    timed = [run.seconds for run in runs if run.seconds is not None and "time" in run.seconds]
    if len(timed) < len(runs):
        return None
    return _numbers([found["time"] for found in timed], min(found["timed_images"] for found in timed))


def _sets_cell(sets: Sequence[Mapping[str, Any]], metric: str) -> Numbers | None:
    if any(metric not in found for found in sets):
        return None
    counts = {key: sets[0][key] for key in COUNTS if key in sets[0]} if metric not in BESIDE else {}
    return _numbers([found[metric] for found in sets], min(found["num_shown"] for found in sets)) | counts


def _numbers(values: Sequence[float], num: int) -> Numbers:
    found = torch.tensor(values, dtype=torch.float64)
    spread = float(found.std()) if len(values) > 1 else None
    return {"ours": float(found.mean()), "low": None, "high": None, "spread": spread, "num": num}


def row_values(
    table: PaperTable, name: str, measured: Measured, tasks: Mapping[str, set[str]], *, resamples: int
) -> dict[str, Numbers]:
    """column -> its cell with the paper's number beside it, as a number and with all printed digits."""
    values = {}
    for column in table.columns:
        protocol = protocol_of(column.name)
        found = cell(measured[protocol], column.name, tasks[protocol], resamples=resamples) if measured else None
        empty = {"ours": None, "low": None, "high": None, "spread": None, "num": 0}
        paper = {"paper": table.value(name, column.name), "paper_printed": table.printed(name, column.name)}
        values[column.name] = (found or empty) | paper
    return values


def differences(table: PaperTable, rows: Mapping[str, Measured], *, resamples: int) -> list[Numbers]:
    """first - second of every two rows in every column that has a number per image, on the images that both have."""
    names = [name for name, measured in rows.items() if measured]
    everything = [*(c.name for c in table.columns), *extra_columns(table)]
    columns = [name for name in everything if split_column(name)[0] not in (*SETS, "time")]
    found = []
    for i, second in enumerate(names):
        for first in names[i + 1 :]:
            for column in columns:
                pair = [rows[name][protocol_of(column)] for name in (first, second)]
                gap = _difference(pair, column, resamples=resamples)
                if gap:
                    found.append({"first": first, "second": second, "column": column} | gap)
    return found


def _difference(pair: Sequence[Sequence[Stored]], column: str, *, resamples: int) -> Numbers:
    """`mean`, `low`, `high`, `num`, `median`; the shares of images `below` and `above` 0; the mean of every two runs.

    `by_run` is of one seed each where both rows have as many.
    """
    metric, group = split_column(column)
    if any(metric not in run.rows[0] for runs in pair for run in runs):
        return {}
    tasks = tasks_of(pair[0]) & tasks_of(pair[1])
    (a, persons), (b, _) = (per_image(runs, group, metric, tasks) for runs in pair)
    gap = a.mean(0) - b.mean(0)
    known = ~gap.isnan()
    if not known.any():
        return {}
    estimate = mean_intervals(gap[:, None], persons, num=resamples)[0]
    assert estimate is not None  # as there is a number
    low, high = _ends(estimate)
    by_run = [float((x - y)[known].mean()) for x, y in _pairs(a, b)]
    images = gap[known].double()
    shares = {"below": float((images < 0).double().mean()), "above": float((images > 0).double().mean())}
    middle = {"median": float(images.quantile(0.5)), "num": int(known.sum())}
    return {"mean": estimate.value, "low": low, "high": high} | middle | shares | {"by_run": by_run}


def _pairs(a: Tensor, b: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(a, b, strict=True)) if len(a) == len(b) else list(product(a, b))


def _ends(estimate: Estimate) -> tuple[float | None, float | None]:
    low, high = estimate.low, estimate.high
    return (None, None) if low != low or high != high else (low, high)
