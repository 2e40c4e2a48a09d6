"""From stored results to the paper's tables: cells with intervals, and differences of methods on the same images.

A row of a table is a method of one run, or of several whose numbers are averaged. Cells hold means over images; an
interval is that of the mean over persons, of images averaged over the runs first, and the spread is the standard
deviation over runs. Fréchet distances and times have no interval.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from goae.evaluation.distribution import compare_sets
from goae.evaluation.intervals import Estimate, mean_intervals
from goae.evaluation.paper_tables import INPUT_VIEW, METRICS, TABLE_2, W_VARIANTS, PaperTable
from goae.evaluation.protocols import as_table, common_tasks
from goae.evaluation.results import Results, Row

EXTRA = ("id_independent", "depth", "ms_ssim", "kid")  # measured beside the paper's columns
SHARED = ("generator", "images_sha256", "num_tasks", "resolution", "metric_resolution", "metrics", "yaws", "inputs")
Numbers = dict[str, Any]


class Source(NamedTuple):
    """Where a row comes from: a key of the configuration's `rows`, which names runs, and a method under test."""

    runs: str
    method: str


SOURCES: dict[int, dict[str, Source]] = {
    1: {
        "PTI": Source("optimization", "pti"),
        "Pose Opt.": Source("optimization", "pose_opt"),
        "IDE-3D": Source("ide3d", "ide3d"),
        "pSp-3D": Source("psp", "psp"),
        "e4e-3D": Source("e4e", "e4e"),
        "Ours-w+": Source("full", "w_plus"),
        "Ours": Source("full", "full"),
    },
    2: dict(
        zip(
            [*W_VARIANTS, *TABLE_2.categories["F space"]],
            [
                Source("no_adv_no_bg", "w_plus"),
                Source("no_adv", "w_plus"),
                Source("no_bg", "w_plus"),
                Source("adv_bg", "w_plus"),
                Source("no_mix", "no_mix"),
                Source("afa", "full"),
            ],
            strict=True,
        )
    ),
    3: {"w/ conv": Source("conv", "full"), "w/ AFA": Source("afa", "full")},
}


@dataclass(frozen=True)
class Stored:
    """What a folder of a protocol's results holds of a method."""

    folder: Path
    method: str
    rows: list[Row]
    features: Tensor  # (N, D), of what the rows show
    real: dict[str, Tensor]  # (D,) of each target, by name
    settings: dict[str, Any]
    seconds: dict[str, Any] | None

    def chosen(self, group: str, tasks: set[str]) -> list[int]:
        """Places of a group's rows of these tasks."""
        return [i for i, row in enumerate(self.rows) if row["group"] == group and row["task"] in tasks]


def read_stored(folder: Path, method: str) -> Stored:
    """Read `<method>.*` and `images.*`. Raises: FileNotFoundError if a file is missing."""
    results = Results.open(folder, method)
    rows, features = results.read()
    targets, target_features = Results.open(folder, "images").read()
    real = {row["target"]: found for row, found in zip(targets, target_features, strict=True)}
    time = folder / f"{method}.time.json"
    return Stored(
        folder,
        method,
        rows,
        features,
        real,
        results.settings,
        json.loads(time.read_text()) if time.exists() else None,
    )


def is_complete(folder: Path, method: str) -> bool:
    """Whether every task of a method was measured there, so that its weights are not needed again."""
    try:
        stored = read_stored(folder, method)
    except FileNotFoundError:
        return False
    wanted = len(stored.settings.get("subset", ())) or stored.settings["num_tasks"]
    timed = stored.seconds is not None or stored.settings["protocol"] != "input_view"
    return timed and len(common_tasks([stored.rows])) == wanted


Measured = Mapping[str, Sequence[Stored]]  # protocol -> the runs that a row is made of


def split_column(name: str) -> tuple[str, str]:
    """A column's metric, and its group of rows: "" for the input view."""
    found = re.fullmatch(r"([a-z_]+?)(\d*)", name)
    assert found is not None
    return found[1], found[2]


def protocols_of(table: PaperTable) -> list[str]:
    """The protocols that a table's columns need."""
    return list(dict.fromkeys("input_view" if c.group == INPUT_VIEW else "novel_view" for c in table.columns))


def protocol_of(column: str) -> str:
    """The protocol that a column comes from."""
    return "novel_view" if split_column(column)[1] else "input_view"


def tasks_of(runs: Sequence[Stored]) -> set[str]:
    """The tasks that all runs of a row have."""
    return common_tasks([run.rows for run in runs])


def per_image(runs: Sequence[Stored], group: str, metric: str, tasks: set[str]) -> tuple[Tensor, Tensor]:
    """Values (runs, N) of a group's rows, and persons (N,). Raises: ValueError if the runs show different images."""
    values, keys = [], []
    persons = torch.zeros(0)
    for run in runs:
        rows = [run.rows[i] for i in run.chosen(group, tasks)]
        found, persons = as_table(rows, [metric])
        values.append(found[:, 0])
        keys.append([(row["task"], row["place"], row["target"]) for row in rows])
    if any(key != keys[0] for key in keys):
        raise ValueError(f"{runs[0].folder} and the other runs of its row were not measured on the same images")
    return torch.stack(values), persons


def cell(runs: Sequence[Stored], column: str, tasks: set[str], *, resamples: int) -> Numbers | None:
    """A measured cell: `ours`, ends of its interval, `spread` over several runs, `num` images; None: not measured."""
    metric, group = split_column(column)
    low = high = None
    num = 0
    if metric == "time":
        if any(run.seconds is None for run in runs):
            return None
        values = [run.seconds["time"] for run in runs if run.seconds is not None]
        num = min(run.seconds["timing_images"] for run in runs if run.seconds is not None)
    elif metric in ("fid", "kid"):
        sets = [image_sets(run, group, tasks) for run in runs]
        if not all(sets):
            return None
        values, num = [float(found[metric]) for found in sets], min(int(found["num_shown"]) for found in sets)
    else:
        if any(metric not in row for run in runs for row in run.rows[:1]):
            return None
        table, persons = per_image(runs, group, metric, tasks)
        estimate = mean_intervals(table.mean(0)[:, None], persons, num=resamples)[0] if table.shape[1] else None
        if estimate is None:
            return None
        values = [float(row[~row.isnan()].mean()) for row in table]
        num = int((~table.mean(0).isnan()).sum())
        low, high = _ends(estimate)
    mean = float(torch.tensor(values, dtype=torch.float64).mean())
    spread = float(torch.tensor(values, dtype=torch.float64).std()) if len(values) > 1 else None
    return {"ours": mean, "low": low, "high": high, "spread": spread, "num": num}


def image_sets(run: Stored, group: str, tasks: set[str]) -> dict[str, Any]:
    """Distances between what was shown and its targets, with the counts of both sides; empty for fewer than two."""
    places = run.chosen(group, tasks)
    shown = [i for i in places if "mse" not in run.rows[i]["failed"].split()]  # what is not finite has no features
    if min(len(shown), len(places)) < 2:
        return {}
    return compare_sets(torch.stack([run.real[run.rows[i]["target"]] for i in places]), run.features[shown])


def row_values(
    table: PaperTable, name: str, measured: Measured, tasks: Mapping[str, set[str]], *, resamples: int
) -> dict[str, Numbers]:
    """column -> its cell with the paper's printed number beside it."""
    values = {}
    for column in table.columns:
        protocol = protocol_of(column.name)
        found = cell(measured[protocol], column.name, tasks[protocol], resamples=resamples) if measured else None
        empty = {"ours": None, "low": None, "high": None, "spread": None, "num": 0}
        values[column.name] = (found or empty) | {"paper": table.printed(name, column.name)}
    return values


def extra_columns(table: PaperTable) -> list[str]:
    """Columns that are measured and that the paper does not have."""
    suffixes = dict.fromkeys(split_column(c.name)[1] for c in table.columns)
    return [f"{metric}{suffix}" for suffix in suffixes for metric in EXTRA]


def differences(
    table: PaperTable, rows: Mapping[str, Measured], *, resamples: int
) -> list[dict[str, str | float | int | None]]:
    """first - second of every two rows in every column that has a number per image, on the images that both have."""
    found: list[dict[str, str | float | int | None]] = []
    names = [name for name, measured in rows.items() if measured]
    columns = [c.name for c in table.columns if split_column(c.name)[0] not in ("fid", "time")]
    for i, second in enumerate(names):
        for first in names[i + 1 :]:
            for column in columns:
                (metric, group), protocol = split_column(column), protocol_of(column)
                pair = rows[first][protocol], rows[second][protocol]
                if any(metric not in run.rows[0] for runs in pair for run in runs):
                    continue
                tasks = tasks_of(pair[0]) & tasks_of(pair[1])
                (a, persons), (b, _) = (per_image(runs, group, metric, tasks) for runs in pair)
                gap = a.mean(0) - b.mean(0)
                estimate = mean_intervals(gap[:, None], persons, num=resamples)[0] if len(gap) else None
                if estimate is not None:
                    low, high = _ends(estimate)
                    known = int((~gap.isnan()).sum())
                    entry = {"mean": estimate.value, "low": low, "high": high, "num": known}
                    found.append({"first": first, "second": second, "column": column} | entry)
    return found


def table_json(
    table: PaperTable,
    rows: Mapping[str, Measured],
    missing: Mapping[str, str],
    protocol: Mapping[str, Any],
    *,
    resamples: int,
) -> dict[str, Any]:
    """Everything that the files of a table show.

    Args:
        rows: method -> its results, in the table's order; empty for one that was not run.
        missing: method -> what to do about it.
        protocol: how numbers were made; the facts that are found in the results are added to it.
    Raises: ValueError if results were not made on the same images with the same metrics.
    """
    present = {name: measured for name, measured in rows.items() if measured}
    own = {n: {p: tasks_of(runs) for p, runs in m.items()} for n, m in present.items()}
    found = []
    for name, measured in rows.items():
        tasks = own.get(name, {})
        entry: dict[str, Any] = {
            "method": name,
            "category": table.category(name),
            "status": "measured" if measured else "not run",
            "values": row_values(table, name, measured, tasks, resamples=resamples),
        }
        if measured:
            entry["runs"] = sorted({run.folder.parent.name for runs in measured.values() for run in runs})
            entry["num_inputs"] = {p: len(t) for p, t in tasks.items()}
            entry["extra"] = {
                column: value
                for column in extra_columns(table)
                if (
                    value := cell(
                        measured[protocol_of(column)], column, tasks[protocol_of(column)], resamples=resamples
                    )
                )
            }
            entry["seconds"] = [run.seconds for run in measured.get("input_view", ()) if run.seconds]
        else:
            entry["missing"] = missing[name]
        found.append(entry)
    whole = {"table": table.number, "caption": table.caption}
    whole |= {"protocol": dict(protocol) | facts(table, present), "rows": found}
    shared = {p: set.intersection(*(t[p] for t in own.values())) for p in protocols_of(table)} if own else {}
    whole["subset_rows"] = []
    if any(tasks != shared for tasks in own.values()):
        whole["subset_rows"] = [
            {
                "method": name,
                "category": table.category(name),
                "num_inputs": {p: len(t) for p, t in shared.items()},
                "values": row_values(table, name, measured, shared, resamples=resamples),
            }
            for name, measured in present.items()
        ]
    whole["differences"] = differences(table, rows, resamples=resamples)
    return whole


def facts(table: PaperTable, rows: Mapping[str, Measured]) -> dict[str, Any]:
    """Per protocol what all results share, and the counts of both sides of each group, largest over methods."""
    found: dict[str, Any] = {}
    for protocol in protocols_of(table) if rows else []:
        runs = [run for measured in rows.values() for run in measured[protocol]]
        for run in runs[1:]:
            differ = [key for key in SHARED if run.settings.get(key) != runs[0].settings.get(key)]
            if differ:
                raise ValueError(
                    f"{run.folder} ({run.method}) and {runs[0].folder} ({runs[0].method}) differ in "
                    f"{', '.join(differ)}, so that their numbers do not compare; measure both with the same settings"
                )
        widest = max(runs, key=lambda run: len(run.rows))
        counts = {}
        for group in dict.fromkeys(row["group"] for row in widest.rows):
            places = widest.chosen(group, tasks_of([widest]))
            sets = image_sets(widest, group, tasks_of([widest]))
            members = [widest.rows[i] for i in places]
            counts[group or "input"] = {
                "num_inputs": len({row["task"] for row in members}),
                "num_pairs": len(members),
                "num_persons": len({row["person"] for row in members}),
                "failed": sum(bool(row["failed"]) for run in runs for row in run.rows if row["group"] == group),
            } | {key: sets[key] for key in ("num_real", "num_shown", "num_features", "note") if key in sets}
        shared = {key: runs[0].settings.get(key) for key in (*SHARED, "device")}
        found[protocol] = shared | {"groups": counts}
    return found


def meters_of(table: PaperTable, metrics: Mapping[str, Any]) -> dict[str, str]:
    """column -> the meter of goae/evaluation/meters.py that it is measured with, extra columns included."""
    identities = {"mini": "identity", "face_resnet": "identity_independent"}
    known = {
        "lpips": {"alex": "lpips"}.get(metrics["lpips"]),
        "id": identities.get(metrics["identity"]),
        "id_independent": identities.get(metrics["identity_independent"]),
        "fid": {"mini": "fd_mini", "vgg": "fd_vgg"}.get(metrics["features"]),
    }
    known["kid"] = known["fid"]
    columns = [*(c.name for c in table.columns), *extra_columns(table)]
    found = {column: known.get(split_column(column)[0]) for column in columns}
    return {column: meter for column, meter in found.items() if meter is not None}


def column_title(column: str) -> str:
    """A heading for a column that the paper has not."""
    titles = {"id_independent": "ID (independent)", "depth": "depth error", "ms_ssim": "MS-SSIM", "kid": "KID"}
    metric, group = split_column(column)
    name = titles.get(metric) or METRICS[metric][0]
    return f"{name}, yaw {'±' if group != '0' else ''}{group}°" if group else f"{name}, input view"


def _ends(estimate: Estimate) -> tuple[float | None, float | None]:
    low, high = estimate.low, estimate.high
    return (None, None) if low != low or high != high else (low, high)
