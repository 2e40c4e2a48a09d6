"""What was measured: as plain values, as a table, as a chart."""

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display needed
import matplotlib.pyplot as plt
from eg3d.integrity import replace_file
from rich.console import Console
from rich.table import Table

from goae.benchmark.figures import original_seconds
from goae.benchmark.machine import Machine
from goae.benchmark.measure import Measured, Side
from goae.benchmark.parts import BF16

Values = dict[str, Any]
FILE_WIDTH = 180  # columns of a table that is not shown on a terminal


def part_values(name: str, measured: Measured, machine: Machine, *, comparable: bool) -> Values:
    """A part's entry in the JSON.

    `ratio` is ref_s / ours_s. `limit_s` is the time of the counted FLOPs at the machine's rates, or of moving weights,
    inputs and outputs once, whichever is longer; `limit_share` is limit_s / ours_s. `original_s` is the released code's
    time on this machine, where it is known and the sizes are its own (`comparable`).
    """
    ref, ours, limit = measured.ref, measured.ours, limit_seconds(name, measured, machine)
    values = {
        "ref_s": ref.seconds,
        "ours_s": ours.seconds,
        "ratio": ref.seconds / ours.seconds,
        "ref_bytes": ref.bytes,
        "ours_bytes": ours.bytes,
        "limit_s": limit,
        "limit_share": limit / ours.seconds,
        "flops": measured.flops.total,
        "conv_flops": measured.flops.conv,
        "touched_bytes": measured.touched,
        "images": measured.images,
        **_runs("ref", ref, measured.images),
        **_runs("ours", ours, measured.images),
    }
    original = original_seconds(name, machine.rates.conv) if comparable and machine.device == "cpu" else None
    if original is not None:
        values |= {"original_s": original, "ref_to_original": ref.seconds / original}
    return values


def _runs(name: str, side: Side, images: int) -> Values:
    return {
        f"{name}_min_s": min(side.runs),
        f"{name}_max_s": max(side.runs),
        f"{name}_images_per_s": images / side.seconds,
        f"{name}_runs_s": side.runs,
    }


def limit_seconds(name: str, measured: Measured, machine: Machine) -> float:
    """max(conv FLOPs / conv rate + other FLOPs / matmul rate, bytes / copy rate)."""
    rates = (machine.rates_bf16 if name.endswith(BF16) else None) or machine.rates
    compute = measured.flops.conv / rates.conv + measured.flops.matmul / rates.matmul
    return max(compute, measured.touched / machine.copy)


def write_json(values: Values, path: Path) -> None:
    """Indented JSON, written beside and moved over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(values, indent=1) + "\n")


def table(parts: dict[str, Values], machine: Values) -> Table:
    """One row a part: medians, their range, ratio, peak memory, and how near the machine's limit it is."""
    title = f"{machine['name']}, {machine['threads']} threads: {rates_line(machine)}"
    made = Table(title=title)
    headings = ("ref s", "ours s", "ratio", "ref MB", "ours MB", "GFLOP", "limit s", "of limit", "ref/original")
    made.add_column("part")
    for heading in headings:
        made.add_column(heading, justify="right")
    for name, part in parts.items():
        made.add_row(name, *_cells(part))
    return made


def tell_check(values: Values) -> None:
    """Print what scripts/check_gpu.py has found: a table of sections, and one of the benchmark's parts."""
    console = Console() if Console().is_terminal else Console(width=FILE_WIDTH)
    sections = values["check"]
    made = Table("section", "seconds", "found", title=sections.get("environment", {}).get("gpu", "no GPU"))
    for name, section in sections.items():
        made.add_row(name, f"{section['seconds']:.0f}", "\n".join(_found(section)))
    console.print(made)
    if values.get("parts") and "machine" in values:
        console.print(table(values["parts"], values["machine"]))


def _found(section: Values) -> list[str]:
    """Say in lines what a section found; of training what it needs by batch, and hours."""
    if "skipped" in section or "failed" in section:
        told = [f"{word}: {section[word]}" for word in ("skipped", "failed") if word in section]
        return told + [f"{name}: {why.splitlines()[-1]}" for name, why in section.get("failures", {}).items() if why]
    if "step_s" not in section:
        return [", ".join(f"{k} {_short(v)}" for k, v in section.items() if k != "seconds")]
    others = {size: found for size, found in section["batches"].items() if "failed" not in found}
    return [
        f"batch {section['batch_size']}: {_rates(section)}; the schedule takes {section['hours']:.3g} h",
        f"validation beside it: {section['validation_bytes'] / 1e9:.2f} GB",
        *(f"batch {size}: {_rates(found)}" for size, found in others.items()),
        *(f"batch {size}: {found['failed']}" for size, found in section["batches"].items() if "failed" in found),
    ]


def _rates(found: Values) -> str:
    return (
        f"{found['step_s']:.3g} s a step, {found['images_per_s']:.3g} images/s, at most {found['bytes'] / 1e9:.2f} GB"
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _cells(part: Values) -> list[str]:
    original = part.get("ref_to_original")
    return [
        *(f"{part[f'{s}_s']:.3g} ({part[f'{s}_min_s']:.3g}-{part[f'{s}_max_s']:.3g})" for s in ("ref", "ours")),
        f"{part['ratio']:.2f}",
        *("-" if part[key] is None else f"{part[key] / 1e6:.0f}" for key in ("ref_bytes", "ours_bytes")),
        f"{part['flops'] / 1e9:.1f}",
        f"{part['limit_s']:.3g}",
        f"{part['limit_share']:.0%}",
        "-" if original is None else f"{original:.2f}",
    ]


def rates_line(machine: Values) -> str:
    """The measured limits in words."""
    rates = (
        f"matrix product {machine['matmul_gflops']:.0f} GFLOP/s, convolution {machine['conv_gflops']:.0f} GFLOP/s, "
        f"copy {machine['copy_gb_per_s']:.0f} GB/s"
    )
    return rates if machine["bf16"] else f"{rates}; no bfloat16 instructions"


def draw_chart(parts: dict[str, Values], machine: Values, path: Path) -> None:
    """Bars of reference and library, the machine's limit as a mark, the ratio as a number; seconds on a log scale."""
    figure, axis = plt.subplots(figsize=(9, 1.2 + 0.42 * len(parts)))
    rows = list(range(len(parts)))[::-1]
    for offset, key, label, color in ((0.2, "ref_s", "reference", "#b0b7c3"), (-0.2, "ours_s", "ours", "#2a6fb0")):
        axis.barh([row + offset for row in rows], [p[key] for p in parts.values()], 0.38, label=label, color=color)
    limits = [max(part["limit_s"], 1e-6) for part in parts.values()]
    axis.plot(limits, [row - 0.2 for row in rows], "|", color="#d1495b", markersize=9, label="machine's limit")
    for row, part in zip(rows, parts.values(), strict=True):
        axis.text(max(part["ref_s"], part["ours_s"]) * 1.05, row, f"{part['ratio']:.2f}x", va="center", fontsize=8)
    axis.set_yticks(rows, list(parts), fontsize=8)
    axis.set_xscale("log")
    axis.margins(x=0.12)
    axis.set_xlabel("seconds (median)")
    axis.set_title(f"{machine['name']}, {machine['threads']} threads\n{rates_line(machine)}", fontsize=9)
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)
