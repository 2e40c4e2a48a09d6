"""The report of a run: one self-contained HTML file with curves, pictures and tables."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eg3d.integrity import replace_file

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222 }
h1 { font-size: 1.6em } h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #ddd }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: .3em .8em; text-align: right }
th { border-bottom: 2px solid #444 } td:first-child, th:first-child { text-align: left }
tr:nth-child(even) td { background: #f6f6f6 } img { max-width: 100% } .note { color: #666; font-size: .9em }
pre { background: #f6f6f6; padding: 1em; overflow-x: auto; font-size: .8em }
"""


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it, already HTML."""

    title: str
    body: str


def picture(png: bytes, caption: str) -> str:
    """An embedded PNG with a caption."""
    data = base64.b64encode(png).decode()
    note = f'<figcaption class="note">{html.escape(caption)}</figcaption>'
    return f'<figure><img src="data:image/png;base64,{data}">{note}</figure>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> str:
    """A table of ready-made strings, with a note below."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<table><tr>{head}</tr>{body}</table><p class="note">{html.escape(note)}</p>'


def write_report(path: Path, title: str, intro: str, sections: Sequence[Section]) -> None:
    """Write the page atomically."""
    parts = "".join(f"<h2>{html.escape(s.title)}</h2>{s.body}" for s in sections)
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style>"
        f"<h1>{html.escape(title)}</h1><p>{html.escape(intro)}</p>{parts}</html>"
    )
    replace_file(path, page)
