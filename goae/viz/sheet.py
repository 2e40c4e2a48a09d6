"""Pictures in labelled rows and columns, with a caption."""

import io
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")  # no display needed
import matplotlib.pyplot as plt
from torch import Tensor

from goae.viz.grid import to_uint8


def sheet(
    rows: Sequence[Sequence[Tensor | None]], columns: Sequence[str], labels: Sequence[str], *, caption: str
) -> bytes:
    """PNG of pictures (3, H, W) in [-1, 1]; None leaves a place empty.

    Args:
        columns: what stands above each column.
        labels: what stands left of each row.
        caption: below everything; longer ones are wrapped.
    """
    width, height = 1.25 * len(columns) + 1.0, 1.25 * len(rows) + 0.8
    figure, axes = plt.subplots(len(rows), len(columns), figsize=(width, height), squeeze=False, layout="constrained")
    for line, pictures, label in zip(axes, rows, labels, strict=True):
        for axis, picture in zip(line, pictures, strict=True):
            axis.set_xticks([])
            axis.set_yticks([])
            if picture is None:
                axis.set_frame_on(False)
            else:
                axis.imshow(to_uint8(picture))
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=7)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title, fontsize=7)
    figure.supxlabel(caption, fontsize=7, wrap=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    plt.close(figure)
    return buffer.getvalue()
