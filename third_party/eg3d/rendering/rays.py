"""Rays through the pixel centres of a camera (EG3D, Sec. 4: neural rendering at resolution R)."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def rays(cam2world: Tensor, intrinsics: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """One ray per pixel, row by row: ray i * resolution + j goes through the middle of row i, column j.

    Args:
        cam2world: (B, 4, 4), OpenCV axes.
        intrinsics: (B, 3, 3), divided by the image size; a skew is obeyed.
        resolution: pixels along each side.
    Returns: ray_origins (B, M, 3) and ray_directions (B, M, 3), M = resolution²; directions have length 1, so depths
        along them are distances from the camera's centre.
    """
    if resolution < 1:
        raise ValueError(f"resolution must be at least 1, but is {resolution}")
    with _in_full(cam2world.device):  # directions of three digits would blur the picture
        return _rays(cam2world, intrinsics, resolution)


def _in_full(device: torch.device) -> AbstractContextManager[object]:
    """Switch autocast off, on devices that have it."""
    has_it = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if has_it else nullcontext()


def _rays(cam2world: Tensor, intrinsics: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    x, y = _pixel_centres(resolution, cam2world)
    fx, fy = intrinsics[:, 0, 0, None], intrinsics[:, 1, 1, None]
    cx, cy, skew = intrinsics[:, 0, 2, None], intrinsics[:, 1, 2, None], intrinsics[:, 0, 1, None]
    x_camera = (x - cx + cy * skew / fy - skew * y / fy) / fx
    y_camera = (y - cy) / fy
    in_camera = torch.stack([x_camera, y_camera, torch.ones_like(x_camera)], dim=-1)
    directions = torch.nn.functional.normalize(in_camera @ cam2world[:, :3, :3].transpose(1, 2), dim=-1)
    return cam2world[:, None, :3, 3].expand_as(directions), directions


def _pixel_centres(resolution: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """x and y (M,) of the pixel centres, in (0, 1)."""
    centres = (torch.arange(resolution, dtype=like.dtype, device=like.device) + 0.5) / resolution
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return x.reshape(-1), y.reshape(-1)
