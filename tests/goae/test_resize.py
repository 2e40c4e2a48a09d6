"""PIL's resize on tensors."""

import numpy as np
import pytest
import torch
from PIL import Image

from goae.resize import pil_bicubic


@pytest.mark.parametrize(("side", "size"), [(512, 256), (64, 48), (100, 256)])
def test_tensors_are_resized_as_pil_resizes(side: int, size: int) -> None:
    """Up to the level that PIL's fixed point rounds to half-way between two; edges overshoot and are cut off."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    pixels[: side // 2, : side // 3] = 255
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    found = ((pil_bicubic(image, size)[0].permute(1, 2, 0) + 1) * 127.5).round().numpy()
    off = np.abs(found - np.asarray(Image.fromarray(pixels).resize((size, size)), dtype=float))
    assert off.max() <= 1 and (off > 0).mean() < 0.005
