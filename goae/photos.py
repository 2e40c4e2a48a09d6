"""Photos at the door of the Inverter: what users hold -> float tensors at the sizes the networks take."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from goae.resize import pil_bicubic

Photo = Tensor | np.ndarray | Image.Image | Sequence[Image.Image | np.ndarray]


def photos(image: Photo, resolution: int, encoder_resolution: int) -> tuple[Tensor, Tensor]:
    """Bring photos to the generator's and to the encoder's resolution.

    Encoders get them by PIL's bicubic filter, as the released one expects: averaging instead moves its codes by far
    more than rounding. To the generator's resolution uint8 photos go by the same filter; float images are averaged
    where sizes divide, else resized by an antialiased bicubic filter.

    Args:
        image: (B, 3, H, H) or (3, H, H) float in [-1, 1]; uint8 (H, H, 3) or (B, H, H, 3); PIL images in mode RGB.
    Returns: (B, 3, resolution, resolution), (B, 3, encoder_resolution, encoder_resolution), float32 in [-1, 1].
    Raises: ValueError if an image is not square, not RGB, empty, or out of range.
    """
    if isinstance(image, Tensor):
        batch = _checked(image)
        return _resized(batch, resolution), pil_bicubic(batch, encoder_resolution)
    pictures = [_picture(one) for one in _each(image)]
    if not pictures:
        raise ValueError("no image was given")
    return tuple(torch.stack([_tensor(one, size) for one in pictures]) for size in (resolution, encoder_resolution))  # type: ignore[return-value]


def _checked(image: Tensor) -> Tensor:
    batch = image[None] if image.ndim == 3 else image
    if batch.ndim != 4 or batch.shape[1] != 3 or not batch.is_floating_point() or not len(batch):
        raise ValueError(
            f"an image tensor has shape {tuple(image.shape)} and type {image.dtype}; expected float (B, 3, H, H) in "
            "[-1, 1]. Give uint8 images as NumPy arrays (H, H, 3) or PIL images"
        )
    _check_square(batch.shape[-1], batch.shape[-2])
    if not torch.isfinite(batch).all() or batch.abs().max() > 1.5:
        raise ValueError(
            f"an image tensor reaches {batch.abs().max():.4g}; expected [-1, 1], which is uint8 / 127.5 - 1"
        )
    return batch.float()


def _resized(batch: Tensor, size: int) -> Tensor:
    if batch.shape[-1] == size:
        return batch
    if batch.shape[-1] % size == 0:
        return adaptive_avg_pool2d(batch, size)
    return interpolate(batch, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)


def _each(image: np.ndarray | Image.Image | Sequence[Image.Image | np.ndarray]) -> Sequence[Image.Image | np.ndarray]:
    if isinstance(image, Image.Image) or (isinstance(image, np.ndarray) and image.ndim != 4):
        return [image]
    return list(image)


def _picture(image: Image.Image | np.ndarray) -> Image.Image:
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"an image array is {image.dtype} of shape {image.shape}; expected uint8 (H, H, 3), RGB")
        image = Image.fromarray(image)
    if image.mode != "RGB":
        raise ValueError(f'an image has mode {image.mode}; expected RGB. Convert it with image.convert("RGB")')
    _check_square(*image.size)
    return image


def _check_square(width: int, height: int) -> None:
    if width != height:
        raise ValueError(
            f"an image has {width} x {height} pixels; expected a square, cropped and aligned to the face as the "
            "generator's training images are"
        )


def _tensor(picture: Image.Image, size: int) -> Tensor:
    picture = picture if picture.width == size else picture.resize((size, size))  # bicubic, antialiased
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1
