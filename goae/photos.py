"""Photos at the door of the Inverter: what users hold -> float tensors at the sizes the networks take."""

import logging
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from goae.data.decoding import Header, as_photo, decode, photo_fault
from goae.resize import pil_bicubic

log = logging.getLogger(__name__)
Single = Tensor | np.ndarray | Image.Image | str | PathLike[str]
Photo = Single | Iterable[Single]
EXPECTED = (
    "expected float tensors (B, 3, H, H) in [-1, 1], uint8 arrays (H, H, 3), PIL images or paths of files, one of them "
    "or a list"
)


def photos(image: Photo, resolution: int, encoder_resolution: int) -> tuple[Tensor, Tensor]:
    """Bring photos to the generator's and to the encoder's resolution.

    Encoders get them by PIL's bicubic filter, as the released one expects: averaging instead moves its codes by far
    more than rounding. To the generator's resolution uint8 photos go by the same filter; float images are averaged
    where sizes divide, else resized by an antialiased bicubic filter. PIL images and files are turned as their EXIF
    orientation says.

    Args:
        image: (B, 3, H, H) or (3, H, H) float in [-1, 1]; uint8 (H, H, 3) or (B, H, H, 3); a PIL image or the path of a
            file, in RGB or a mode that is the same picture in it; or a list of them.
    Returns: (B, 3, resolution, resolution), (B, 3, encoder_resolution, encoder_resolution), float32 in [-1, 1].
    Raises: ValueError if an image is not square, not RGB, empty, or out of range; FileNotFoundError.
    """
    parts = [_sized(one, resolution, encoder_resolution) for one in _each(image)]
    if not parts:
        raise ValueError(f"no image was given; {EXPECTED}")
    full, small = (torch.cat([part[i] for part in parts]) for i in range(2))
    return full, small


def _each(image: Photo) -> list[Single]:
    """The images of a list or of an array; a tensor stays the batch that it is."""
    if isinstance(image, np.ndarray) and image.ndim == 4:
        return list(image)
    if isinstance(image, Tensor | np.ndarray | Image.Image | str | PathLike):
        return [image]
    if isinstance(image, Iterable) and not isinstance(image, bytes | dict):
        return list(image)
    raise ValueError(f"an image is {_kind(image)}; {EXPECTED}")


def _sized(image: Single, *sizes: int) -> tuple[Tensor, Tensor]:
    if isinstance(image, Tensor):
        batch = _checked(image)
        return _resized(batch, sizes[0]), pil_bicubic(batch, sizes[1])
    picture = _picture(image)
    full, small = (_tensor(picture, size)[None] for size in sizes)
    return full, small


def _checked(image: Tensor) -> Tensor:
    batch = image[None] if image.ndim == 3 else image
    if batch.ndim != 4 or batch.shape[1] != 3 or not batch.is_floating_point() or batch.is_sparse or not len(batch):
        raise ValueError(
            f"an image tensor has shape {tuple(image.shape)} and type {image.dtype}; expected float (B, 3, H, H) in "
            "[-1, 1]. Give uint8 images as NumPy arrays (H, H, 3) or PIL images"
        )
    _check_square(batch.shape[-1], batch.shape[-2])
    batch = batch.float()
    lowest, highest = (float(end) for end in batch.aminmax())
    if not max(abs(lowest), abs(highest)) <= 1.5:  # nor NaN
        raise ValueError(
            f"an image tensor reaches {lowest:.4g} and {highest:.4g}; expected [-1, 1], which is uint8 / 127.5 - 1"
        )
    if bool((batch.amin((1, 2, 3)) >= 0).any()):
        log.warning(
            "an image tensor has no value below 0, as one in [0, 1]; expected [-1, 1]. Give image * 2 - 1 if it is so: "
            "the inversion is far from the photo otherwise"
        )
    return batch


def _resized(batch: Tensor, size: int) -> Tensor:
    if batch.shape[-1] == size:
        return batch
    if batch.shape[-1] % size == 0:
        return adaptive_avg_pool2d(batch, size)
    return interpolate(batch, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)


def _picture(image: np.ndarray | Image.Image | str | PathLike[str]) -> Image.Image:
    """A square in mode RGB."""
    if isinstance(image, str | PathLike):
        path = Path(image).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"there is no image file {path}")
        return as_photo(decode(path.read_bytes(), str(path), photo_fault), str(path))
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"an image array is {image.dtype} of shape {image.shape}; expected uint8 (H, H, 3), RGB")
        _check_square(image.shape[1], image.shape[0])
        return Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise ValueError(f"an image is {_kind(image)}; {EXPECTED}")
    return as_photo(image)


def _check_square(width: int, height: int) -> None:
    if width != height or not width:
        raise ValueError(f"an image {photo_fault(Header(width, height, 'RGB'))}")


def _kind(image: object) -> str:
    return "None" if image is None else f"of type {type(image).__name__}"


def _tensor(picture: Image.Image, size: int) -> Tensor:
    picture = picture if picture.width == size else picture.resize((size, size))  # bicubic, antialiased
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1
