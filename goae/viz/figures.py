"""The paper's figures, drawn from what was computed elsewhere."""

import io
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")  # no display needed
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from goae.viz.grid import depth_picture, to_uint8


class ConditionRow(NamedTuple):
    """A row of Fig. 3: one head's images (V, 3, H, W), depths (V, 1, R, R) and planes (3, C, P, P)."""

    images: Tensor
    depths: Tensor
    planes: Tensor


def plane_pictures(planes: Tensor) -> Tensor:
    """Channel means of planes (3, C, P, P) as grey (3, 3, P, P) in [-1, 1], the second axis upwards.

    Each plane is stretched between its percentiles 1 and 99, so that a few texels do not darken the rest.
    """
    mean = planes.detach().float().cpu().mean(1)
    low, high = (torch.quantile(mean.flatten(1), q, dim=1)[:, None, None] for q in (0.01, 0.99))
    grey = 2 * ((mean - low) / (high - low).clamp_min(1e-12)).clamp(0, 1) - 1
    return grey.flip(-2)[:, None].expand(-1, 3, -1, -1)


def figure_3(rows: dict[str, ConditionRow], yaws: list[float], plane_axes: str, *, captions: dict[str, str]) -> bytes:
    """Fig. 3 as PNG: a row per pose condition; multi-view images, depth maps (near is white), the three planes.

    All depth maps share one scale, from the nearest to the farthest point that any of them shows.

    Args:
        rows: condition -> its pictures.
        yaws: degrees of the V cameras.
        plane_axes: names of the planes, separated by commas.
        captions: condition -> what stands below its name.
    """
    titles = [*(f"{yaw:g}°" for yaw in yaws), *(f"depth {yaw:g}°" for yaw in yaws)]
    titles += [f"plane {name}" for name in plane_axes.split(",")]
    everything = torch.cat([row.depths for row in rows.values()])
    near, far, width = float(everything.min()), float(everything.max()), len(titles)
    figure, axes = plt.subplots(len(rows), width, figsize=(1.15 * width + 1.3, 1.3 * len(rows)), squeeze=False)
    for line, (name, row) in zip(axes, rows.items(), strict=True):
        depths = depth_picture(row.depths.cpu(), near=near, far=far)
        pictures: list[np.ndarray] = [*to_uint8(row.images), *to_uint8(depths), *to_uint8(plane_pictures(row.planes))]
        for axis, picture in zip(line, pictures, strict=True):
            axis.imshow(picture)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(f"{name}\n{captions[name]}", rotation=0, ha="right", va="center", fontsize=7)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=7)
    figure.tight_layout(pad=0.4)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    plt.close(figure)
    return buffer.getvalue()
