"""The paper's claims, decided on the JSON of measured tables.

A claim is a list of checks, each true, false, or undecided where a number is missing. It holds if all its checks do,
does not hold if one fails, and is not testable here otherwise. Checks of one method against another are made on the
same images and hold if the whole 95 % interval of the paired difference lies on the claimed side of zero. Columns
whose meter is uninformative on these images take no part. Nothing here was chosen by looking at our numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from goae.evaluation.paper_tables import METRICS, TABLES
from goae.evaluation.tables import split_column

HOLDS, FAILS, UNTESTED = "holds", "does not hold", "not testable here"
ENCODERS, OPTIMISERS = ("IDE-3D", "pSp-3D", "e4e-3D"), ("PTI", "Pose Opt.")
SPEEDUP = 100.0  # "two orders of magnitude"
Tables = Mapping[int, Mapping[str, Any]]  # number of the table -> its JSON


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
    """For each column: `first` beats `second`, the interval of the paired difference excluding zero."""
    text = f"{first} is better than {second} in"
    return [_compare(tables, number, first, second, c, text, lambda low, high: low > 0) for c in columns]


def not_worse(tables: Tables, number: int, first: str, second: str, columns: Sequence[str]) -> list[Check]:
    """For each column: the interval of the paired difference does not lie wholly on the side of `second`."""
    text = f"{first} is not worse than {second} in"
    return [_compare(tables, number, first, second, c, text, lambda low, high: high >= 0) for c in columns]


def most(text: str, checks: Sequence[Check]) -> Check:
    """More than half of the checks are so."""
    verdicts = [check.holds for check in checks if check.counts]
    evidence = "; ".join(f"{check.evidence} ({_mark(check)})" for check in checks)
    if not verdicts or None in verdicts:
        return Check(text, None, evidence)
    return Check(text, 2 * verdicts.count(True) > len(verdicts), evidence)


def _compare(
    tables: Tables,
    number: int,
    first: str,
    second: str,
    column: str,
    text: str,
    rule: Callable[[float, float], bool],
) -> Check:
    """`rule` gets the ends of the interval of what `first` gains: the difference, above zero where it is better."""
    higher, text = METRICS[split_column(column)[0]][1] == "higher", f"{text} {column}"
    if not usable(tables, number, column):
        return _uninformative(text, column)
    found = _difference(tables, number, first, second, column)
    if found is None:
        return Check(text, None, f"{column}: not measured")
    mean, low, high, num = found
    evidence = (
        f"{column}: {mean:+.4f}, {'no interval' if low is None else f'95 % {low:+.4f} to {high:+.4f}'}, n = {num}"
    )
    if low is None or high is None:
        return Check(text, None, evidence)
    gain = (low, high) if higher else (-high, -low)
    return Check(text, rule(*gain), evidence)


def _difference(
    tables: Tables, number: int, first: str, second: str, column: str
) -> tuple[float, float | None, float | None, int] | None:
    """first - second with both ends of its interval, in whichever order the table has it."""
    for entry in tables.get(number, {}).get("differences", ()):
        if entry["column"] == column:
            low, high = entry["low"], entry["high"]
            if (entry["first"], entry["second"]) == (first, second):
                return entry["mean"], low, high, entry["num"]
            if (entry["first"], entry["second"]) == (second, first):
                known = low is not None
                return -entry["mean"], -high if known else None, -low if known else None, entry["num"]
    return None


def _uninformative(text: str, column: str) -> Check:
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


def machines(tables: Tables, method: str) -> set[tuple[str, ...]]:
    """What the times of a row of Table 1 were measured on: devices and threads."""
    rows = [row for row in tables.get(1, {}).get("rows", ()) if row["method"] == method]
    return {(*found["devices"], str(found["threads"])) for row in rows for found in row.get("seconds", ())}


def _nearer(tables: Tables, optimiser: str, column: str) -> Check:
    """Ours lies nearer to the optimiser than to the best encoder baseline, or beyond the optimiser."""
    text = f"in {column}, Ours is nearer to {optimiser} than to the best encoder baseline, or better than it"
    if not usable(tables, 1, column):
        return _uninformative(text, column)
    names = ("Ours", optimiser, *ENCODERS)
    numbers = [value(tables, 1, name, column) for name in names]
    told = ", ".join(f"{n} {'–' if v is None else f'{v:.4f}'}" for n, v in zip(names, numbers, strict=True))
    known = [v for v in numbers if v is not None]
    if len(known) < len(numbers):
        return Check(text, None, f"{column}: {told}")
    sign = 1 if METRICS[split_column(column)[0]][1] == "higher" else -1
    ours, other, *rivals = (sign * v for v in known)
    return Check(text, other - ours < ours - max(rivals), f"{column}: {told}")


def _reconstruction(tables: Tables) -> list[Check]:
    columns = ("mse", "lpips", "id")
    beats = [check for rival in ENCODERS for check in better(tables, 1, "Ours", rival, columns)]
    return beats + [_nearer(tables, name, column) for name in OPTIMISERS for column in columns]


def _side_faces(tables: Tables) -> list[Check]:
    checks = [c for name in OPTIMISERS for c in better(tables, 1, "Ours", name, ("lpips60", "id60", "geo60"))]
    return checks + [_loses_less(tables, name, metric) for name in OPTIMISERS for metric in ("lpips", "id")]


def _loses_less(tables: Tables, optimiser: str, metric: str) -> Check:
    """From the input view to novel views of a side face, Ours loses less; different images, so without an interval."""
    text = f"from the input view to novel views at ±60°, Ours loses less {metric} than {optimiser}"
    if not (usable(tables, 1, metric) and usable(tables, 1, f"{metric}60")):
        return _uninformative(text, metric)
    ends = [value(tables, 1, name, c) for name in ("Ours", optimiser) for c in (metric, f"{metric}60")]
    known = [v for v in ends if v is not None]
    if len(known) < len(ends):
        return Check(text, None, f"{metric}: not measured")
    sign = 1 if METRICS[metric][1] == "higher" else -1
    ours, other = sign * (known[0] - known[1]), sign * (known[2] - known[3])
    return Check(text, ours < other, f"{metric}: Ours loses {ours:.4f}, {optimiser} {other:.4f}")


def _front_faces(tables: Tables) -> list[Check]:
    checks = not_worse(tables, 1, "Ours", "PTI", ("lpips0", "id0", "geo0"))
    return [most("Ours is not worse than PTI in most of lpips0, id0, geo0", checks)]


def _both_terms(tables: Tables) -> list[Check]:
    both, others = "w/ D_Wc, w/ L_BG", ("w/o D_Wc, w/o L_BG", "w/o D_Wc, w/ L_BG", "w/ D_Wc, w/o L_BG")
    return [check for other in others for check in better(tables, 2, both, other, ("geo60", "geo0"))]


def _alignment(tables: Tables) -> list[Check]:
    return better(tables, 3, "w/ AFA", "w/ conv", ("psnr", "ssim", "mse", "lpips", "id"))


def _mix(tables: Tables) -> list[Check]:
    columns = [c.name for c in TABLES[2].columns if c.name.endswith("60") and not c.name.startswith("fid")]
    return better(tables, 2, "Ours", "w/o occlusion-aware", columns)


def _nothing(tables: Tables) -> list[Check]:
    return [Check("tables 1 to 3 hold it", None, "they have neither cats nor edits; see the figures")]


def _speed(tables: Tables) -> list[Check]:
    checks = []
    for name in OPTIMISERS:
        text = f"{name} takes at least {SPEEDUP:g} times as long as Ours"
        theirs, ours = value(tables, 1, name, "time"), value(tables, 1, "Ours", "time")
        if theirs is None or ours is None:
            checks.append(Check(text, None, "time: not measured"))
        elif machines(tables, name) != machines(tables, "Ours"):
            checks.append(Check(text, None, "time: measured on different machines"))
        else:
            told = f"{theirs:.4g} s against {ours:.4g} s, {theirs / ours:.0f} times"
            checks.append(Check(text, theirs >= SPEEDUP * ours, told))
    return checks


PAIRED = "every paired difference lies on the claimed side of zero with its whole 95 % interval"
CLAIMS = (
    Claim(
        "R73",
        "Reconstruction is comparable to optimisation and better than every encoder baseline (Table 1, input view)",
        f"mse, lpips, id. Against each encoder baseline: {PAIRED}. Comparable: the mean is nearer to that of each "
        "optimisation method than to that of the best encoder baseline, or better",
        _reconstruction,
    ),
    Claim(
        "R74",
        "From a face at yaw ±60° optimisation degrades strongly while Ours stays stable (Table 1)",
        f"lpips60, id60, geo60 against each optimisation method: {PAIRED}. And Ours loses less lpips and id from the "
        "input view to ±60° (means over different images, no interval)",
        _side_faces,
    ),
    Claim(
        "R75",
        "From a face at yaw 0° Ours is comparable to PTI in novel views (Table 1)",
        "in more than half of lpips0, id0, geo0 the interval of the paired difference is not wholly on PTI's side",
        _front_faces,
    ),
    Claim(
        "R76",
        "Only D_Wc and L_BG together give satisfactory geometry (Table 2)",
        f"geo60 and geo0 of both terms against each of the three other variants: {PAIRED}",
        _both_terms,
    ),
    Claim(
        "R77",
        "Without alignment details are not recovered (Table 3)",
        f"psnr, ssim, mse, lpips, id of AFA against conv: {PAIRED}",
        _alignment,
    ),
    Claim(
        "R78",
        "Without the mix occluded regions show artefacts in novel views (Table 2 at ±60°)",
        f"every column with a number per image at ±60°, with the mix against without: {PAIRED}. The paper's own "
        "numbers at 0° point both ways, so that they decide nothing",
        _mix,
    ),
    Claim(
        "R79",
        "The method transfers to cats and supports multi-view consistent edits (Fig. 10, 16 to 19)",
        "not in Tables 1 to 3",
        _nothing,
    ),
    Claim(
        "R80",
        "Two orders of magnitude faster than optimisation (Table 1)",
        f"the median time of each optimisation method is at least {SPEEDUP:g} times that of Ours, on the same machine",
        _speed,
    ),
)


def claims_page(tables: Tables, world: str) -> str:
    """The page in markdown."""
    verdicts = {claim.name: claim.decide(tables) for claim in CLAIMS}
    lines = [
        f"# The paper's claims, {world} world",
        "",
        "Made by `python scripts/tables.py claims=true` from the JSON of the tables beside it; rules are code in "
        "`goae/evaluation/claims.py`. Differences are first minus second on the same images.",
        "",
        "| claim | | verdict |",
        "| --- | --- | --- |",
        *[f"| {claim.name} | {claim.text} | **{verdicts[claim.name][0]}** |" for claim in CLAIMS],
    ]
    for claim in CLAIMS:
        verdict, checks = verdicts[claim.name]
        lines += ["", f"## {claim.name}: {verdict}", "", f"{claim.text}.", "", f"Rule: {claim.rule}.", ""]
        lines += [f"- {check.text}: {_mark(check)}. {check.evidence}" for check in checks]
    absent = [str(number) for number in TABLES if number not in tables]
    if absent:
        lines += ["", f"Not there when this page was made: table {', '.join(absent)} (`scripts/tables.py table=N`)."]
    return "\n".join(lines) + "\n"


def _mark(check: Check) -> str:
    return {True: "yes", False: "no", None: "undecided"}[check.holds] if check.counts else "takes no part"
