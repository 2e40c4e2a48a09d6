"""Loss and validation curves as a picture."""

import io

import matplotlib

matplotlib.use("Agg")  # no display needed
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

Rows = list[dict[str, float]]


def series(rows: Rows) -> dict[str, tuple[list[float], list[float]]]:
    """Metric rows to name -> (steps, values)."""
    out: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in ("step", "seconds"):
                steps, values = out.setdefault(name, ([], []))
                steps.append(row["step"])
                values.append(value)
    return out


def curves_png(rows: Rows, title: str, *, columns: int = 4) -> bytes:
    """One small panel per metric."""
    found = series(rows)
    figure, axes = panels(len(found), columns)
    for axis, (name, (steps, values)) in zip(axes.flat, found.items(), strict=False):
        axis.plot(steps, values, marker="." if len(steps) < 20 else "", linewidth=1)
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
    return finished(figure, title)


def overlaid_png(curves: dict[str, list[Rows]], title: str, *, prefix: str, columns: int = 3) -> bytes:
    """One panel per metric whose name starts with `prefix`; a colour per name, a line per run of that name."""
    found = {name: [series(rows) for rows in runs] for name, runs in curves.items()}
    metrics = sorted({m for runs in found.values() for run in runs for m in run if m.startswith(prefix)})
    figure, axes = panels(len(metrics), columns)
    for axis, metric in zip(axes.flat, metrics, strict=False):
        for number, (name, runs) in enumerate(found.items()):
            for i, (steps, values) in enumerate(run[metric] for run in runs if metric in run):
                label = name if i == 0 else None
                axis.plot(steps, values, color=f"C{number % 10}", linewidth=1, label=label, marker=".")
        axis.set_title(metric, fontsize=9)
        axis.tick_params(labelsize=7)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", fontsize=7, ncols=2)
    return finished(figure, title)


def panels(count: int, columns: int) -> tuple[Figure, np.ndarray]:
    """A figure with `count` panels."""
    rows = -(-max(count, 1) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.2 * columns, 2.2 * rows + 0.6), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[count:]:
        axis.axis("off")
    return figure, axes


def finished(figure: Figure, title: str) -> bytes:
    """The figure as PNG, under its title."""
    figure.suptitle(title, fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return buffer.getvalue()
