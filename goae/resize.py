"""How images reach an encoder: PIL's bicubic filter, by which the released encoder's were resized."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate


@torch.no_grad()
def pil_bicubic(image: Tensor, size: int) -> Tensor:
    """Images (B, C, H, W) in [-1, 1] -> (B, C, size, size), as PIL's default resize of their 8-bit pixels.

    Like PIL it goes along rows, then along columns, and rounds to 8 bits after each; pixels are brought to 8 bits
    first. Where a value is half-way between two levels, PIL's fixed point may round the other way. Images of that size
    come back as they are. No gradients.
    """
    if image.shape[-2:] == (size, size):
        return image
    levels = _levels((image + 1) * 127.5)
    for shape in ((levels.shape[-2], size), (size, size)):
        levels = _levels(interpolate(levels, shape, mode="bicubic", antialias=True, align_corners=False))
    return levels / 127.5 - 1


def _levels(x: Tensor) -> Tensor:
    return x.round().clamp(0, 255)
