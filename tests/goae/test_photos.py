"""Photos at the door of the Inverter."""

from pathlib import Path

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
        (Image.new("CMYK", (64, 64)), "mode CMYK"),
        (Image.new("I;16", (64, 64)), "mode I;16"),
        (Image.new("F", (64, 64)), "mode F"),
        (Image.new("RGBA", (64, 64)), "mode RGBA and transparent parts"),
        (Image.new("RGB", (64, 48)), "64 x 48"),
        (np.zeros((64, 64), np.uint8), "expected uint8"),
        (np.zeros((64, 64, 3), np.float32), "expected uint8"),
        (torch.zeros(1, 3, 64, 48), "48 x 64"),
        (torch.zeros(1, 1, 64, 64), "expected float"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "expected float"),
        (torch.full((1, 3, 64, 64), 255.0), "reaches 255"),
        ([], "no image"),
        (np.zeros((0, 64, 64, 3), np.uint8), "no image"),
        (np.zeros((64, 64, 4), np.uint8), "expected uint8"),
        (np.zeros((3, 64, 64), np.uint8), "expected uint8"),
        (np.array([None]), "expected uint8"),
        (np.zeros((0, 0, 3), np.uint8), "0 x 0"),
        (torch.zeros(1, 3, 0, 0), "0 x 0"),
        (torch.full((3, 64, 64), float("nan")), "reaches nan"),
        (torch.zeros(3, 64, 64).to_sparse(), "expected float"),
        (None, "is None; expected float tensors"),
        (7, "type int; expected float tensors"),
        (b"png", "type bytes; expected"),
        ({"image": torch.zeros(3, 64, 64)}, "type dict; expected"),
        ([None], "is None; expected"),
    ],
)
def test_bad_photos_are_refused(image: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        photos(image, 64, 32)  # type: ignore[arg-type]


def test_lists_of_tensors_and_paths_are_taken(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = photos(pixels, 64, 32)
    for given in (tmp_path / "a.png", str(tmp_path / "a.png"), [tmp_path / "a.png"]):
        assert all(torch.equal(a, b) for a, b in zip(photos(given, 64, 32), expected, strict=True))
    batch = torch.rand(2, 3, 64, 64) * 2 - 1
    for listed in (list(batch), tuple(batch), [batch[:1], batch[1]]):
        assert all(torch.equal(a, b) for a, b in zip(photos(listed, 64, 32), photos(batch, 64, 32), strict=True))
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"b\.png cannot be read as an image"):
        photos(tmp_path / "b.png", 64, 32)
    for path in (tmp_path, tmp_path / "none.png"):
        with pytest.raises(FileNotFoundError, match="no image file"):
            photos(path, 64, 32)


def test_photos_are_turned_and_grey_ones_are_shown_in_rgb(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    shown = photos(np.rot90(pixels, -1).copy(), 64, 32)[0]
    assert torch.equal(photos(Image.open(tmp_path / "a.png"), 64, 32)[0], shown)
    assert torch.equal(photos(tmp_path / "a.png", 64, 32)[0], shown)
    grey = Image.fromarray(pixels).convert("L")
    assert torch.equal(photos(grey, 64, 32)[0], photos(grey.convert("RGB"), 64, 32)[0])
    assert torch.equal(photos(Image.fromarray(pixels).convert("RGBA"), 64, 32)[0], photos(pixels, 64, 32)[0])


def test_images_between_0_and_1_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    image = torch.rand(2, 3, 64, 64)
    photos(image * 2 - 1, 64, 32)
    assert not caplog.messages
    photos(torch.stack([image[0], image[1] * 2 - 1]), 64, 32)
    assert "no value below 0" in caplog.messages[0]
