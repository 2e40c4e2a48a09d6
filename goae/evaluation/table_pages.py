"""A table's JSON as markdown, CSV and HTML: the paper's row of every method, ours below it, and how it was measured."""

import csv
import html
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from goae.evaluation.cells import COUNTS, column_title, extra_columns, split_column
from goae.evaluation.paper_tables import (
    METRICS,
    MISSING,
    UNINFORMATIVE,
    PaperTable,
    markdown_table,
    table_cells,
    table_notes,
)
from goae.evaluation.runner import write_json
from goae.evaluation.tables import protocols_of
from goae.viz.report import Section, write_report

Whole = Mapping[str, Any]
GROUPS = {"input": "input view"}
EXTRA_FORMATS = {"fid_beside": ".2f"}  # the others have four digits


def write_pages(printed: PaperTable, whole: Whole, folder: Path) -> list[Path]:
    """Write `table<n>.json`, .md, .csv and .html."""
    paths = [folder / f"table{printed.number}.{end}" for end in ("json", "md", "csv", "html")]
    write_json(whole, paths[0])
    paths[1].write_text(markdown_page(printed, whole))
    paths[2].write_text(csv_page(printed, whole))
    html_page(printed, whole, paths[3])
    return paths


def numbers(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """method -> column -> our number."""
    return {row["method"]: {column: cell["ours"] for column, cell in row["values"].items()} for row in rows}


def details(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """method -> column -> its interval and its spread over runs."""
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        found[row["method"]] = {column: _behind(column, cell) for column, cell in row["values"].items()}
    return found


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
            f" SSIM with a Gaussian window of 11 and data range 2; LPIPS 0.1 ({metrics['lpips']}); features of FID: "
            f"{metrics['features']}; ID: {metrics['identity']}, independent of all losses: "
            f"{metrics['identity_independent']}; pseudo-depth of Geo. Err.: {metrics['geometry']}; what could not "
            "be measured by a run is left out of the means of all runs of its row, and counted above."
        )
        notes.append(
            f"In brackets: 95 % bootstrap intervals over persons ({how['resamples']} resamples)"
            + ("; ± is the standard deviation over runs, whose numbers are averaged" if _several(whole) else "")
            + ". Distances between sets and times have none."
        )
    notes += [f"{UNINFORMATIVE} {note}" if how["uninformative"] else note for note in how["meter_notes"]]
    notes += [_time(row) for row in whole["rows"] if row.get("seconds") and "Time" in row["values"]]
    notes += cost_notes(whole)
    counts = {row["method"]: row["num_inputs"] for row in whole["rows"] if row["num_inputs"]}
    widest = {p: max(c[p] for c in counts.values()) for p in protocols_of(printed)} if counts else {}
    for name, inputs in counts.items():
        if inputs != widest:
            told = " and ".join(f"{n} of {widest[p]} inputs ({p.replace('_', ' ')})" for p, n in inputs.items())
            notes.append(f"{name} is measured on {told}, drawn by a seed; all methods on these inputs: below.")
    return notes


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


def markdown_page(printed: PaperTable, whole: Whole) -> str:
    """The whole page."""
    body = markdown_table(printed, numbers(whole["rows"]), **_looks(whole, "rows"))
    parts = [f"Made by `python scripts/tables.py table={printed.number} world={whole['protocol']['world']}`.", body]
    parts += ["**How the numbers were made.**", "\n".join(f"- {note}" for note in protocol_notes(printed, whole))]
    parts += ["**Where rows come from.** " + "; ".join(f"{m}: {', '.join(runs)}" for m, runs in _runs(whole)) + "."]
    parts += ["\n".join(f"- {note}" for note in missing_notes(whole))] if missing_notes(whole) else []
    if whole["subset_rows"]:
        rows = table_cells(printed, numbers(whole["subset_rows"]), **_looks(whole, "subset_rows"))
        parts += [_subset_title(whole), _markdown([rows[0], *(r for r in rows if r[2] == "measured")])]
    extra = extra_cells(printed, whole)
    if len(extra) > 1:
        parts += ["**Columns that the paper does not have.**", _markdown(extra)]
    gaps = difference_cells(printed, whole)
    if len(gaps) > 1:
        parts += ["**Differences on the same images, first minus second.**", _markdown(gaps)]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def csv_page(printed: PaperTable, whole: Whole) -> str:
    """Lines `paper`, `measured`, `low` and `high` of every method: as printed, and with all digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [c.name for c in printed.columns]
    writer.writerow(["category", "method", "source", *columns])
    for row in whole["rows"]:
        for source, key in (("paper", "paper_printed"), ("measured", "ours"), ("low", "low"), ("high", "high")):
            cells = [row["values"][column][key] for column in columns]
            writer.writerow([row["category"], row["method"], source, *("" if c is None else c for c in cells)])
    return text.getvalue()


def html_page(printed: PaperTable, whole: Whole, path: Path) -> None:
    """One self-contained file."""
    rows = table_cells(printed, numbers(whole["rows"]), **_looks(whole, "rows"))
    notes = [*table_notes(printed), *protocol_notes(printed, whole), *missing_notes(whole)]
    listed = "".join(f"<li>{_html(note)}</li>" for note in notes)
    sections = [Section("Measured beside printed", _html_table(rows)), Section("Notes", f"<ul>{listed}</ul>")]
    if whole["subset_rows"]:
        rows = table_cells(printed, numbers(whole["subset_rows"]), **_looks(whole, "subset_rows"))
        shown = [rows[0], *(r for r in rows if r[2] == "measured")]
        sections.append(Section(_subset_title(whole).strip("*"), _html_table(shown)))
    extra = extra_cells(printed, whole)
    if len(extra) > 1:
        sections.append(Section("Columns that the paper does not have", _html_table(extra)))
    gaps = difference_cells(printed, whole)
    if len(gaps) > 1:
        sections.append(Section("Differences on the same images, first minus second", _html_table(gaps)))
    write_report(path, f"Table {printed.number}", printed.caption + ".", sections)


def extra_cells(printed: PaperTable, whole: Whole) -> list[list[str]]:
    """A header and a row of each method, for what is measured beside the paper's columns."""
    measured = [row for row in whole["rows"] if row.get("extra")]
    columns = [c for c in extra_columns(printed) if any(c in row["extra"] for row in measured)]
    how = whole["protocol"]
    marks = dict.fromkeys(how["uninformative"], f" {UNINFORMATIVE}")
    features: Mapping[str, str] = next((how[p]["metrics"] for p in protocols_of(printed) if p in how), {})
    rows = [["Method", *(column_title(c, features) + marks.get(c, "") for c in columns)]]
    for row in measured:
        cells = []
        for column in columns:
            cell = row["extra"].get(column)
            style = EXTRA_FORMATS.get(split_column(column)[0], ".4f")
            cells.append(MISSING if cell is None else format(cell["ours"], style) + _interval(cell, style))
        rows.append([row["method"], *cells])
    return rows


def difference_cells(printed: PaperTable, whole: Whole) -> list[list[str]]:
    """A header and a row of every two methods: the mean of first - second in each column with its interval."""
    columns = [c for c in printed.columns if any(entry["column"] == c.name for entry in whole["differences"])]
    pairs: dict[tuple[str, str], dict[str, Whole]] = {}
    for entry in whole["differences"]:
        pairs.setdefault((entry["first"], entry["second"]), {})[entry["column"]] = entry
    rows = [["First", "Second", *(f"{c.group}: {c.heading}" for c in columns)]]
    for names, found in pairs.items():
        rows.append([*names, *(_gap(found[c.name], c.format) if c.name in found else MISSING for c in columns)])
    return rows


def _gap(entry: Whole, style: str) -> str:
    ends = "" if entry["low"] is None else f" [{entry['low']:+{style}}, {entry['high']:+{style}}]"
    return f"{entry['mean']:+{style}}{ends}"


def _looks(whole: Whole, part: str) -> dict[str, Any]:
    """How the numbers of `rows` or `subset_rows` are shown."""
    return {"details": details(whole[part]), "uninformative": whole["protocol"]["uninformative"]}


def _behind(column: str, cell: Mapping[str, Any]) -> str:
    return "" if cell["ours"] is None else _interval(cell, METRICS[split_column(column)[0]].format)


def _interval(cell: Mapping[str, Any], style: str) -> str:
    text = "" if cell["spread"] is None else f" ± {cell['spread']:{style}}"
    return text if cell["low"] is None else f"{text} [{cell['low']:{style}}, {cell['high']:{style}}]"


def _counts(title: str, counts: Mapping[str, Any]) -> str:
    return (
        f"{title}: {counts['num_inputs']} inputs of {counts['num_persons']} persons, {counts['num_pairs']} compared "
        f"images, {counts['failed']} rows of all methods with a number that could not be measured."
    )


def _time(row: Mapping[str, Any]) -> str:
    first = row["seconds"][0]
    device, iterations = ", ".join(first["devices"]), first.get("iterations_at_most")
    spent = ""
    if iterations:
        spent = "; at most " + " and ".join(f"{n} iterations on the {part}" for part, n in iterations.items())
    return (
        f"Time of {row['method']}: median of {first['timing_images']} images at batch 1 after {first['warm_up']} "
        f"uncounted, device synchronised, preprocessing not counted; {device}, {first['threads']} threads, PyTorch "
        f"{first['torch']}{spent}."
    )


def _several(whole: Whole) -> bool:
    return any(len(row.get("runs", ())) > 1 for row in whole["rows"])


def _runs(whole: Whole) -> list[tuple[str, list[str]]]:
    return [(row["method"], [Path(run).name for run in row.get("runs", ())] or ["not run"]) for row in whole["rows"]]


def _subset_title(whole: Whole) -> str:
    inputs = whole["subset_rows"][0]["num_inputs"]
    told = " and ".join(f"{n} of the {p.replace('_', ' ')}" for p, n in inputs.items())
    return f"**All methods on the inputs that they share: {told}.**"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _html_table(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_html(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{_html(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f"<table><tr>{head}</tr>{body}</table>"


def _html(text: str) -> str:
    """Bold, code and raised marks of markdown; all else escaped."""
    text = html.escape(text).replace("&lt;sup&gt;", "<sup>").replace("&lt;/sup&gt;", "</sup>")
    return re.sub(r"`(.+?)`", r"<code>\1</code>", re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text))
