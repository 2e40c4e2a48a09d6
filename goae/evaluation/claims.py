"""The paper's claims and the project's goals, decided on the JSON of measured tables.

A claim is a list of checks (`goae.evaluation.checks`). It holds if all its checks do, does not hold if one fails, and
is not testable here otherwise. Nothing here was chosen by looking at our numbers.
"""

import re
from collections.abc import Mapping, Sequence

from goae.evaluation.cells import split_column
from goae.evaluation.checks import (
    Check,
    Claim,
    Tables,
    better,
    edited,
    faster,
    mark,
    most,
    order,
    uninformative,
    usable,
    value,
)
from goae.evaluation.paper_tables import METRICS, TABLES, W_VARIANTS

ENCODERS, OPTIMISERS = ("IDE-3D", "pSp-3D", "e4e-3D"), ("PTI", "Pose Opt.")
SPEEDUP = 100.0  # "two orders of magnitude"
GOAL_SPEEDUP = 500.0  # of the project, over PTI


def _nearer(tables: Tables, optimiser: str, column: str) -> Check:
    """Ours beats the optimiser, or is nearer to it than to the best encoder baseline.

    The second counts where the optimiser beats all baselines: beyond one that they beat, nearness to it is no merit.
    """
    text = f"in {column}, Ours is nearer to {optimiser} than to the best encoder baseline, or better than it"
    if not usable(tables, 1, column):
        return uninformative(text, column)
    names = ("Ours", optimiser, *ENCODERS)
    numbers = [value(tables, 1, name, column) for name in names]
    told = ", ".join(f"{n} {'–' if v is None else f'{v:.4f}'}" for n, v in zip(names, numbers, strict=True))
    known = [v for v in numbers if v is not None]
    if len(known) < len(numbers):
        return Check(text, None, f"{column}: {told}")
    sign = 1 if METRICS[split_column(column)[0]].better == "higher" else -1
    ours, other, *rivals = (sign * v for v in known)
    nearer = max(rivals) < other and abs(other - ours) < abs(ours - max(rivals))
    return Check(text, ours >= other or nearer, f"{column}: {told}")


def _reconstruction(tables: Tables) -> list[Check]:
    columns = ("MSE", "LPIPS", "ID")
    beats = [check for rival in ENCODERS for check in better(tables, 1, "Ours", rival, (*columns, "Geo"))]
    return beats + [_nearer(tables, name, column) for name in OPTIMISERS for column in columns]


def _side_faces(tables: Tables) -> list[Check]:
    checks = [c for name in OPTIMISERS for c in better(tables, 1, "Ours", name, ("LPIPS60", "ID60", "Geo60"))]
    return checks + [_loses_less(tables, name, metric) for name in OPTIMISERS for metric in ("LPIPS", "ID")]


def _loses_less(tables: Tables, optimiser: str, metric: str) -> Check:
    """From the input view to novel views of a side face, Ours loses less; different images, so without an interval."""
    text = f"from the input view to novel views at ±60°, Ours loses less {metric} than {optimiser}"
    if not (usable(tables, 1, metric) and usable(tables, 1, f"{metric}60")):
        return uninformative(text, metric)
    ends = [value(tables, 1, name, c) for name in ("Ours", optimiser) for c in (metric, f"{metric}60")]
    known = [v for v in ends if v is not None]
    if len(known) < len(ends):
        return Check(text, None, f"{metric}: not measured")
    sign = 1 if METRICS[split_column(metric)[0]].better == "higher" else -1
    ours, other = sign * (known[0] - known[1]), sign * (known[2] - known[3])
    return Check(text, ours < other, f"{metric}: Ours loses {ours:.4f}, {optimiser} {other:.4f}")


def _front_faces(tables: Tables) -> list[Check]:
    columns = ("LPIPS0", "ID0", "Geo0")
    text = (
        f"Ours is nearer to PTI than to the best encoder baseline, or better than it, in most of {', '.join(columns)}"
    )
    return [most(text, [_nearer(tables, "PTI", column) for column in columns])]


def _both_terms(tables: Tables) -> list[Check]:
    both, others = "w/ D_Wc, w/ L_BG", ("w/o D_Wc, w/o L_BG", "w/o D_Wc, w/ L_BG", "w/ D_Wc, w/o L_BG")
    return [check for other in others for check in better(tables, 2, both, other, ("Geo60", "Geo0"))]


def _alignment(tables: Tables) -> list[Check]:
    return better(tables, 3, "w/ AFA", "w/ conv", ("PSNR", "SSIM", "MSE", "LPIPS", "ID"))


def _mix(tables: Tables) -> list[Check]:
    columns = [c.name for c in TABLES[2].columns if c.name.endswith("60") and not c.name.startswith("FID")]
    return better(tables, 2, "Ours", "w/o occlusion-aware", columns)


def _cats_and_edits(tables: Tables) -> list[Check]:
    cats = Check("it transfers to cats", None, "the tables are of faces")
    return [cats, *(edited(tables) or [Check("edits are consistent", None, "scripts/eval_edits.py has not run")])]


def _speed(tables: Tables) -> list[Check]:
    return [faster(tables, name, SPEEDUP) for name in OPTIMISERS]


def _goal_encoders(tables: Tables) -> list[Check]:
    columns = [f"{metric}{group}" for group in ("", "60", "0") for metric in ("LPIPS", "ID", "Geo")]
    return [check for rival in ENCODERS for check in better(tables, 1, "Ours", rival, columns)]


def _goal_pti(tables: Tables) -> list[Check]:
    return better(tables, 1, "Ours", "PTI", ("ID60", "Geo60"))


def _goal_speed(tables: Tables) -> list[Check]:
    return [faster(tables, "PTI", GOAL_SPEEDUP)]


def _goal_order(tables: Tables) -> list[Check]:
    """The columns that the paper's text names: geometry and texture of the encoder's terms, the mix at ±60°, AFA."""
    mixed = [c.name for c in TABLES[2].columns if c.name.endswith("60")]
    checks = [order(tables, 2, W_VARIANTS, column) for column in ("Geo60", "Geo0", "LPIPS60", "LPIPS0")]
    checks += [order(tables, 2, TABLES[2].categories["F space"], column) for column in mixed]
    return checks + [order(tables, 3, tuple(TABLES[3].rows), column.name) for column in TABLES[3].columns]


PAIRED = "every paired difference lies on the claimed side of zero with its whole 95 % interval, and in every seed"
NO_FID = "FID has no number per image, and takes no part"
COMPARABLE = (
    "the mean is better than that of the optimisation method, or nearer to it than to that of the best encoder "
    "baseline while the optimisation method is better than all of these"
)
CLAIMS = (
    Claim(
        "R73",
        "Reconstruction is comparable to optimisation and better than every encoder baseline (Table 1, input view)",
        f"MSE, LPIPS, ID, Geo against each encoder baseline: {PAIRED}. Comparable in MSE, LPIPS, ID: {COMPARABLE}. "
        f"{NO_FID}",
        _reconstruction,
    ),
    Claim(
        "R74",
        "From a face at yaw ±60° optimisation degrades strongly while Ours stays stable (Table 1)",
        f"LPIPS60, ID60, Geo60 against each optimisation method: {PAIRED}. And Ours loses less LPIPS and ID from the "
        f"input view to ±60° (means over different images, no interval). {NO_FID}",
        _side_faces,
    ),
    Claim(
        "R75",
        "From a face at yaw 0° Ours is comparable to PTI in novel views (Table 1)",
        f"in more than half of LPIPS0, ID0, Geo0 {COMPARABLE}. {NO_FID}",
        _front_faces,
    ),
    Claim(
        "R76",
        "Only D_Wc and L_BG together give satisfactory geometry (Table 2)",
        f"Geo60 and Geo0 of both terms against each of the three other variants: {PAIRED}. That D_Wc alone is good in "
        "the input view, and that L_BG parts head and background, the paper shows in Fig. 7 alone; so do our figures",
        _both_terms,
    ),
    Claim(
        "R77",
        "Without alignment details are not recovered (Table 3)",
        f"PSNR, SSIM, MSE, LPIPS, ID of AFA against conv: {PAIRED}. {NO_FID}",
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
        "cats: not in Tables 1 to 3. Edits (scripts/eval_edits.py): in each of several views the edited attribute "
        "changes as wanted, the 95 % interval over heads excluding zero; identity between the views of a head is told. "
        "Scores are of the network to which directions were fitted, identity of one that is in the loss",
        _cats_and_edits,
    ),
    Claim(
        "R80",
        "Two orders of magnitude faster than optimisation (Table 1)",
        f"the median time of each optimisation method is at least {SPEEDUP:g} times that of Ours, in the same run",
        _speed,
    ),
)


GOALS = (
    Claim(
        "Goal 1",
        "Ours beats pSp-3D, e4e-3D and IDE-3D in LPIPS, identity and geometry",
        f"LPIPS, ID, Geo of the input view and of both groups of novel views: {PAIRED}",
        _goal_encoders,
    ),
    Claim("Goal 2", "Ours beats PTI in novel-view identity and geometry at ±60°", f"ID60, Geo60: {PAIRED}", _goal_pti),
    Claim(
        "Goal 3",
        f"Ours is at least {GOAL_SPEEDUP:g} times faster than PTI",
        "median times of the same run",
        _goal_speed,
    ),
    Claim(
        "Goal 4",
        "Ablation rows order as the paper's in the columns that it names",
        "means; Geo and LPIPS of the encoder's terms, all columns at ±60° of the mix, all columns of Table 3",
        _goal_order,
    ),
)


def claims_page(tables: Tables, world: str, analyses: Mapping[str, tuple[str, str]] | None = None) -> str:
    """The page in markdown. `analyses`: as `read_analyses` gives them; one of another verdict is left out.

    Raises: ValueError for an analysis of something else than a claim or goal.
    """
    decided = {claim.name: claim.decide(tables) for claim in (*CLAIMS, *GOALS)}
    unknown = sorted((analyses or {}).keys() - decided.keys())
    if unknown:
        raise ValueError(f"analyses of {', '.join(unknown)}, but the claims are {', '.join(decided)}")
    lines = [
        f"# The paper's claims, {world} world",
        "",
        f"Made by `python scripts/tables.py claims=true world={world}` from the JSON files beside it; rules are code "
        "in `goae/evaluation/claims.py`. Differences are first minus second on the same images. As in the paper, ID is "
        "measured by the network that is also in the training loss; the tables tell beside it what another one says.",
    ]
    for title, claims in (("claim", CLAIMS), ("goal of this project", GOALS)):
        lines += ["", f"| {title} | | verdict |", "| --- | --- | --- |"]
        lines += [f"| {claim.name} | {claim.text} | **{decided[claim.name][0]}** |" for claim in claims]
    for claim in (*CLAIMS, *GOALS):
        verdict, checks = decided[claim.name]
        lines += ["", f"## {claim.name}: {verdict}", "", f"{claim.text}.", "", f"Rule: {claim.rule}.", ""]
        lines += [f"- {check.text}: {mark(check)}. {check.evidence}" for check in checks]
        if analysis := (analyses or {}).get(claim.name):
            current = counted(verdict, checks)
            stale = f"claims-analysis.md is about another measurement ({analysis[0]}; now {current}) and left out here."
            lines += ["", analysis[1] if analysis[0] == current else stale]
    absent = [str(number) for number in TABLES if number not in tables]
    if absent:
        lines += ["", f"Not there when this page was made: table {', '.join(absent)} (`scripts/tables.py table=N`)."]
    return "\n".join(lines) + "\n"


def counted(verdict: str, checks: Sequence[Check]) -> str:
    """A verdict with how many of its checks came out true, which tells one measurement from another."""
    verdicts = [check.holds for check in checks if check.counts]
    return f"{verdict}, {verdicts.count(True)} of {len(verdicts)}"


def read_analyses(text: str) -> dict[str, tuple[str, str]]:
    """Name of a claim or goal -> the verdict that is analysed, as of `counted`, and what was found out about it.

    Args:
        text: markdown with headings `## NAME: VERDICT`, such as `## R76: does not hold, 4 of 6`.
    """
    parts = re.split(r"^## (.+?): (.+)$", text, flags=re.MULTILINE)[1:]
    found = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    return {name: (verdict.strip(), body.strip()) for name, verdict, body in found}
