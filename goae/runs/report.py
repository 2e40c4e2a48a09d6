"""The picture report of a run."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from eg3d.limits import read_json
from PIL import Image
from torch import Tensor

from goae.config import EvaluateConfig, TrainConfig, load_run
from goae.runs.evaluate import read_samples, shipped_inverter
from goae.runs.setup import finished_stages, run_encoder, stack
from goae.training.preview import COLUMNS, preview
from goae.training.tracking import read_metrics
from goae.viz.curves import curves_png
from goae.viz.grid import grid
from goae.viz.report import Section, picture, table, write_report

NUM_SHOWN = 8
LABELS = {
    "w_avg": "render of w_avg",
    "w_plus": "W+ (stage 1)",
    "full": "full (stage 1 + 2)",
    "shipped_w_plus": "W+, shipped weights",
    "shipped_full": "full, shipped weights",
    "psp": "pSp-3D",
    "e4e": "e4e-3D",
    "ide3d": "IDE-3D's encoder",
}
# column -> (heading, format)
COLUMN_FORMATS = {
    "mse": ("MSE ↓", ".4f"),
    "psnr": ("PSNR ↑", ".2f"),
    "ssim": ("SSIM ↑", ".3f"),
    "lpips": ("LPIPS ↓", ".4f"),
    "id": ("ID ↑", ".3f"),
    "seconds": ("time (s) ↓", ".3f"),
}


def report(config: EvaluateConfig) -> Path:
    """Write `report.html` from a run's metrics, its evaluation and fresh pictures of test images."""
    run = load_run(config.run_dir, TrainConfig)
    run.impl, run.renderer = config.impl, config.renderer
    summary = read_summary(config.folder)
    sections = [
        Section("Input view of the test images", summary_table(summary)),
        *picture_sections(config, run),
        *curve_sections(config.run_dir, tuple(s for s in finished_stages(run) if s in run.own_stages)),
        Section("Configuration", f"<pre>{(config.run_dir / 'config.yaml').read_text()}</pre>"),
    ]
    path = config.folder / "report.html"
    title = f"GOAE run {run.run}"
    intro = f"Experiment {run.experiment_name}, seed {run.seed}. "
    intro += "All here was made by this run, or by shipped weights where it says so."
    write_report(path, title, intro, sections)
    return path


def read_summary(run_dir: Path) -> dict[str, Any]:
    """What scripts/evaluate.py measured."""
    path = run_dir / "evaluation" / "summary.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; run `python scripts/evaluate.py run={run_dir.name}` first")
    return read_json(path)


def measured_columns(summaries: Iterable[dict[str, Any]]) -> list[str]:
    """The columns that every method of all summaries has, in their order: without identity where no network fits."""
    methods = [values for summary in summaries for values in summary["methods"].values()]
    return [column for column in COLUMN_FORMATS if all(column in values for values in methods)]


def summary_table(summary: dict[str, Any]) -> str:
    """The means of all methods, the first column their names."""
    columns = measured_columns([summary])
    header = ["method", *(COLUMN_FORMATS[column][0] for column in columns)]
    rows = [
        [LABELS[name], *(format(values[column], COLUMN_FORMATS[column][1]) for column in columns)]
        for name, values in summary["methods"].items()
    ]
    count = summary["methods"]["w_avg"]["num_images"]
    loss = ", which the training loss uses too" if "id" in columns else ""
    note = (
        f"Means over {count} images. MSE and PSNR on [-1, 1]; LPIPS-AlexNet; identity: {summary['identity']}{loss}; "
        f"time: median seconds to invert and reconstruct one image, "
        f"{', '.join(summary['devices'])}, {summary['threads']} threads."
    )
    return table(header, rows, note)


def picture_sections(config: EvaluateConfig, run: TrainConfig) -> list[Section]:
    """Grids of the first test images, by W+ and, for GOAE, by the full method, the run's own and the shipped one."""
    goae = run_encoder(run).goae
    device = goae.generator.w_avg.device
    batch = {name: value.to(device) for name, value in stack(read_samples(run, NUM_SHOWN)).items()}
    caption = "Each row: input, reconstruction, views from -30 and +30 degrees, depth (near is white)."
    shown = [("W+ inversions", goae, False), ("Refined inversions", goae, True)][: len(finished_stages(run))]
    if config.shipped:
        shown.append(("Refined inversions, shipped weights", shipped_inverter(config, run).goae, True))
    pictures = [(title, preview(model, batch, refine=refine)) for title, model, refine in shown]
    return [Section(title, picture(_png(images), caption)) for title, images in pictures]


def curve_sections(run_dir: Path, stages: tuple[str, ...]) -> list[Section]:
    """Loss and validation curves of each stage."""
    sections = []
    for stage in stages:
        rows = read_metrics(run_dir, stage)
        png = curves_png(rows, f"stage: {stage}")
        sections.append(Section(f"Curves of stage {stage}", picture(png, "Unweighted terms; val/ on held-out images.")))
    return sections


def _png(images: Tensor, scale: int = 2) -> bytes:
    sheet = Image.fromarray(grid(images, columns=COLUMNS))
    buffer = io.BytesIO()
    sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST).save(buffer, format="png")
    return buffer.getvalue()
