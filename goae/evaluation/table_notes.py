"""What is told below a table: how its numbers were made, what each method is, and where its rows come from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from goae.evaluation.cells import COUNTS, split_column
from goae.evaluation.paper_tables import UNINFORMATIVE, PaperTable
from goae.evaluation.stored import TOGETHER
from goae.evaluation.tables import protocols_of

Whole = Mapping[str, Any]
GROUPS = {"input": "input view"}
RIVAL = "trained by this project on the generator, images and loss weights of the first stage of Ours"
METHODS = {  # table -> method -> what has to be known to read its row; all else: docs/baselines.md, docs/rivals.md
    1: {
        "PTI": "gets the camera of the input, as encoders do; a pivot in W, then the generator's weights, no noise on "
        "the code while searching; like Pose Opt. it minimises, besides L2, the very LPIPS that is measured",
        "Pose Opt.": "gets no camera: it starts from the code of Ours-w+ and a regressor's camera, and novel views are "
        "placed relative to the camera that it finds",
        "IDE-3D": f"its encoder alone, {RIVAL}; the paper's row is that of IDE-3D's own generator and weights",
        "pSp-3D": RIVAL,
        "e4e-3D": f"{RIVAL}, with its own latent discriminator",
        "Ours-w+": "the first stage of Ours",
    },
    2: {"w/o occlusion-aware": "alignment at every point, without the mix; its runs are named below"},
    3: {"w/ conv": "a plain CNN in place of the attention, with more parameters than AFA (docs/paper-notes.md)"},
}


DATA = {  # world -> what measured rows were measured on
    "mini": "Measured rows are of procedural heads (the mini world), the paper's of photographs: compare rows of one "
    "source with each other, not the two rows of a method",
    "full": "Measured rows are of draws from the paper's data sets; which images the paper drew is not published",
}


def data_note(whole: Whole) -> str:
    """What measured numbers are of, and what its FID is where that is not of Inception's features."""
    how = whole["protocol"]
    protocols = (found for found in how.values() if isinstance(found, Mapping) and "metrics" in found)
    features = next((found["metrics"]["features"] for found in protocols), "inception")
    fid = f" FID of measured rows is the Fréchet distance of {features} features, not of Inception's."
    return f"{DATA[how['world']]}.{'' if features == 'inception' else fid}"


def protocol_notes(printed: PaperTable, whole: Whole) -> list[str]:
    """How the measured numbers were made."""
    how, notes = whole["protocol"], []
    for protocol in protocols_of(printed):
        if protocol not in how:
            continue
        found = how[protocol]
        for group, counts in found["groups"].items():
            notes.append(_counts(GROUPS.get(group, f"novel views, input yaw {group}°"), counts))
    notes += set_notes(printed, whole)
    first = next((how[p] for p in protocols_of(printed) if p in how), None)
    if first is not None:
        metrics = first["metrics"]
        notes.append(
            f"World {how['world']}: images {first['resolution']}² in [-1, 1], metrics at {first['metric_resolution']}²;"
            f" SSIM with a Gaussian window of 11 and data range 2; LPIPS 0.1 ({metrics['lpips']}); features of FID and "
            f"KID: {metrics['features']}; ID: {metrics['identity']}, independent of all losses: "
            f"{metrics['identity_independent']}; pseudo-depth of Geo. Err.: {metrics['geometry']}; what could not "
            "be measured by a run is left out of the means of all runs of its row, and counted above. Images are the "
            "data set's own crops, not cropped further but by identity networks whose own crop is part of them. Which "
            "images, and the numbers of each: measured/RUN/PROTOCOL/METHOD.csv."
        )
        notes.append(
            f"In brackets: 95 % bootstrap intervals over persons ({how['resamples']} resamples)"
            + ("; ± is the standard deviation over runs, whose numbers are averaged" if _several(whole) else "")
            + ". Distances between sets and times have none."
        )
        notes.append(
            "FID and KID compare inversions with the very images that they are of, not with an independent draw, so "
            "that both are smaller than between different images, and KID may be negative. KID and distances of other "
            "features have the same images as FID."
        )
    notes += [f"{UNINFORMATIVE} {note}" if how["uninformative"] else note for note in how["meter_notes"]]
    if timed_apart(whole):
        notes.append(f"{UNINFORMATIVE} times were not all taken in one pass, so that rows do not compare.")
    notes += [_time(row) for row in whole["rows"] if _is_timed(row)]
    notes += method_notes(printed, whole)
    notes += cost_notes(whole)
    counts = {row["method"]: row["num_inputs"] for row in whole["rows"] if row["num_inputs"]}
    widest = {p: max(c[p] for c in counts.values()) for p in protocols_of(printed)} if counts else {}
    for name, inputs in counts.items():
        if inputs != widest:
            told = " and ".join(f"{n} of {widest[p]} inputs ({p.replace('_', ' ')})" for p, n in inputs.items())
            notes.append(f"{name} is measured on {told}, drawn by a seed; all methods on these inputs: below.")
    return notes


def timed_apart(whole: Whole) -> bool:
    """Whether times of rows come from several passes, between which machine or load may have changed."""
    timed = [row for row in whole["rows"] if _is_timed(row)]
    passes = [facts.get(TOGETHER) for row in timed for facts in row["seconds"]]
    return len(set(passes)) > 1 or (None in passes and len(passes) > 1)


def set_notes(printed: PaperTable, whole: Whole) -> list[str]:
    """What distances between sets are measured on, once for each set of counts: columns and rows that have them."""
    found: dict[tuple[Any, ...], list[str]] = {}
    columns = [c.name for c in printed.columns if split_column(c.name)[0] == "fid"]
    for place, rows in (("", whole["rows"]), (" below", whole["subset_rows"])):
        for column in columns:
            for row in rows:
                cell = row["values"][column]
                if cell["ours"] is not None:
                    key = (place, column, *(cell.get(name) for name in COUNTS))
                    found.setdefault(key, []).append(row["method"])
    notes = []
    for (place, column, real, distinct, shown, features, note), methods in found.items():
        text = f"{column}{place}: {shown} shown against {real} real images ({distinct} distinct), {features} features"
        notes.append(f"{text}; {', '.join(methods)}" + (f"; {note}." if note else "."))
    return notes


def cost_notes(whole: Whole) -> list[str]:
    """How long measuring took, and on what."""
    costs = [cost for row in whole["rows"] for found in row.get("cost", {}).values() for cost in found]
    if not costs:
        return []
    hours = sum(cost["seconds"] for cost in costs) / 3600
    machines = sorted({f"{', '.join(cost['devices'])}, {cost['threads']} threads" for cost in costs})
    return [f"Measuring took {hours:.1f} hours on {'; '.join(machines)}; training is not counted."]


def missing_notes(whole: Whole) -> list[str]:
    """What has to be done for each row that was not run."""
    return [f"{row['method']} was not run: {row['missing']}." for row in whole["rows"] if row["status"] == "not run"]


def method_notes(printed: PaperTable, whole: Whole) -> list[str]:
    """What each measured method is, and how long it was trained."""
    notes = []
    for row in whole["rows"]:
        parts = [METHODS[printed.number][row["method"]]] if row["method"] in METHODS[printed.number] else []
        if stages := row.get("training"):
            parts.append("trained for " + " + ".join(trained_note(stage, facts) for stage, facts in stages.items()))
        if parts and row["status"] == "measured":
            notes.append(f"{row['method']}: {'; '.join(parts)}.")
    return notes


def trained_note(stage: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """The steps of a stage, how much validation still moved in each of its runs, and what was changed or left out."""
    steps = " and ".join(f"{number:,}" for number in sorted({facts["steps"] for facts in runs}))
    moved = [f"{facts['val_mse_change']:+.1%} since step {facts['since']:,}" for facts in runs if "since" in facts]
    told = f", validation MSE {'; '.join(moved)}" if moved else ""
    changes = [_change(change) for facts in runs for change in facts.get("changes", ())]
    told += f", changed: {'; '.join(changes)}" if changes else ""
    skipped = [str(facts["skipped"]) for facts in runs if "skipped" in facts]
    told += f", undone for numbers that were not finite: {'; '.join(skipped)} steps" if skipped else ""
    return f"{steps} steps ({stage}{told})"


def _change(change: Mapping[str, Any]) -> str:
    return f"{change['key']} from {change['before']} to {change['after']} at step {change['step']:,}"


def origin_note(whole: Whole) -> str:
    """The runs that each row is made of."""
    rows = {row["method"]: [Path(run).name for run in row.get("runs", ())] or ["not run"] for row in whole["rows"]}
    return "Runs: " + "; ".join(f"{method}: {', '.join(runs)}" for method, runs in rows.items()) + "."


def _counts(title: str, counts: Mapping[str, Any]) -> str:
    failed = ", ".join(f"{method} {num}" for method, num in counts["failed"].items())
    return (
        f"{title}: {counts['num_inputs']} inputs of {counts['num_persons']} persons, {counts['num_pairs']} compared "
        f"images; rows with a number that could not be measured: {failed or 'none'}."
    )


def _is_timed(row: Mapping[str, Any]) -> bool:
    """Whether the row has a time, in a table that shows them."""
    return row["values"].get("Time", {}).get("ours") is not None


def _time(row: Mapping[str, Any]) -> str:
    first = row["seconds"][0]
    device, iterations = ", ".join(first["devices"]), first.get("iterations_at_most")
    spent = ""
    if iterations:
        spent = "; at most " + " and ".join(f"{n} iterations on the {part}" for part, n in iterations.items())
    parts = {name.removeprefix("time_"): first[name] for name in first if name.startswith("time_")}
    if parts:
        told = ", ".join(f"{name} {seconds:.4g} s" for name, seconds in parts.items())
        spent += f"; its parts, in a pass of their own: {told}"
    return (
        f"Time of {row['method']}: median of {first['timed_images']} images at batch 1 after {first['warm_up']} "
        f"uncounted, device synchronised, preprocessing not counted; {device}, {first['threads']} threads, PyTorch "
        f"{first['torch']}{spent}."
    )


def _several(whole: Whole) -> bool:
    return any(len(row.get("runs", ())) > 1 for row in whole["rows"])
