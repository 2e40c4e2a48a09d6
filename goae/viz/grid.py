"""Images in rows and columns, and single images and depth maps as pictures."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_uint8(images: Tensor) -> np.ndarray:
    """Bring (..., 3, H, W) in [-1, 1] to uint8 (..., H, W, 3), rounded to the nearest value.

    Raises: ValueError for values that are not finite, which would turn black.
    """
    images = images.detach().float().cpu()
    if not images.isfinite().all():
        raise ValueError("a picture has values that are not finite; are there NaN or Inf in the weights?")
    scaled = (images.clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8).movedim(-3, -1).numpy()


def grid(images: Tensor, *, columns: int, gap: int = 2) -> np.ndarray:
    """(N, 3, H, W) in [-1, 1] as one uint8 picture (H', W', 3), row by row, white between them."""
    pixels = to_uint8(images)
    num, height, width, _ = pixels.shape
    rows = -(-num // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for i, picture in enumerate(pixels):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def save_grid(images: Tensor, path: Path, *, columns: int) -> None:
    """Write `grid` as a picture file; the folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grid(images, columns=columns)).save(path)


def depth_picture(depth: Tensor, *, near: float, far: float) -> Tensor:
    """Ray depth (B, 1, H, W) as grey (B, 3, H, W) in [-1, 1]: `near` is white, `far` black."""
    return (1 - 2 * ((depth - near) / (far - near)).clamp(0, 1)).expand(-1, 3, -1, -1)
