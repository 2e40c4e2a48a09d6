"""From stored results to the paper's tables. A row is a method of one run, or of several whose numbers are averaged."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from goae.evaluation.cells import (
    Measured,
    cell,
    differences,
    extra_columns,
    protocol_of,
    row_values,
    split_column,
)
from goae.evaluation.measuring import METRICS
from goae.evaluation.paper_tables import INPUT_VIEW, TABLE_2, W_VARIANTS, PaperTable
from goae.evaluation.results import completed
from goae.evaluation.stored import Stored, tasks_of

SHARED = ("generator", "images", "num_tasks", "resolution", "metric_resolution", "metrics", "yaws", "inputs")


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


def protocols_of(table: PaperTable) -> list[str]:
    """The protocols that a table's columns need."""
    return list(dict.fromkeys("input_view" if c.group == INPUT_VIEW else "novel_view" for c in table.columns))


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
    shared = {p: set.intersection(*(t[p] for t in own.values())) for p in protocols_of(table)} if own else {}
    entries = []
    for name, measured in rows.items():
        entry = row_entry(table, name, measured, own.get(name, {}), resamples=resamples)
        more = facts_of_row(measured) if measured else {"missing": missing[name]}
        entries.append(entry | {"status": "measured" if measured else "not run"} | more)
    on_subset = [
        row_entry(table, name, measured, shared, resamples=resamples)
        for name, measured in present.items()
        if any(tasks != shared for tasks in own.values())
    ]
    return {
        "table": table.number,
        "caption": table.caption,
        "protocol": dict(protocol) | facts(table, present),
        "rows": entries,
        "subset_rows": on_subset,
        "differences": differences(table, rows, resamples=resamples),
    }


def row_entry(
    table: PaperTable, name: str, measured: Measured, tasks: Mapping[str, set[str]], *, resamples: int
) -> dict[str, Any]:
    """A row on some tasks of each protocol: the paper's columns, and those that the paper has not."""
    extra = {
        column: cell(measured[protocol_of(column)], column, tasks[protocol_of(column)], resamples=resamples)
        for column in (extra_columns(table) if measured else ())
    }
    return {
        "method": name,
        "category": table.category(name),
        "num_inputs": {p: len(t) for p, t in tasks.items()},
        "values": row_values(table, name, measured, tasks, resamples=resamples),
        "extra": {column: value for column, value in extra.items() if value},
    }


def facts_of_row(measured: Measured) -> dict[str, Any]:
    """What a measured row has besides: its runs, times, and what measuring took."""
    return {
        "runs": sorted({run.folder.parent.name for runs in measured.values() for run in runs}),
        "seconds": [run.seconds for run in measured.get("input_view", ()) if run.seconds],
        "cost": {p: [run.cost for run in runs if run.cost] for p, runs in measured.items()},
    }


def facts(table: PaperTable, rows: Mapping[str, Measured]) -> dict[str, Any]:
    """Per protocol what all results share, the devices they were made on, and the counts of each group of rows.

    Raises: ValueError if results do not share it.
    """
    found: dict[str, Any] = {}
    for protocol in protocols_of(table) if rows else []:
        named = {name: measured[protocol] for name, measured in rows.items()}
        runs = [run for of_row in named.values() for run in of_row]
        check_shared(runs)
        widest = max(runs, key=lambda run: len(run.rows))
        groups = {
            group or "input": counts_of(widest, named, group)
            for group in dict.fromkeys(r["group"] for r in widest.rows)
        }
        devices = {"devices": sorted({str(run.settings.get("device")) for run in runs})}
        found[protocol] = {key: runs[0].settings.get(key) for key in SHARED} | devices | {"groups": groups}
    return found


def check_shared(runs: Sequence[Stored]) -> None:
    """Raises: ValueError unless all runs were measured on the same images with the same metrics."""
    for run in runs[1:]:
        ours, first = (completed(which.settings, METRICS) for which in (run, runs[0]))
        differ = [key for key in SHARED if ours.get(key) != first.get(key)]
        if differ:
            raise ValueError(
                f"{run.folder} ({run.method}) and {runs[0].folder} ({runs[0].method}) differ in "
                f"{', '.join(differ)}, so that their numbers do not compare; measure both with the same settings"
            )


def counts_of(widest: Stored, named: Mapping[str, Sequence[Stored]], group: str) -> dict[str, Any]:
    """What a group of rows is made of in the method that has most of them, and the failures of those that have any."""
    failed = {
        name: sum(bool(row["failed"]) for run in runs for row in run.rows if row["group"] == group)
        for name, runs in named.items()
    }
    members = [row for row in widest.rows if row["group"] == group]
    return {
        "num_inputs": len({row["task"] for row in members}),
        "num_pairs": len(members),
        "num_persons": len({row["person"] for row in members}),
        "failed": {name: num for name, num in failed.items() if num},
    }


def meters_of(table: PaperTable, metrics: Mapping[str, Any]) -> dict[str, str]:
    """column -> the meter of goae/evaluation/meters.py that it is measured with, extra columns included."""
    identities = {"mini": "identity", "face_resnet": "identity_independent"}
    sets = {"mini": "fd_mini", "vgg": "fd_vgg"}
    features, beside = (sets.get(metrics[key]) for key in ("features", "features_beside"))
    known = {
        "lpips": {"alex": "lpips"}.get(metrics["lpips"]),
        "id": identities.get(metrics["identity"]),
        "id_independent": identities.get(metrics["identity_independent"]),
        **{"fid": features, "kid": features, "fid_beside": beside, "kid_beside": beside},
    }
    columns = [*(c.name for c in table.columns), *extra_columns(table)]
    found = {column: known.get(split_column(column)[0]) for column in columns}
    return {column: meter for column, meter in found.items() if meter is not None}
