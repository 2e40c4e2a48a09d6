"""A table's JSON as markdown, CSV and HTML: the paper's row of every method, ours below it, and how it was measured."""

import csv
import html
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from goae.evaluation.paper_tables import METRICS, MISSING, PaperTable, markdown_table, table_cells, table_notes
from goae.evaluation.runner import write_json
from goae.evaluation.tables import column_title, extra_columns, protocols_of, split_column
from goae.viz.report import Section, write_report

Whole = Mapping[str, Any]
GROUPS = {"input": "input view"}
EXTRA_FORMATS = {"id_independent": ".4f", "depth": ".4f", "ms_ssim": ".4f", "kid": ".4f"}


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
            notes.append(_counts(GROUPS.get(group, f"novel views, input yaw {group}°"), counts, found["metrics"]))
    first = next((how[p] for p in protocols_of(printed) if p in how), None)
    if first is not None:
        metrics = first["metrics"]
        notes.append(
            f"World {how['world']}: images {first['resolution']}² in [-1, 1], metrics at {first['metric_resolution']}²;"
            f" SSIM with a Gaussian window of 11 and data range 2; LPIPS 0.1 ({metrics['lpips']}); ID: "
            f"{metrics['identity']}, independent of all losses: {metrics['identity_independent']}; pseudo-depth of "
            f"Geo. Err.: {metrics['geometry']}; what could not be measured is left out of a mean and counted above."
        )
        notes.append(
            f"In brackets: 95 % bootstrap intervals over persons ({how['resamples']} resamples)"
            + ("; ± is the standard deviation over runs, whose numbers are averaged" if _several(whole) else "")
            + ". Fréchet distances and times have none."
        )
    notes += how["meter_notes"]
    notes += [_time(row) for row in whole["rows"] if row.get("seconds") and "time" in row["values"]]
    counts = {row["method"]: row["num_inputs"] for row in whole["rows"] if "num_inputs" in row}
    widest = {p: max(c[p] for c in counts.values()) for p in protocols_of(printed)} if counts else {}
    for name, inputs in counts.items():
        if inputs != widest:
            told = " and ".join(f"{n} of {widest[p]} inputs ({p.replace('_', ' ')})" for p, n in inputs.items())
            notes.append(f"{name} is measured on {told}, drawn by a seed; all methods on these inputs: below.")
    return notes


def missing_notes(whole: Whole) -> list[str]:
    """What has to be done for each row that was not run."""
    return [f"{row['method']} was not run: {row['missing']}." for row in whole["rows"] if row["status"] == "not run"]


def markdown_page(printed: PaperTable, whole: Whole) -> str:
    """The whole page."""
    notes = protocol_notes(printed, whole)
    body = markdown_table(printed, numbers(whole["rows"]), protocol=notes, details=details(whole["rows"]))
    parts = [f"Made by `python scripts/tables.py table={printed.number} world={whole['protocol']['world']}`.", body]
    parts += ["**Where rows come from.** " + "; ".join(f"{m}: {', '.join(runs)}" for m, runs in _runs(whole)) + "."]
    parts += ["\n".join(f"- {note}" for note in missing_notes(whole))] if missing_notes(whole) else []
    if whole["subset_rows"]:
        rows = table_cells(printed, numbers(whole["subset_rows"]), details=details(whole["subset_rows"]))
        parts += [_subset_title(whole), _markdown([rows[0], *(r for r in rows if r[2] == "measured")])]
    extra = extra_cells(printed, whole)
    if len(extra) > 1:
        parts += ["**Columns that the paper does not have.**", _markdown(extra)]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def csv_page(printed: PaperTable, whole: Whole) -> str:
    """Lines `paper`, `measured`, `low` and `high` of every method, measured numbers with all digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [c.name for c in printed.columns]
    writer.writerow(["category", "method", "source", *columns])
    for row in whole["rows"]:
        for source, key in (("paper", "paper"), ("measured", "ours"), ("low", "low"), ("high", "high")):
            cells = [row["values"][column][key] for column in columns]
            writer.writerow([row["category"], row["method"], source, *("" if c is None else c for c in cells)])
    return text.getvalue()


def html_page(printed: PaperTable, whole: Whole, path: Path) -> None:
    """One self-contained file."""
    notes = protocol_notes(printed, whole)
    values = numbers(whole["rows"])
    rows = table_cells(printed, values, protocol=notes, details=details(whole["rows"]))
    listed = "".join(f"<li>{_html(note)}</li>" for note in [*table_notes(printed, notes), *missing_notes(whole)])
    sections = [
        Section("Measured beside printed", _html_table(rows)),
        Section("Notes", f"<ul style='list-style: none'>{listed}</ul>"),
    ]
    if whole["subset_rows"]:
        rows = table_cells(printed, numbers(whole["subset_rows"]), details=details(whole["subset_rows"]))
        shown = [rows[0], *(r for r in rows if r[2] == "measured")]
        sections.append(Section(_subset_title(whole).strip("*"), _html_table(shown)))
    extra = extra_cells(printed, whole)
    if len(extra) > 1:
        sections.append(Section("Columns that the paper does not have", _html_table(extra)))
    write_report(path, f"Table {printed.number}", printed.caption + ".", sections)


def extra_cells(printed: PaperTable, whole: Whole) -> list[list[str]]:
    """A header and a row of each method, for what is measured beside the paper's columns."""
    measured = [row for row in whole["rows"] if row.get("extra")]
    columns = [c for c in extra_columns(printed) if any(c in row["extra"] for row in measured)]
    rows = [["Method", *map(column_title, columns)]]
    for row in measured:
        cells = []
        for column in columns:
            cell = row["extra"].get(column)
            style = EXTRA_FORMATS[split_column(column)[0]]
            cells.append(MISSING if cell is None else format(cell["ours"], style) + _interval(cell, style))
        rows.append([row["method"], *cells])
    return rows


def _behind(column: str, cell: Mapping[str, Any]) -> str:
    return "" if cell["ours"] is None else _interval(cell, METRICS[split_column(column)[0]][2])


def _interval(cell: Mapping[str, Any], style: str) -> str:
    text = "" if cell["spread"] is None else f" ± {cell['spread']:{style}}"
    return text if cell["low"] is None else f"{text} [{cell['low']:{style}}, {cell['high']:{style}}]"


def _counts(title: str, counts: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    text = (
        f"{title}: {counts['num_inputs']} inputs of {counts['num_persons']} persons, {counts['num_pairs']} compared "
        f"images, {counts['failed']} rows of all methods with a number that could not be measured"
    )
    if "num_real" in counts:
        text += (
            f"; FID of {counts['num_shown']} shown against {counts['num_real']} real images on "
            f"{counts['num_features']} features ({metrics['features']})"
        )
    return text + (f"; {counts['note']}." if "note" in counts else ".")


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
