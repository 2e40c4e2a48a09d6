"""The decoder of pictures: what it turns, what it refuses, and damaged files."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mutations import survives
from PIL import Image, PngImagePlugin

from goae.data.decoding import as_photo, decode, find_faults, photo_fault, raise_faults, set_fault
from goae.data.sources import open_source

SIDE = 16
PIXELS = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # stored pixels to those that a viewer shows
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def picture(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(PIXELS).convert(mode)


def encoded(image: Image.Image, form: str = "png", **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def tagged(orientation: int, form: str = "png") -> bytes:
    """A file whose EXIF says how to turn it; of 6 KB, so that the first bytes alone do not tell."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, "x" * 6000
    return encoded(picture(), form, exif=exif, **({"quality": 95} if form == "jpeg" else {"lossless": True}))


def late_tag() -> bytes:
    """A PNG that names its orientation behind the pixels, where a look at the header does not reach."""
    plain, exif = encoded(picture()), Image.Exif()
    exif[0x0112] = 6
    chunk = io.BytesIO()
    PngImagePlugin.putchunk(chunk, b"eXIf", exif.tobytes()[6:])
    return plain[:-12] + chunk.getvalue() + plain[-12:]


def faults_of(files: dict[str, bytes], path: Path, resolution: int | None = None) -> list[str]:
    with zipfile.ZipFile(path / "set.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    found = find_faults(open_source(path / "set.zip"), list(files), lambda header: set_fault(header, resolution))
    return [told for told in found if told]


@pytest.mark.parametrize("orientation", TURNS)
def test_images_are_turned_as_viewers_show_them(orientation: int) -> None:
    shown = TURNS[orientation](PIXELS)
    for form in ("png", "webp"):
        np.testing.assert_array_equal(np.asarray(decode(tagged(orientation, form), "a")), shown)
    stored = np.asarray(Image.open(io.BytesIO(tagged(orientation, "jpeg"))))
    np.testing.assert_array_equal(np.asarray(decode(tagged(orientation, "jpeg"), "a")), TURNS[orientation](stored))


@pytest.mark.parametrize("orientation", [0, 9, 600])
def test_a_tag_without_meaning_is_passed_over(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode(encoded(picture(), exif=exif), "a"), PIXELS)
    np.testing.assert_array_equal(decode(encoded(picture(), exif=b"Exif\0\0nothing"), "a"), PIXELS)


def test_data_sets_refuse_a_turned_image(tmp_path: Path) -> None:
    for form in ("png", "jpeg", "webp"):
        (told,) = faults_of({"straight": tagged(1, form), "turned": tagged(6, form)}, tmp_path)
        assert told.startswith(f"turned in {tmp_path / 'set.zip'} has EXIF orientation 6, expected 1")
    assert not faults_of({"late": late_tag()}, tmp_path)
    with pytest.raises(ValueError, match="late has EXIF orientation 6"):
        decode(late_tag(), "late", set_fault)


SEE_THROUGH = encoded(picture("P"), transparency=picture("P").getpixel((0, 0)))
FRAMES = {"save_all": True, "append_images": [picture().rotate(90)]}
FAULTS = {  # file -> what a data set says, and what a photo
    "fine.png": (encoded(picture()), "", ""),
    "fine.jpg": (encoded(picture(), "jpeg"), "", ""),
    "fine.webp": (encoded(picture(), "webp"), "", ""),
    "fine.bmp": (encoded(picture(), "bmp"), "", ""),
    "grey": (encoded(picture("L")), "mode L", ""),
    "palette": (encoded(picture("P")), "mode P", ""),
    "black and white": (encoded(picture("1")), "mode 1", ""),
    "opaque": (encoded(picture("RGBA")), "mode RGBA", ""),
    "transparent": (encoded(Image.new("RGBA", (8, 8))), "mode RGBA", "mode RGBA and transparent parts"),
    "see-through": (SEE_THROUGH, "mode P", "mode P and transparent parts"),
    "cmyk": (encoded(picture("CMYK"), "jpeg"), "mode CMYK", "mode CMYK"),
    "deep": (encoded(Image.new("I;16", (8, 8))), "mode I;16", "mode I;16"),
    "wide": (encoded(picture().resize((16, 8))), "16x8, expected a square", "16 x 8 pixels"),
    "small": (encoded(picture().resize((8, 8))), "8x8, expected 16x16", ""),
    "moving.png": (encoded(picture(), **FRAMES), "2 frames", ""),
    "moving.webp": (encoded(picture(), "webp", **FRAMES), "2 frames", ""),
    "phone": (encoded(picture(), "mpo", **FRAMES), "", ""),
    "empty": (b"", "is empty", "is empty"),
    "text": (b"hello", "no PNG, JPEG, WebP or BMP", "no PNG, JPEG, WebP or BMP"),
    "gif": (encoded(picture(), "gif"), "no PNG, JPEG, WebP or BMP", "no PNG, JPEG, WebP or BMP"),
    "script": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "no PNG", "no PNG"),
    "cut header": (encoded(picture())[:30], "cannot be read as an image", "cannot be read as an image"),
}


def bomb(side: int) -> bytes:
    """A PNG that claims `side` pixels by `side`."""
    whole = encoded(picture())
    header = whole[12:16] + struct.pack(">II", side, side) + whole[24:29]
    return whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]


def test_a_look_at_headers_finds_the_images_of_no_use(tmp_path: Path) -> None:
    told = faults_of({name: content for name, (content, *_) in FAULTS.items()}, tmp_path, SIDE)
    expected = {name: fault for name, (_, fault, _) in FAULTS.items() if fault}
    assert len(told) == len(expected)
    for line, (name, fault) in zip(told, expected.items(), strict=True):
        assert line.startswith(f"{name} in {tmp_path}") and fault in line and "BytesIO" not in line


@pytest.mark.parametrize("name", FAULTS)
def test_photos_are_taken_in_the_modes_that_lose_nothing(name: str) -> None:
    content, _, fault = FAULTS[name]
    if fault:
        with pytest.raises(ValueError, match=fault):
            as_photo(decode(content, name, photo_fault), name)
    else:
        shown = as_photo(decode(content, name, photo_fault), name)
        expected = Image.open(io.BytesIO(content)).convert("RGB")
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(expected))


@pytest.mark.parametrize("side", [8200, 20_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_that_unpack_to_gigabytes_are_refused(side: int, tmp_path: Path) -> None:
    content = bomb(side)
    assert "expected at most 67108864 pixels" in faults_of({"bomb": content}, tmp_path)[0]
    with pytest.raises(ValueError, match=r"bomb .* expected at most 67108864 pixels"):
        decode(content, "bomb")


def test_cut_files_are_refused_when_their_pixels_are_read() -> None:
    for form in ("png", "jpeg", "webp", "bmp"):
        whole = encoded(picture().resize((64, 64)), form)
        with pytest.raises(ValueError, match=r"a\.img cannot be read as an image"):
            decode(whole[: len(whole) // 2], "a.img")


def test_one_message_tells_the_first_faults_and_their_number() -> None:
    raise_faults(["", ""])
    with pytest.raises(ValueError, match=r"\Aonly\Z"):
        raise_faults(["only"])
    with pytest.raises(ValueError, match=r"\A7 of 8 images cannot be used:\n0\n1\n2\n3\n4\n\(and 2 more\)\Z"):
        raise_faults([*map(str, range(7)), ""])


def test_damaged_pictures_raise_nothing_but_value_errors() -> None:
    files = [tagged(6, form) for form in ("png", "jpeg", "webp")] + [encoded(picture(), "bmp")]
    files += [SEE_THROUGH, encoded(picture(), **FRAMES), encoded(picture("CMYK"), "jpeg")]

    def read(data: bytes) -> None:
        as_photo(decode(data, "a", photo_fault))

    survives(read, files)
