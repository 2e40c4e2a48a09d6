"""Block diagrams and lists of modules as pictures."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")  # no display needed
import matplotlib.pyplot as plt
from matplotlib.figure import Figure


class Box(NamedTuple):
    """A block in column x and row y, both counted from the upper left."""

    x: float
    y: float
    text: str


def block_diagram(boxes: dict[str, Box], arrows: Sequence[tuple[str, str]], *, caption: str) -> bytes:
    """PNG of named boxes and arrows between them. Raises: KeyError for an arrow of a box that is not there."""
    width, height = (max(getattr(box, axis) for box in boxes.values()) + 1 for axis in ("x", "y"))
    figure, axis = plt.subplots(figsize=(1.75 * width, 1.1 * height + 0.4), layout="constrained")
    axis.set_xlim(-0.6, width - 0.4)
    axis.set_ylim(height - 0.4, -0.6)
    frame = {"boxstyle": "round,pad=0.4", "facecolor": "#eef3fa", "edgecolor": "0.3"}
    patches = {}
    for name, box in boxes.items():
        text = axis.text(box.x, box.y, box.text, ha="center", va="center", fontsize=7, bbox=frame)
        patches[name] = text.get_bbox_patch()
    figure.canvas.draw()  # the frames get their sizes, where arrows end
    for start, end in arrows:
        style = {"arrowstyle": "-|>", "color": "0.4", "patchA": patches[start], "patchB": patches[end]}
        axis.annotate("", xytext=boxes[start][:2], xy=boxes[end][:2], arrowprops=style)
    axis.axis("off")
    figure.supxlabel(caption, fontsize=7)
    return _png(figure)


def listings(columns: dict[str, list[str]], *, caption: str) -> bytes:
    """PNG of lines of text in columns, each below its heading."""
    lines = max(len(column) for column in columns.values())
    figure, axes = plt.subplots(
        1, len(columns), figsize=(4.4 * len(columns), 0.115 * lines + 0.9), squeeze=False, layout="constrained"
    )
    for axis, (title, column) in zip(axes[0], columns.items(), strict=True):
        axis.set_title(title, fontsize=8)
        axis.text(0, 1, "\n".join(column), va="top", family="monospace", fontsize=6.5, transform=axis.transAxes)
        axis.axis("off")
    figure.supxlabel(caption, fontsize=7)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    plt.close(figure)
    return buffer.getvalue()
