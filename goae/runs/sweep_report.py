"""The page that compares the runs of a sweep."""

import csv
import io
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from goae.config import EvaluateConfig, SweepReportConfig, TrainConfig, load_run
from goae.runs.evaluate import evaluate
from goae.runs.report import COLUMN_FORMATS, LABELS, measured_columns, read_summary
from goae.runs.setup import finished_stages
from goae.runs.training_facts import at_its_end
from goae.training.tracking import read_metrics
from goae.viz.curves import overlaid_png
from goae.viz.report import Section, picture, table, write_report


class Cell(NamedTuple):
    """The runs of a sweep that differ by their seed alone."""

    name: str
    runs: list[TrainConfig]


def sweep_report(config: SweepReportConfig) -> Path:
    """Measure what has not been measured; write `<output>.html` and `<output>.csv`. Returns: the page's path.

    Raises: FileNotFoundError if no run matches; ValueError if one of those that do has not been trained to its end.
    """
    cells = read_cells(config)
    for run in (run for cell in cells for run in cell.runs):
        evaluate(evaluation(config, run))
    summaries = {run.run: read_summary(run.run_dir) for cell in cells for run in cell.runs}
    rows = [row for cell in cells for row in cell_rows(cell, summaries)]
    page = Path(config.output or Path(config.runs) / f"{config.experiment_name}-{config.name}.html")
    page.parent.mkdir(parents=True, exist_ok=True)
    write_csv(rows, page.with_suffix(".csv"))
    names = ", ".join(run.run for cell in cells for run in cell.runs)
    sections = [Section("Input view of the test images", rows_table(rows, summaries)), *curve_sections(cells)]
    sections.append(Section("Runs", f"<p>{names}</p>"))
    write_report(page, f"Sweep {config.name}", "Every number here was made by these runs.", sections)
    return page


def read_cells(config: SweepReportConfig) -> list[Cell]:
    """The runs that match, by cell: by name without the seed."""
    folders = sorted(path.parent for path in Path(config.runs).glob(f"{config.pattern}/config.yaml"))
    if not folders:
        raise FileNotFoundError(
            f"no run matches {Path(config.runs) / config.pattern}; set experiment_name to the experiment of the sweep "
            f"(now {config.experiment_name}), or pattern=GLOB, or train its runs with `python scripts/train.py -m "
            f"experiment=NAME sweep=NAME`"
        )
    cells: dict[str, list[TrainConfig]] = {}
    for folder in folders:
        run = load_run(folder, TrainConfig)
        wanted = [name for name in run.own_stages if name in finished_stages(run)]
        missing = [name for name in wanted if not at_its_end(run, folder, name)]
        if missing:
            raise ValueError(
                f"{folder}: {' and '.join(missing)} has not ended; the sweep's own command goes on with it"
            )
        cells.setdefault(folder.name.removesuffix(f"-seed{run.seed}"), []).append(run)
    return [Cell(name, sorted(runs, key=lambda run: run.seed)) for name, runs in cells.items()]


def evaluation(config: SweepReportConfig, run: TrainConfig) -> EvaluateConfig:
    """How a run is measured: all alike."""
    settings = config.num_images, config.batch_size, config.timing_images
    return EvaluateConfig(
        *(run.run, config.runs, *settings, config.identity, config.identity_path),
        impl=config.impl,
        renderer=config.renderer,
    )


def cell_rows(cell: Cell, summaries: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each method of a cell: of every metric, mean and standard deviation over the seeds."""
    measured = [summaries[run.run]["methods"] for run in cell.runs]
    rows = []
    for method in measured[0]:
        row: dict[str, Any] = {"cell": cell.name, "method": method, "seeds": len(cell.runs)}
        for column in measured_columns(summaries.values()):
            values = [found[method][column] for found in measured]
            row[column] = fmean(values)
            row[f"{column}_std"] = stdev(values) if len(values) > 1 else None  # one seed has no spread
        rows.append(row)
    return rows


def write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    """The same numbers for machines; an empty field is a spread that one seed does not have."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue())


def rows_table(rows: list[dict[str, Any]], summaries: dict[str, Any]) -> str:
    """The rows as they stand on the page."""
    columns = measured_columns(summaries.values())
    header = ["run", "method", "seeds", *(COLUMN_FORMATS[column][0] for column in columns)]
    lines = []
    for row in rows:
        line = [row["cell"], LABELS[row["method"]], str(row["seeds"])]
        for column in columns:
            spread, style = row[f"{column}_std"], COLUMN_FORMATS[column][1]
            line.append(format(row[column], style) + ("" if spread is None else f" ± {format(spread, style)}"))
        lines.append(line)
    identities = dict.fromkeys(summary["identity"] for summary in summaries.values())
    devices = dict.fromkeys(device for summary in summaries.values() for device in summary["devices"])
    note = (
        f"Mean ± standard deviation (n − 1) over the seeds of each run's mean over its images; without ± there is one "
        f"seed. Identity: {', '.join(identities)}. Times are comparable only where machine and load were the same: "
        f"{', '.join(devices)}."
    )
    return table(header, lines, note)


def curve_sections(cells: list[Cell]) -> list[Section]:
    """The validation curves of every stage, a colour for each cell and a line for each seed."""
    sections = []
    for stage in ("encoder", "refiner"):
        curves = {
            cell.name: [read_metrics(run.run_dir, stage) for run in cell.runs if stage in run.own_stages]
            for cell in cells
        }
        curves = {name: [rows for rows in found if rows] for name, found in curves.items()}
        curves = {name: found for name, found in curves.items() if found}
        if curves:
            png = overlaid_png(curves, f"stage: {stage}", prefix="val/")
            sections.append(Section(f"Validation of stage {stage}", picture(png, "Held-out images; a line a seed.")))
    return sections
