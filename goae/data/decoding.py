"""Decode picture files: the one reader of images, in data sets and photos alike.

Files are PNG, JPEG, WebP or BMP, whatever their names end in, of at most `MAX_PIXELS`. Others are refused; for some of
them Pillow would start Ghostscript. An image is decoded as viewers show it: turned as its EXIF orientation says, and of
an animated one the first frame. Beyond that:

- A photo is a square, and may be stored in any mode that is the same picture in RGB: grey, a palette, or with an alpha
  channel that hides nothing. CMYK, 16 bits of grey and transparent parts are refused; PNGs with 16 bits a colour lose
  the lower 8.
- An image of a data set is RGB and has one frame, and its EXIF orientation is 1. Any other orientation is refused:
  nothing tells whether its label and its maps belong to the stored pixels, as tools that overlook the tag leave them,
  or to the picture that viewers show.
"""

import io
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from eg3d.limits import MAX_PIXELS
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.progress import track

from goae.data.sources import Source

log = logging.getLogger(__name__)

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
SAME_IN_RGB = ("RGB", "1", "L", "LA", "P", "PA", "RGBA")  # modes, alpha channels apart
EXIF = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}  # what Pillow calls the data with an orientation
HEAD = 4096  # bytes of a file that hold its header, nearly always
CHUNK = 256  # images that a thread checks at a time
MANY = 20_000  # images whose check shows its progress
SHOWN = 5  # faults that are told


class Header(NamedTuple):
    """Hold what a file says about its image before pixels are decoded."""

    width: int
    height: int
    mode: str
    orientation: int = 1  # EXIF, 1 to 8
    frames: int = 1


Fault = Callable[[Header], str]  # what is wrong with an image, behind its name in a message; empty where it will do


def photo_fault(header: Header) -> str:
    """Say why an image cannot be a photo for the Inverter."""
    if header.mode not in SAME_IN_RGB:
        return f'has mode {header.mode}; expected RGB with 8 bits. Convert it, for example with image.convert("RGB")'
    if header.width != header.height or not header.width:
        return (
            f"has {header.width} x {header.height} pixels; expected a square, cropped and aligned to the face as the "
            "generator's training images are"
        )
    return ""


def set_fault(header: Header, resolution: int | None = None) -> str:
    """Say why an image cannot be one of a data set, of any size where `resolution` is None."""
    if header.mode != "RGB":
        return f"has mode {header.mode}, expected RGB with 8 bits; convert it to RGB"
    if header.width != header.height:
        return f"is {header.width}x{header.height}, expected a square; crop it with its pose's crop"
    if header.orientation != 1:
        return (
            f"has EXIF orientation {header.orientation}, expected 1: nothing tells whether its label is that of the "
            "stored pixels or of the turned picture. If of the picture that viewers show, turn the pixels with "
            "ImageMagick's `mogrify -auto-orient`, else remove the tag with `exiftool -Orientation= FILE`"
        )
    if header.frames > 1:
        return f"has {header.frames} frames, expected one; save the one that is meant"
    if resolution and header.width != resolution:
        return (
            f"is {header.width}x{header.height}, expected {resolution}x{resolution}; set the resolution "
            "(data.resolution or --resolution) to the images' size, or have them resized"
        )
    return ""


def no_fault(header: Header) -> str:
    """Admit an image of any shape and mode."""
    return ""


def decode(data: bytes, what: str, fault: Fault = no_fault) -> Image.Image:
    """Decode a picture file, turned as its EXIF orientation says, in the mode of the file.

    Args:
        what: names the file in messages.
        fault: is asked about the header first, and once more when all of the file was read.
    Raises: ValueError for a file that is damaged, too large, of another format, or has a fault.
    """
    try:
        image = _open(data)
        _refuse(fault(_header(image)))
        header = _header(_loaded(image))  # PNGs may hold their EXIF behind the pixels
        _refuse(fault(header))
        image = _upright(image)
    except ValueError as error:
        raise ValueError(f"{what} {error}") from error
    if header.frames > 1:
        log.warning("%s has %d frames; the first is taken", what, header.frames)
    return image


def as_photo(image: Image.Image, what: str = "an image") -> Image.Image:
    """Return an image turned as its EXIF orientation says, in mode RGB.

    Raises: ValueError naming `what` if it is damaged, no square, or no picture that is the same in RGB.
    """
    try:
        _refuse(photo_fault(Header(*image.size, image.mode)))
        return _as_rgb(_upright(image))
    except ValueError as error:
        raise ValueError(f"{what} {error}") from error


def find_faults(source: Source, names: Sequence[str], fault: Fault) -> list[str]:
    """Read the headers of many images in threads.

    Returns: a message for each image that cannot be used, and an empty text for each of the others.
    """

    def check(index: int) -> str:
        what = f"{names[index]} in {source.path}"
        try:
            told = fault(_read_header(source, names[index], what))
        except ValueError as error:
            return str(error)
        except (OSError, KeyError) as error:
            return f"{what} cannot be read ({error})"
        return f"{what} {told}" if told else ""

    return collect(check, len(names), "checking the headers of images")


def collect(check: Callable[[int], str], num: int, doing: str, *, many: int = MANY) -> list[str]:
    """Call `check` for numbers below `num` in threads, and return its texts in order.

    Args:
        doing: stands beside the progress bar, shown from `many` on.
    """

    def part(start: int) -> list[str]:
        return [check(i) for i in range(start, min(start + CHUNK, num))]

    starts = range(0, num, CHUNK)
    with ThreadPoolExecutor() as pool:
        parts = track(
            pool.map(part, starts), doing, total=len(starts), console=Console(stderr=True), disable=num < many
        )
        return [told for found in parts for told in found]


def raise_faults(faults: Sequence[str], told: str = "cannot be used", *, shown: int = SHOWN) -> None:
    """Raise one ValueError for all images that have a fault, if there are any.

    Args:
        faults: of each image, empty where it has none.
        told: stands behind the number of images with a fault.
        shown: faults that are listed.
    """
    bad = [fault for fault in faults if fault]
    if len(faults) == len(bad) == 1:
        raise ValueError(bad[0])
    if bad:
        more = f"\n(and {len(bad) - shown} more)" if len(bad) > shown else ""
        raise ValueError(f"{len(bad)} of {len(faults)} images {told}:\n" + "\n".join(bad[:shown]) + more)


def read_header(data: bytes, what: str) -> Header:
    """Read the header of a picture file; its first bytes will do. Raises: ValueError as `decode`."""
    try:
        return _header(_open(data))
    except ValueError as error:
        raise ValueError(f"{what} {error}") from error


def _read_header(source: Source, name: str, what: str) -> Header:
    """The header of one image; the whole file is read where its first bytes do not do."""
    head = source.head(name, HEAD)
    try:
        return read_header(head, what)
    except ValueError:
        if len(head) < HEAD:
            raise
        return read_header(source.read(name), what)


def _open(data: bytes) -> Image.Image:
    """Open an image without decoding its pixels."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:  # its message names an object of Python's
        kind = "is empty" if not data else "cannot be read as an image: it is damaged, or no PNG, JPEG, WebP or BMP"
        raise ValueError(f"{kind}; replace the file") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"is too large ({error}); expected at most {MAX_PIXELS} pixels") from error
    except Exception as error:
        raise ValueError(f"cannot be read as an image ({error}); replace the file") from error
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"has {image.width} x {image.height} pixels; expected at most {MAX_PIXELS} pixels")
    return image


def _loaded(image: Image.Image) -> Image.Image:
    try:
        image.load()
    except Exception as error:  # Pillow's plugins raise nearly everything for damaged files
        raise ValueError(f"cannot be read as an image ({error}); replace the file") from error
    return image


def _upright(image: Image.Image) -> Image.Image:
    if _orientation(_loaded(image)) == 1:
        return image
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:
        raise ValueError(f"has EXIF data that cannot be read ({error}); remove or replace them") from error


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    layered = image.convert("RGBA")
    if layered.getchannel("A").getextrema() != (255, 255):
        raise ValueError(f"has mode {image.mode} and transparent parts; expected RGB. Paste it on a background")
    return layered.convert("RGB")


def _header(image: Image.Image) -> Header:
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # a phone's JPEG may hold previews, too
    return Header(image.width, image.height, image.mode, _orientation(image), frames)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none, or where it is damaged, as viewers take it."""
    if not EXIF & image.info.keys() and not hasattr(image, "tag_v2"):  # of TIFF
        return 1
    try:
        found = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)  # that of PNG would decode the pixels
    except Exception:  # damaged EXIF raises nearly anything
        return 1
    return found if found in range(2, 9) else 1


def _refuse(fault: str) -> None:
    if fault:
        raise ValueError(fault)
