"""Loss and validation curves as a picture."""

import io

import matplotlib

matplotlib.use("Agg")  # no display needed
import matplotlib.pyplot as plt

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
    count = max(len(found), 1)
    figure, axes = plt.subplots(
        -(-count // columns), columns, figsize=(3.2 * columns, 2.2 * -(-count // columns)), squeeze=False
    )
    for axis in axes.flat[len(found) :]:
        axis.axis("off")
    for axis, (name, (steps, values)) in zip(axes.flat, found.items(), strict=False):
        axis.plot(steps, values, marker="." if len(steps) < 20 else "", linewidth=1)
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return buffer.getvalue()
