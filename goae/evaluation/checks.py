"""Checks on the JSON of measured tables, which claims are made of.

A check is true, false, or undecided where a number is missing. Checks of one method against another are made on the
same images and hold if the whole 95 % interval of the paired difference lies on the claimed side of zero, and the mean
of every seed where there are several. Columns whose meter is uninformative on these images take no part.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from goae.evaluation.cells import split_column
from goae.evaluation.paper_tables import METRICS, TABLES
from goae.evaluation.stored import TOGETHER

HOLDS, FAILS, UNTESTED = "holds", "does not hold", "not testable here"
EDITS = "edits"  # beside the tables, the JSON of scripts/eval_edits.py
Tables = Mapping[int | str, Mapping[str, Any]]  # number of a table, or EDITS -> JSON


class Check(NamedTuple):
    """A statement, whether it is so (None: undecided, since a number is missing), and the numbers."""

    text: str
    holds: bool | None
    evidence: str
    counts: bool = True  # False: it takes no part, since its meter is uninformative


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, and how it is decided."""

    name: str
    text: str
    rule: str
    checks: Callable[[Tables], list[Check]]

    def decide(self, tables: Tables) -> tuple[str, list[Check]]:
        """The verdict and what it rests on."""
        found = self.checks(tables)
        verdicts = [check.holds for check in found if check.counts]
        if False in verdicts:
            return FAILS, found
        return (HOLDS if verdicts and None not in verdicts else UNTESTED), found


def better(tables: Tables, number: int, first: str, second: str, columns: Sequence[str]) -> list[Check]:
    """For each column: `first` beats `second`, the interval of the paired difference excluding zero, in every seed."""
    return [_better(tables, number, first, second, column) for column in columns]


def most(text: str, checks: Sequence[Check]) -> Check:
    """More than half of the checks are so."""
    verdicts = [check.holds for check in checks if check.counts]
    evidence = "; ".join(f"{check.evidence} ({mark(check)})" for check in checks)
    if not verdicts or None in verdicts:
        return Check(text, None, evidence)
    return Check(text, 2 * verdicts.count(True) > len(verdicts), evidence)


def _better(tables: Tables, number: int, first: str, second: str, column: str) -> Check:
    text = f"{first} is better than {second} in {column}"
    if not usable(tables, number, column):
        return uninformative(text, column)
    found = _difference(tables, number, first, second, column)
    if found is None:
        return Check(text, None, f"{column}: not measured")
    mean, gap, num = found
    interval = "no interval" if gap is None else f"95 % {gap.low:+.4f} to {gap.high:+.4f}"
    evidence = f"{column}: {mean:+.4f}, {interval}, n = {num}"
    if gap is None:
        return Check(text, None, evidence)
    gain = gap if METRICS[split_column(column)[0]].better == "higher" else gap.negated()
    evidence += f", median {gap.median:+.4f}, better on {gain.above:.0%} of the images"
    if len(gap.by_run) > 1:
        evidence += ", runs " + ", ".join(f"{value:+.4f}" for value in gap.by_run)
    evidence += _independent(tables, number, first, second, column)
    return Check(text, gain.low > 0 and min(gain.by_run) > 0, evidence)


def _independent(tables: Tables, number: int, first: str, second: str, column: str) -> str:
    """Beside identity by the network of the training loss, what another one says."""
    metric, group = split_column(column)
    found = _difference(tables, number, first, second, f"id_independent{group}") if metric == "id" else None
    mean, gap, _ = found or (0.0, None, 0)
    if gap is None:
        return ""
    known = "" if usable(tables, number, f"id_independent{group}") else ", uninformative on these images"
    return f"; by the independent network{known}: {mean:+.4f}, 95 % {gap.low:+.4f} to {gap.high:+.4f}"


class Gain(NamedTuple):
    """The interval of a paired difference, its median, the shares of images below and above 0, the mean of each run."""

    low: float
    high: float
    median: float
    below: float
    above: float
    by_run: Sequence[float]

    def negated(self) -> "Gain":
        """Second minus first."""
        by_run = [-value for value in self.by_run]
        return Gain(-self.high, -self.low, -self.median, self.above, self.below, by_run)


def _difference(
    tables: Tables, number: int, first: str, second: str, column: str
) -> tuple[float, Gain | None, int] | None:
    """first - second: its mean, its interval where there is one, and how many images, in whichever order it stands."""
    for entry in tables.get(number, {}).get("differences", ()):
        if entry["column"] == column and {entry["first"], entry["second"]} == {first, second}:
            gap = None if entry["low"] is None else Gain(**{name: entry[name] for name in Gain._fields})
            if entry["first"] == first:
                return entry["mean"], gap, entry["num"]
            return -entry["mean"], gap and gap.negated(), entry["num"]
    return None


def uninformative(text: str, column: str) -> Check:
    """A check that takes no part, since the column's meter cannot tell people apart."""
    return Check(text, None, f"{column}: its meter is uninformative on these images", counts=False)


def usable(tables: Tables, number: int, column: str) -> bool:
    """Whether the column's meter can tell people apart, as far as that was checked."""
    return column not in tables.get(number, {}).get("protocol", {}).get("uninformative", ())


def value(tables: Tables, number: int, method: str, column: str) -> float | None:
    """A measured number: on the inputs that all methods share, where some have only a subset."""
    table = tables.get(number, {})
    for row in table.get("subset_rows") or table.get("rows", ()):
        if row["method"] == method:
            found: float | None = row["values"][column]["ours"]
            return found
    return None


def timed_in(tables: Tables, method: str) -> set[str | None]:
    """The runs in which a row of Table 1 was timed; None for times that were not taken beside others."""
    rows = [row for row in tables.get(1, {}).get("rows", ()) if row["method"] == method]
    return {found.get(TOGETHER) for row in rows for found in row.get("seconds", ())}


def faster(tables: Tables, optimiser: str, factor: float) -> Check:
    """The optimiser's time is at least `factor` times ours, both measured in the same run."""
    text = f"{optimiser} takes at least {factor:g} times as long as Ours"
    theirs, ours = value(tables, 1, optimiser, "Time"), value(tables, 1, "Ours", "Time")
    if theirs is None or ours is None:
        return Check(text, None, "time: not measured")
    runs = timed_in(tables, optimiser) | timed_in(tables, "Ours")
    if len(runs) != 1 or None in runs:
        return Check(text, None, "time: not measured in the same run")
    return Check(text, theirs >= factor * ours, f"{theirs:.4g} s against {ours:.4g} s, {theirs / ours:.0f} times")


def edited(tables: Tables) -> list[Check]:
    """For each edit: its attribute changes as wanted in every view, the interval over heads excluding zero."""
    return [_edited(edit) for edit in tables.get(EDITS, {}).get("edits", {}).values()]


def _edited(edit: Mapping[str, Any]) -> Check:
    text = f"{edit['label']}, {edit['alpha']:+g} along {edit['attribute']}, changes it as wanted in every view"
    views = {yaw: (view["change"], *view["change_interval"]) for yaw, view in edit["views"].items()}
    told = "; ".join(f"{yaw}° {mean:+.2f} [{low:+.2f}, {high:+.2f}]" for yaw, (mean, low, high) in views.items())
    (low, high), lost = edit["alike_lost_interval"], edit["alike_lost"]
    evidence = (
        f"{told} standard deviations, {edit['spread']:.2f} over the views of a head; identity between its views "
        f"{edit['alike']:.3f}, as inverted {edit['alike_unedited']:.3f}, lost {lost:+.3f} [{low:+.3f}, {high:+.3f}]"
    )
    return Check(text, all(low > 0 for _, low, _ in views.values()), evidence)


def order(tables: Tables, number: int, methods: Sequence[str], column: str) -> Check:
    """Whether our means rank the methods as the paper's do, doubtful numbers of the paper left out."""
    table = TABLES[number]
    text = f"Table {number}, {column}: {len(methods)} rows in the paper's order"
    if not usable(tables, number, column):
        return uninformative(text, column)
    notes = [note for note in table.footnotes if note.suspected and any((m, column) in note.cells for m in methods)]
    if notes:
        return Check(text, None, f"{column}: a number of the paper is a misprint", counts=False)
    ours = {name: value(tables, number, name, column) for name in methods}
    known = {name: number for name, number in ours.items() if number is not None}
    if len(known) < len(methods):
        return Check(text, None, f"{column}: not measured")
    paper = sorted(methods, key=lambda name: table.value(name, column))
    ranked = sorted(methods, key=known.__getitem__)
    return Check(text, ranked == paper, f"rising: {'; '.join(f'{n} {known[n]:.4f}' for n in ranked)}")


def mark(check: Check) -> str:
    """How a check came out, in words."""
    return {True: "yes", False: "no", None: "undecided"}[check.holds] if check.counts else "takes no part"
