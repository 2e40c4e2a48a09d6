"""How right the geometry is: the paper's error against a pseudo-depth (Sec. 5.1), and that against a true depth.

The paper takes a face reconstruction network's depth for the truth and compares after both maps are brought to zero
mean and unit variance, so that neither scale nor place counts. All maps here grow with the distance from the camera;
renders have it along the ray, rasters of a mesh along the camera's axis.
Where a reference comes from is a `Reference`: the mini world's true depth, a folder of maps, or any network. Procedural
heads have a true depth, from which the error along the ray is in scene units.
"""

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from eg3d.arrays import read_arrays
from eg3d.cameras import split_label
from eg3d.rendering.rays import rays
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, interpolate

# What a stored map holds: distance from the camera's centre or z along its axis, both growing away from it, or height,
# which grows towards it along the axis.
SIGNS = ("distance", "z", "height")


class DepthMap(NamedTuple):
    """depth (B, 1, H, W), larger is farther; region (B, 1, H, W) bool, where it is known; empty if there is no map.

    axial: whether depth is z along the camera's axis, not the distance along the ray.
    """

    depth: Tensor
    region: Tensor
    axial: bool = False


class Reference(Protocol):
    """What depth an image should have."""

    def __call__(self, batch: Mapping[str, Any]) -> DepthMap:
        """The depth of a batch of a data set: image (B, 3, H, H), name (list), and the extras it was read with."""


def geometry_error(depth: Tensor, reference: DepthMap, grid: int) -> Tensor:
    """Mean squared difference of both depths inside the region, each normalised over it: (B,), 0 up to 4.

    Args:
        depth: (B, 1, h, w) of the render, along the ray.
        reference: of another size if need be; both are brought to grid x grid pixels.
    Returns: NaN for images whose region has fewer than two pixels or whose depth does not vary over it.
    """
    reference = on_grid(reference, grid)
    shown = on_grid(DepthMap(depth, torch.ones_like(depth, dtype=torch.bool)), grid).depth
    difference = _normalised(shown, reference.region) - _normalised(reference.depth, reference.region)
    return _mean(difference.square(), reference.region)


def along_axis(depth: Tensor, c: Tensor) -> Tensor:
    """Depth (B, 1, R, R) along the ray -> z along the axis of cameras c (B, 25), of which the intrinsics count."""
    cam2world, intrinsics = split_label(c.to(depth))
    _, directions = rays(cam2world, intrinsics, depth.shape[-1])
    return depth * (directions @ cam2world[:, :3, 2, None]).view_as(depth)


def depth_errors(depth: Tensor, true_depth: Tensor, parts: Tensor) -> Tensor:
    """Mean absolute difference along the ray inside the true head, scene units: one number per image.

    A ray of a smaller render goes through the middle of k x k pixels of the truth. It is compared with their mean, and
    counts where all of them show the head.

    Args:
        depth: (B, 1, r, r), along the ray.
        true_depth, parts: (B, 1, k r, k r); parts are labels, 0 is background.
    Returns: (B,); not-a-number where no ray counts.
    Raises: ValueError if the truth's size is no multiple of the render's.
    """
    size, side = true_depth.shape[-1], depth.shape[-1]
    if size % side or true_depth.shape != parts.shape or len(depth) != len(parts):
        raise ValueError(
            f"depth {tuple(depth.shape)} cannot be compared with true depth {tuple(true_depth.shape)} and parts "
            f"{tuple(parts.shape)}; expected equal batches, and a truth of a multiple of the render's size"
        )
    step = size // side
    true = avg_pool2d(true_depth.to(depth), step)
    head = avg_pool2d((parts > 0).to(depth), step) == 1
    off = torch.where(head, (depth - true).abs(), torch.zeros_like(depth))
    return off.flatten(1).sum(1) / head.flatten(1).sum(1)


def on_grid(found: DepthMap, grid: int) -> DepthMap:
    """Both maps at grid x grid: larger ones by averaging, smaller ones by bilinear interpolation.

    A pixel of the grid is known where all that it is made from is, so that silhouettes stay out.
    """
    if found.depth.shape != found.region.shape or found.depth.shape[1] != 1:
        raise ValueError(f"depth {tuple(found.depth.shape)}, region {tuple(found.region.shape)}; expected (B, 1, H, W)")
    if found.depth.shape[2:] == (grid, grid):
        return found

    def resized(x: Tensor) -> Tensor:
        if min(x.shape[2:]) > grid:
            return adaptive_avg_pool2d(x, grid)
        return interpolate(x, (grid, grid), mode="bilinear", align_corners=False)

    known = resized(found.region.to(found.depth.dtype)) > 1 - 1e-6
    return DepthMap(resized(torch.where(found.region, found.depth, 0)), known)


class TrueDepth:
    """The mini world's own depth inside the head, from samples with the extras `depth` and `parts`."""

    def __call__(self, batch: Mapping[str, Any]) -> DepthMap:
        return DepthMap(batch["depth"], batch["parts"] > 0)


class NetworkDepth:
    """Any network: images (B, 3, H, H) in [-1, 1] to depth and region, such as a face reconstruction's raster."""

    def __init__(self, network: Callable[[Tensor], tuple[Tensor, Tensor]], *, axial: bool = False) -> None:
        """`axial`: whether its depth is z along the camera's axis, as a raster's is."""
        self.network, self.axial = network, axial

    def __call__(self, batch: Mapping[str, Any]) -> DepthMap:
        depth, region = self.network(batch["image"])
        return DepthMap(depth, region.bool(), self.axial)


class DepthFolder:
    """Maps that some other program wrote: `<image name without its ending>.npz` with `depth` (H, W), NaN outside.

    A map that is missing or has no known pixel counts as a failure of whatever wrote the folder, not of the method.
    """

    def __init__(self, path: str | Path, sign: str = "distance") -> None:
        """`sign`: what the maps hold, one of `SIGNS`.

        Raises: FileNotFoundError if there is no such folder or no map in it; ValueError for another sign.
        """
        self.path = Path(path)
        if sign not in SIGNS:
            raise ValueError(f"metrics.geometry_sign is {sign!r}; expected one of {', '.join(SIGNS)}")
        if not any(self.path.rglob("*.npz")):
            raise FileNotFoundError(
                f"there is no depth map in {self.path}: expected <image name>.npz with `depth` (H, W), NaN outside of "
                "the face, for the images of the data set; set pseudo_depth.input_view= or "
                "pseudo_depth.novel_view= to the folder that holds them, or metrics.geometry=none"
            )
        self.factor = -1.0 if sign == "height" else 1.0
        self.axial = sign != "distance"

    def __call__(self, batch: Mapping[str, Any]) -> DepthMap:
        maps = [self._read(name) for name in batch["name"]]
        size = next((m.shape for m in maps if m is not None), (1, 1))
        rows = [torch.full(size, float("nan")) if m is None else m for m in maps]
        if any(row.shape != size for row in rows):
            raise ValueError(f"the depth maps in {self.path} differ in size: {sorted({tuple(r.shape) for r in rows})}")
        depth = torch.stack(rows)[:, None].to(batch["image"])
        return DepthMap(torch.nan_to_num(depth) * self.factor, ~torch.isnan(depth), self.axial)

    def _read(self, name: str) -> Tensor | None:
        file = self.path / PurePosixPath(name).with_suffix(".npz")
        if not file.exists():
            return None
        arrays = read_arrays(file, remedy="Make the map again, as `depth` (H, W), NaN outside of the face.")
        depth = arrays.get("depth", np.empty(0))
        if depth.ndim != 2:
            raise ValueError(f"{file} has no `depth` (H, W); it has {', '.join(arrays) or 'no arrays'}")
        return torch.from_numpy(depth.astype(np.float32))


def _mean(values: Tensor, region: Tensor) -> Tensor:
    """(B,) mean inside the region; NaN where it is empty."""
    return torch.where(region, values, 0).sum((1, 2, 3)) / region.sum((1, 2, 3))


def _normalised(depth: Tensor, region: Tensor) -> Tensor:
    """Zero mean and unit variance inside the region; in float64, since depths differ little from their mean."""
    depth = depth.double()
    centred = depth - _mean(depth, region).view(-1, 1, 1, 1)
    spread = _mean(centred.square(), region).sqrt()
    spread = torch.where(spread > 1e-9, spread, torch.full_like(spread, float("nan")))
    return centred / spread.view(-1, 1, 1, 1)
