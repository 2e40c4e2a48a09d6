"""The paper's Tables 1-3 as data, and beside measured numbers.

Numbers are kept as printed, digits included. Those that contradict another printed number have a footnote with the
value that was probably meant; nothing here corrects them. Columns are named by metric and group: `MSE`, `LPIPS60` for
novel views made from a face at yaw ±60°, `LPIPS0` from a face at yaw 0°.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

MISSING = "–"
UNINFORMATIVE = "†"  # of a column whose meter cannot tell people of these images apart
ARROWS = {"higher": "↑", "lower": "↓"}
Measured = Mapping[str, Mapping[str, float | None]]
Details = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Column:
    """A metric in a group of columns; `better` is higher or lower, `format` is for measured values."""

    name: str
    heading: str
    group: str
    better: str
    format: str


@dataclass(frozen=True)
class Footnote:
    """A doubt about printed cells: what was probably meant (None: undecided) and why."""

    cells: tuple[tuple[str, str], ...]  # (method, column)
    suspected: str | None
    reason: str


@dataclass(frozen=True)
class PaperTable:
    """A printed table. `rows`: method -> its cells in the order of `columns`, as strings with all printed digits."""

    number: int
    caption: str
    columns: tuple[Column, ...]
    categories: dict[str, tuple[str, ...]]  # category -> methods; the best is bold within each
    rows: dict[str, tuple[str, ...]]
    footnotes: tuple[Footnote, ...] = field(default=())

    def printed(self, method: str, column: str) -> str:
        """A cell as printed.

        Raises: KeyError if the table has no such row or column.
        """
        return self.rows[method][self._index(column)]

    def value(self, method: str, column: str) -> float:
        """A cell as a number, misprints included."""
        return float(self.printed(method, column))

    def category(self, method: str) -> str:
        """The category that a method stands in."""
        return next(name for name, methods in self.categories.items() if method in methods)

    def is_flagged(self, method: str, column: str) -> bool:
        """Whether a footnote doubts this cell."""
        return any((method, column) in note.cells for note in self.footnotes)

    def best(self, column: str) -> set[str]:
        """Methods whose printed value is the best of their category in `column`, of misprints what was likely meant."""
        meant = {cell: float(note.suspected) for note in self.footnotes if note.suspected for cell in note.cells}
        values = {method: meant.get((method, column), self.value(method, column)) for method in self.rows}
        return best_methods(values, self.categories, self.columns[self._index(column)].better)

    def _index(self, column: str) -> int:
        names = [c.name for c in self.columns]
        if column not in names:
            raise KeyError(f"Table {self.number} has no column {column!r}; it has {', '.join(names)}")
        return names.index(column)


class Metric(NamedTuple):
    """How a metric is called in names of columns and above them, which values are better, how they are shown."""

    name: str
    heading: str
    better: str  # higher | lower
    format: str


METRICS = {
    "psnr": Metric("PSNR", "PSNR", "higher", ".2f"),
    "ssim": Metric("SSIM", "SSIM", "higher", ".4f"),
    "mse": Metric("MSE", "MSE", "lower", ".4f"),
    "lpips": Metric("LPIPS", "LPIPS", "lower", ".4f"),
    "fid": Metric("FID", "FID", "lower", ".1f"),
    "id": Metric("ID", "ID", "higher", ".4f"),
    "geo": Metric("Geo", "Geo. Err.", "lower", ".4f"),
    "time": Metric("Time", "Time (s)", "lower", ".4f"),
}


def _columns(group: str, suffix: str, *metrics: str) -> tuple[Column, ...]:
    found = [METRICS[name] for name in metrics]
    return tuple(Column(f"{m.name}{suffix}", m.heading, group, m.better, m.format) for m in found)


def _cells(*lines: str) -> tuple[str, ...]:
    return tuple(" ".join(lines).split())


INPUT_VIEW, SIDE_FACE, FRONT_FACE = "Input view", "Novel views, yaw ±60°", "Novel views, yaw 0°"
NOVEL_METRICS = ("psnr", "ssim", "mse", "lpips", "fid", "id", "geo")

TABLE_1 = PaperTable(
    number=1,
    caption="Inversion: the input view on CelebA-HQ, novel views on MEAD from a face at the given yaw",
    columns=(
        *_columns(INPUT_VIEW, "", "mse", "lpips", "fid", "id", "geo", "time"),
        *_columns(SIDE_FACE, "60", "lpips", "fid", "id", "geo"),
        *_columns(FRONT_FACE, "0", "lpips", "fid", "id", "geo"),
    ),
    categories={
        "optimization": ("PTI", "Pose Opt."),
        "encoder": ("IDE-3D", "pSp-3D", "e4e-3D", "Ours-w+", "Ours"),
    },
    rows={
        "PTI": _cells(
            "0.0163 0.0918 18.0 0.8417 0.0850 115.2",
            "0.2926 69.8 0.621 0.1481",
            "0.1925 53.5 0.718 0.1006",
        ),
        "Pose Opt.": _cells(
            "0.0164 0.0879 17.5 0.8390 0.0759 219.7",
            "0.4477 132 0.321 0.1763",
            "0.2436 60.2 0.605 0.1504",
        ),
        "IDE-3D": _cells(
            "0.1056 0.2806 43.6 0.7194 0.1835 0.0659",
            "0.3317 79.0 0.505 0.2914",
            "0.3074 63.7 0.513 0.2528",
        ),
        "pSp-3D": _cells(
            "0.0726 0.2082 31.2 0.7817 0.1846 0.1284",
            "0.3223 65.7 0.591 0.1287",
            "0.3132 65.2 0.671 0.1789",
        ),
        "e4e-3D": _cells(
            "0.0808 0.2281 33.0 0.7359 0.1161 0.1303",
            "0.2495 57.7 0.588 0.1269",
            "0.2394 53.8 0.653 0.1305",
        ),
        "Ours-w+": _cells(
            "0.0697 0.1981 30.9 0.7873 0.1100 0.0963",
            "0.2303 52.2 0.655 0.0943",
            "0.2372 54.1 0.685 0.0955",
        ),
        "Ours": _cells(
            "0.0301 0.1257 20.5 0.8752 0.0987 0.2262",
            "0.2192 50.9 0.700 0.0950",
            "0.2204 51.7 0.743 0.0944",
        ),
    },
    footnotes=(
        Footnote(
            (("Ours-w+", "LPIPS60"),),
            None,
            "0.2203 in Table 2 (`w/ D_Wc, w/ L_BG`, the same network); one of the two is a misprint, "
            "all other shared columns agree",
        ),
        Footnote(
            (("Ours", "LPIPS"), ("Ours", "FID"), ("Ours", "ID"), ("Ours", "Geo")),
            None,
            "Table 3 (`w/ AFA`) has 0.1242, 18.1, 0.8797 and 0.0984 for the same metrics and data; perhaps it shows "
            "the refined planes without the mix",
        ),
    ),
)

W_VARIANTS = ("w/o D_Wc, w/o L_BG", "w/o D_Wc, w/ L_BG", "w/ D_Wc, w/o L_BG", "w/ D_Wc, w/ L_BG")

TABLE_2 = PaperTable(
    number=2,
    caption="Ablation of the encoder's terms and of the occlusion-aware mix: novel views on MEAD",
    columns=(*_columns(SIDE_FACE, "60", *NOVEL_METRICS), *_columns(FRONT_FACE, "0", *NOVEL_METRICS)),
    categories={"W space": W_VARIANTS, "F space": ("w/o occlusion-aware", "Ours")},
    rows={
        "w/o D_Wc, w/o L_BG": _cells(
            "19.82 0.5730 0.0565 0.3069 62.1 0.6206 0.1422",
            "19.83 0.5382 0.0540 0.2966 68.9 0.6842 0.1775",
        ),
        "w/o D_Wc, w/ L_BG": _cells(
            "19.41 0.5576 0.0585 0.2883 59.0 0.6176 0.1016",
            "20.76 0.5829 0.0417 0.2572 60.6 0.6864 0.1082",
        ),
        "w/ D_Wc, w/o L_BG": _cells(
            "20.20 0.5999 0.0495 0.2599 55.5 0.6459 0.1414",
            "20.67 0.5757 0.0428 0.2527 55.1 0.6844 0.1491",
        ),
        "w/ D_Wc, w/ L_BG": _cells(
            "20.66 0.6211 0.0473 0.2203 52.2 0.6552 0.0943",
            "21.12 0.5944 0.0383 0.2372 54.1 0.6848 0.0955",
        ),
        "w/o occlusion-aware": _cells(
            "20.69 0.6176 0.0489 0.2327 52.5 0.6832 0.0983",
            "20.26 0.6374 0.03202 0.2230 50.3 0.744 0.0954",
        ),
        "Ours": _cells(
            "20.87 0.6299 0.0424 0.2192 50.9 0.700 0.0950",
            "22.13 0.6502 0.0329 0.2204 51.7 0.743 0.0944",
        ),
    },
    footnotes=(
        Footnote(
            (("w/o occlusion-aware", "PSNR0"),),
            "22.26",
            "the mean PSNR cannot lie below 10 log10(4 / 0.03202) = 20.97; every other row lies above that bound",
        ),
        Footnote((("w/o occlusion-aware", "MSE0"),), "0.0320", "five digits where all others have four; see its PSNR"),
        Footnote(
            (("w/ D_Wc, w/ L_BG", "LPIPS60"),),
            None,
            "0.2303 in Table 1 (`Ours-w+`, the same network); one of the two is a misprint",
        ),
    ),
)

TABLE_3 = PaperTable(
    number=3,
    caption="Ablation of feature alignment: the input view on CelebA-HQ",
    columns=_columns(INPUT_VIEW, "", *NOVEL_METRICS),
    categories={"F space": ("w/ conv", "w/ AFA")},
    rows={
        "w/ conv": _cells("19.67 0.5962 0.0455 0.1766 25.1 0.8033 0.1094"),
        "w/ AFA": _cells("21.84 0.7079 0.301 0.1242 18.1 0.8797 0.0984"),
    },
    footnotes=(
        Footnote(
            (("w/ AFA", "MSE"),),
            "0.0301",
            "a mean PSNR of 21.84 dB asks for much less; Table 1 has 0.0301 for `Ours`",
        ),
        Footnote(
            (("w/ AFA", "LPIPS"), ("w/ AFA", "FID"), ("w/ AFA", "ID"), ("w/ AFA", "Geo")),
            None,
            "Table 1 (`Ours`) has 0.1257, 20.5, 0.8752 and 0.0987 for the same metrics and data",
        ),
    ),
)

TABLES = {table.number: table for table in (TABLE_1, TABLE_2, TABLE_3)}


def best_methods(values: Mapping[str, float | None], categories: Mapping[str, Sequence[str]], better: str) -> set[str]:
    """The best method of each category, or those that share its value; methods without a value take no part."""
    best: set[str] = set()
    for methods in categories.values():
        known = {m: v for m in methods if (v := values.get(m)) is not None}
        if known:
            top = (max if better == "higher" else min)(known.values())
            best |= {method for method, value in known.items() if value == top}
    return best


def markdown_table(
    table: PaperTable,
    measured: Measured,
    *,
    details: Details | None = None,
    uninformative: Sequence[str] = (),
) -> str:
    """The table with its footnotes; arguments and errors as of `table_cells`."""
    header, *rows = table_cells(table, measured, details=details, uninformative=uninformative)
    lines = [_line(header), _line(["---"] * 3 + ["---:"] * (len(header) - 3)), *map(_line, rows)]
    notes = table_notes(table)
    parts = [f"**Table {table.number}.** {table.caption}.", "\n".join(lines), "  \n".join(notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def table_cells(
    table: PaperTable,
    measured: Measured,
    *,
    details: Details | None = None,
    uninformative: Sequence[str] = (),
) -> list[list[str]]:
    """A header; then the paper's row of every method, and a measured row below it; the best of each category is bold.

    Args:
        measured: method -> column -> value; a method, a column or a value (None) that is missing is printed as "–".
        details: method -> column -> what stands behind a measured value, such as its interval.
        uninformative: columns that are marked, and in which no measured value is bold.
    Raises: ValueError if `measured` names a method or a column that the table does not have.
    """
    _check_measured(table, measured)
    marks = {cell: i for i, note in enumerate(table.footnotes, 1) for cell in note.cells}
    dagger = dict.fromkeys(uninformative, f" {UNINFORMATIVE}")
    headings = [f"{c.group}: {c.heading} {ARROWS[c.better]}{dagger.get(c.name, '')}" for c in table.columns]
    rows = [["Category", "Method", "Source", *headings]]
    for category, methods in table.categories.items():
        for method in methods:
            behind = (details or {}).get(method, {})
            paper = [_paper_cell(table, method, c, marks.get((method, c.name))) for c in table.columns]
            ours = [
                _measured_cell(table, measured, method, c, bold=c.name not in uninformative) + behind.get(c.name, "")
                for c in table.columns
            ]
            rows += [[category, method, "paper", *paper], [category, method, "measured", *ours]]
    return rows


def table_notes(table: PaperTable) -> list[str]:
    """The footnotes on doubtful printed numbers."""
    return [f"<sup>{i}</sup> {_explain(note)}" for i, note in enumerate(table.footnotes, 1)]


def _check_measured(table: PaperTable, measured: Measured) -> None:
    columns = {c.name for c in table.columns}
    unknown = sorted(m for m in measured if m not in table.rows)
    unknown += sorted({f"{m}: {c}" for m, values in measured.items() for c in values if c not in columns})
    if unknown:
        raise ValueError(
            f"Table {table.number} has no place for {'; '.join(unknown)}. Methods: {', '.join(table.rows)}. "
            f"Columns: {', '.join(c.name for c in table.columns)}."
        )


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _paper_cell(table: PaperTable, method: str, column: Column, mark: int | None) -> str:
    text = _bold(table.printed(method, column.name), method in table.best(column.name))
    return text + (f"<sup>{mark}</sup>" if mark else "")


def _measured_cell(table: PaperTable, measured: Measured, method: str, column: Column, *, bold: bool) -> str:
    values = {m: row.get(column.name) for m, row in measured.items()}
    value = values.get(method)
    if value is None:
        return MISSING
    best = bold and method in best_methods(values, table.categories, column.better)
    return _bold(format(value, column.format), best)


def _bold(text: str, bold: bool) -> str:
    return f"**{text}**" if bold else text


def _explain(note: Footnote) -> str:
    suspected = f"Printed so; probably {note.suspected}, which bold goes by" if note.suspected else "Printed so"
    return f"{suspected}: {note.reason}."
