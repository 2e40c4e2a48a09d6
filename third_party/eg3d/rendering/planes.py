"""Looking up three feature planes at points in space (EG3D, Sec. 3.2).

Which two coordinates a plane sees is written as three pairs, the first of a pair running along the plane's width. The
paper means the planes xy, xz and yz; the published networks were trained with "xy,xz,zx", in which the last two planes
span the same directions and y is seen by the first plane alone. That is the default, and released weights need it;
"xy,xz,zy" is the corrected form. Nothing is flipped: larger coordinates are larger columns and rows.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

PUBLISHED_AXES = "xy,xz,zx"
CORRECTED_AXES = "xy,xz,zy"
_NAMES = "xyz"
HALF = torch.float16  # of planes that are looked up in half precision: 11 bits, numbers up to 65504


def parse_axes(axes: str) -> list[tuple[int, int]]:
    """ "xy,xz,zx" -> [(0, 1), (0, 2), (2, 0)]: for each plane the coordinates along its width and its height.

    Raises: ValueError unless these are three pairs of two different letters of x, y, z.
    """
    pairs = axes.split(",")
    good = len(pairs) == 3 and all(len(p) == 2 and p[0] != p[1] and set(p) <= set(_NAMES) for p in pairs)
    if not good:
        raise ValueError(
            f"plane_axes is {axes!r}, expected three pairs of different letters of x, y, z such as "
            f"{PUBLISHED_AXES!r} (published networks) or {CORRECTED_AXES!r} (corrected)"
        )
    return [(_NAMES.index(p[0]), _NAMES.index(p[1])) for p in pairs]


def axes_from_matrix(plane_axes: Tensor) -> str:
    """The pairs that a checkpoint's `plane_axes` stands for: coordinates are the first two components of q A⁻¹.

    Args:
        plane_axes: (3, 3, 3), for each plane a matrix A whose rows are axis vectors.
    Raises: ValueError if a coordinate is not one of the axes x, y, z.
    """
    if tuple(plane_axes.shape) != (3, 3, 3):
        raise ValueError(f"plane_axes has shape {tuple(plane_axes.shape)}, expected (3, 3, 3)")
    columns = torch.linalg.inv(plane_axes.double())[:, :, :2]
    index = columns.argmax(dim=1)
    if not torch.allclose(columns, torch.nn.functional.one_hot(index, 3).transpose(1, 2).double(), atol=1e-6):
        raise ValueError(f"plane_axes {plane_axes.tolist()} does not consist of permutations of the axes x, y, z")
    axes = ",".join(_NAMES[int(a)] + _NAMES[int(b)] for a, b in index)
    parse_axes(axes)
    return axes


def project(points: Tensor, axes: str) -> Tensor:
    """Points (B, K, 3) -> their coordinates on each plane (B, 3, K, 2): first along the width, then the height."""
    x = points.unbind(-1)
    return torch.stack([torch.stack([x[a], x[b]], dim=-1) for a, b in parse_axes(axes)], dim=1)


def sample_planes(planes: Tensor, points: Tensor, *, axes: str, box_warp: float) -> Tensor:
    """Features of each plane at the points: bilinear, zero outside of the plane.

    Args:
        planes: (B, 3, C, H, W); pixels are areas (`align_corners=False`).
        points: (B, K, 3), scene units; the cube of side `box_warp` around the origin fills the planes.
    Returns: (B, 3, K, C), a transposed view of channels-first memory.
    """
    return _lookup(planes, points, axes, box_warp).transpose(2, 3)


def mean_features(planes: Tensor, points: Tensor, *, axes: str, box_warp: float) -> Tensor:
    """The mean over the three planes of `sample_planes`: (B, K, C). Outside points divide by three as well."""
    return _lookup(planes, points, axes, box_warp).mean(dim=1).transpose(1, 2)


def round_planes(planes: Tensor) -> Tensor:
    """Planes with values of half precision, in the type they came in; gradients pass as they are."""
    return _Rounding.apply(planes)


class _Rounding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, planes: Tensor) -> Tensor:
        return planes.to(HALF).to(planes.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def _lookup(planes: Tensor, points: Tensor, axes: str, box_warp: float) -> Tensor:
    """Features (B, 3, C, K)."""
    batch, num_planes, channels = planes.shape[:3]
    if num_planes != 3 or points.shape[0] != batch:
        raise ValueError(
            f"planes {tuple(planes.shape)} and points {tuple(points.shape)}: expected (B, 3, C, H, W), (B, K, 3)"
        )
    grid = project(points * (2 / box_warp), axes).flatten(0, 1).unsqueeze(1)
    features = grid_sample(planes.flatten(0, 1), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return features.view(batch, num_planes, channels, -1)
