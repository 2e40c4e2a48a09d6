"""A table's JSON as markdown, CSV and HTML: the paper's row of every method, ours below it, and how it was measured."""

import csv
import html
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from goae.evaluation.cells import column_title, extra_columns, split_column
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
from goae.evaluation.table_notes import data_note, missing_notes, origin_note, protocol_notes, timed_apart
from goae.evaluation.tables import protocols_of
from goae.viz.report import Section, write_report

Whole = Mapping[str, Any]
BESIDE_PAPER = ("id_independent", "depth")  # of what the paper has not, those whose differences are shown
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


def markdown_page(printed: PaperTable, whole: Whole) -> str:
    """The whole page."""
    body = markdown_table(printed, numbers(whole["rows"]), **_looks(whole, "rows"))
    command = f"python scripts/tables.py table={printed.number} world={whole['protocol']['world']}"
    parts = [f"Made by `{command}`, with keys as below. **{data_note(whole)}**", body]
    parts += ["**How the numbers were made.**", "\n".join(f"- {note}" for note in protocol_notes(printed, whole))]
    parts += ["**Where rows come from.** " + origin_note(whole)]
    parts += ["\n".join(f"- {note}" for note in missing_notes(whole))] if missing_notes(whole) else []
    if whole["subset_rows"]:
        rows = table_cells(printed, numbers(whole["subset_rows"]), **_looks(whole, "subset_rows"))
        parts += [f"**{_subset_title(whole)}.**", _markdown([rows[0], *(r for r in rows if r[2] == "measured")])]
    for title, cells in extra_tables(printed, whole).items():
        parts += [f"**{title}.**", _markdown(cells)]
    gaps = difference_cells(printed, whole)
    if len(gaps) > 1:
        parts += ["**Differences on the same images, first minus second.**", _markdown(gaps)]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def csv_page(printed: PaperTable, whole: Whole) -> str:
    """Lines of each method: `paper` as printed; `measured`, `low`, `high` with all digits; of a subset `shared_*`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [c.name for c in printed.columns]
    writer.writerow(["category", "method", "source", *columns])
    ours = {"measured": "ours", "low": "low", "high": "high"}
    shared = {f"shared_{source}": key for source, key in ours.items()}
    for part, sources in (("rows", {"paper": "paper_printed"} | ours), ("subset_rows", shared)):
        for row in whole[part]:
            for source, key in sources.items():
                cells = [row["values"][column][key] for column in columns]
                writer.writerow([row["category"], row["method"], source, *("" if c is None else c for c in cells)])
    return text.getvalue()


def html_page(printed: PaperTable, whole: Whole, path: Path) -> None:
    """One self-contained file."""
    rows = table_cells(printed, numbers(whole["rows"]), **_looks(whole, "rows"))
    notes = [*table_notes(printed), *protocol_notes(printed, whole), origin_note(whole), *missing_notes(whole)]
    listed = "".join(f"<li>{_html(note)}</li>" for note in notes)
    sections = [Section("Measured beside printed", _html_table(rows)), Section("Notes", f"<ul>{listed}</ul>")]
    if whole["subset_rows"]:
        rows = table_cells(printed, numbers(whole["subset_rows"]), **_looks(whole, "subset_rows"))
        shown = [rows[0], *(r for r in rows if r[2] == "measured")]
        sections.append(Section(_subset_title(whole), _html_table(shown)))
    sections += [Section(title, _html_table(cells)) for title, cells in extra_tables(printed, whole).items()]
    gaps = difference_cells(printed, whole)
    if len(gaps) > 1:
        sections.append(Section("Differences on the same images, first minus second", _html_table(gaps)))
    write_report(path, f"Table {printed.number}", f"{printed.caption}. {data_note(whole)}", sections)


def extra_tables(printed: PaperTable, whole: Whole) -> dict[str, list[list[str]]]:
    """Title -> what is measured beside the paper's columns, on all inputs and on the shared ones; none without rows."""
    title = "Columns that the paper does not have"
    titles = {"rows": title, "subset_rows": f"{title}, on the inputs that all methods share"}
    found = {titles[part]: extra_cells(printed, whole, part) for part in titles}
    return {title: cells for title, cells in found.items() if len(cells) > 1}


def extra_cells(printed: PaperTable, whole: Whole, part: str) -> list[list[str]]:
    """A header and a row of each method of `rows` or `subset_rows`, for what is measured beside the paper's columns."""
    measured = [row for row in whole[part] if row["extra"]]
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
    there = {entry["column"] for entry in whole["differences"]}
    titles = {c.name: f"{c.group}: {c.heading}" for c in printed.columns}
    titles |= {name: column_title(name, {}) for name in extra_columns(printed) if split_column(name)[0] in BESIDE_PAPER}
    styles = {c.name: c.format for c in printed.columns}
    columns = [name for name in titles if name in there]
    pairs: dict[tuple[str, str], dict[str, Whole]] = {}
    for entry in whole["differences"]:
        pairs.setdefault((entry["first"], entry["second"]), {})[entry["column"]] = entry
    rows = [["First", "Second", *(titles[name] for name in columns)]]
    for names, found in pairs.items():
        rows.append([*names, *(_gap(found[c], styles.get(c, ".4f")) if c in found else MISSING for c in columns)])
    return rows


def _gap(entry: Whole, style: str) -> str:
    ends = "" if entry["low"] is None else f" [{entry['low']:+{style}}, {entry['high']:+{style}}]"
    return f"{entry['mean']:+{style}}{ends}"


def _looks(whole: Whole, part: str) -> dict[str, Any]:
    """How the numbers of `rows` or `subset_rows` are shown."""
    marked = [*whole["protocol"]["uninformative"], *(["Time"] if timed_apart(whole) else [])]
    return {"details": details(whole[part]), "uninformative": marked}


def _behind(column: str, cell: Mapping[str, Any]) -> str:
    return "" if cell["ours"] is None else _interval(cell, METRICS[split_column(column)[0]].format)


def _interval(cell: Mapping[str, Any], style: str) -> str:
    text = "" if cell["spread"] is None else f" ± {cell['spread']:{style}}"
    return text if cell["low"] is None else f"{text} [{cell['low']:{style}}, {cell['high']:{style}}]"


def _subset_title(whole: Whole) -> str:
    inputs = whole["subset_rows"][0]["num_inputs"]
    told = " and ".join(f"{n} of the {p.replace('_', ' ')}" for p, n in inputs.items())
    return f"All methods on the inputs that they share: {told}"


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
