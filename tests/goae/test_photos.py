"""Photos at the door of the Inverter."""

import numpy as np
import pytest
import torch
from PIL import Image

from goae.photos import photos


def test_photos_of_every_kind() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    full, small = photos(picture, 64, 32)
    assert full.shape == (1, 3, 64, 64) and small.shape == (1, 3, 32, 32)
    torch.testing.assert_close(full[0], torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1)
    bicubic = np.asarray(picture.resize((32, 32), Image.Resampling.BICUBIC)).copy()
    torch.testing.assert_close(small[0], torch.from_numpy(bicubic).permute(2, 0, 1) / 127.5 - 1)
    for other in (pixels, pixels[None], [picture]):
        assert torch.equal(photos(other, 64, 32)[1], small)
    assert photos([picture, pixels], 64, 32)[0].shape == (2, 3, 64, 64)
    torch.testing.assert_close(photos(full, 64, 32)[1], small, atol=1.01 / 127.5, rtol=0)  # ties, by one level
    torch.testing.assert_close(photos(full, 32, 32)[0], torch.nn.functional.avg_pool2d(full, 2))
    assert photos(full[0], 48, 32)[0].shape == (1, 3, 48, 48)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("L", (64, 64)), "mode L"),
        (Image.new("RGBA", (64, 64)), "mode RGBA"),
        (Image.new("RGB", (64, 48)), "64 x 48"),
        (np.zeros((64, 64), np.uint8), "expected uint8"),
        (np.zeros((64, 64, 3), np.float32), "expected uint8"),
        (torch.zeros(1, 3, 64, 48), "48 x 64"),
        (torch.zeros(1, 1, 64, 64), "expected float"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "expected float"),
        (torch.full((1, 3, 64, 64), 255.0), "reaches 255"),
        ([], "no image"),
    ],
)
def test_bad_photos_are_refused(image: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        photos(image, 64, 32)  # type: ignore[arg-type]
