"""Pictures of planes, and what Fig. 3 shows where."""

import io
from itertools import pairwise

import numpy as np
import torch
from PIL import Image

from goae.viz.figures import ConditionRow, figure_3, plane_pictures


def test_planes_are_stretched_means_with_the_second_axis_upwards() -> None:
    ramp = torch.arange(8.0).view(8, 1).expand(8, 8)  # row 0 is the lowest coordinate
    planes = torch.stack([ramp, ramp.T, 100 + 5 * ramp])[:, None].repeat(1, 4, 1, 1)
    planes[:, 0] -= 3.0
    planes[:, 1] += 3.0  # channels differ, their mean does not
    shown = plane_pictures(planes)
    assert shown.shape == (3, 3, 8, 8) and shown.min() == -1 and shown.max() == 1
    assert bool((shown[0, :, 0] == 1).all()) and bool((shown[0, :, -1] == -1).all())  # the highest row on top
    assert bool((shown[1, :, :, 0] == -1).all()) and bool((shown[1, :, :, -1] == 1).all())
    assert torch.allclose(shown[2], shown[0], atol=1e-5)
    assert torch.equal(plane_pictures(torch.zeros(3, 2, 4, 4)), -torch.ones(3, 3, 4, 4))


def row(colour: float, depth: float) -> ConditionRow:
    planes = torch.rand(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return ConditionRow(torch.full((2, 3, 8, 8), colour), torch.full((2, 1, 4, 4), depth), planes)


def test_a_row_per_condition_with_depths_on_one_scale() -> None:
    rows = {"left": row(-1.0, 2.5), "front": row(1.0, 3.0)}
    captions = {"left": "gap 0.1", "front": "gap 0.2"}
    pixels = np.array(Image.open(io.BytesIO(figure_3(rows, [-45.0, 0.0], "xy,xz,zy", captions=captions))).convert("L"))
    height, width = pixels.shape
    assert width > 2.5 * height  # seven columns, two rows

    def frames(line: np.ndarray) -> list[int]:
        """Grey of the long plain runs in a row of pixels, from the left."""
        edges = [0, *(np.flatnonzero(np.diff(line.astype(int))) + 1).tolist(), len(line)]
        return [int(line[a]) for a, b in pairwise(edges) if b - a > width // 12]

    top, bottom = frames(pixels[int(height * 0.3)]), frames(pixels[int(height * 0.8)])
    # black images and near, white depths; then white images and far, black depths
    assert [grey for grey in top if grey < 128] == [0, 0]
    assert [grey for grey in bottom if grey < 128] == [0, 0] and bottom.index(0) > top.index(0)
