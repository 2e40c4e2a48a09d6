"""Distances between an image and its reconstruction, one number per image (paper, Sec. 5.1 and App. B).

Images are (B, 3, H, W) in [-1, 1], and so are MSE and PSNR (peak 2): the paper's printed pairs agree only with that.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

Embed = Callable[[Tensor], Tensor]
Distance = Callable[[Tensor, Tensor], Tensor]


def mse(image: Tensor, target: Tensor) -> Tensor:
    """(B,) mean squared difference on [-1, 1] data."""
    return (image - target).square().flatten(1).mean(1)


def psnr(image: Tensor, target: Tensor) -> Tensor:
    """(B,) peak signal-to-noise ratio in dB, 10 log10(4 / MSE); infinite for equal images."""
    return 10 * torch.log10(4 / mse(image, target))


def ssim(image: Tensor, target: Tensor) -> Tensor:
    """(B,) structural similarity: 11 x 11 Gaussian window, sigma 1.5, data range 2."""
    value = structural_similarity_index_measure(image, target, sigma=1.5, data_range=2.0, reduction="none")
    assert isinstance(value, Tensor)
    return value.reshape(-1)


def identity_similarity(image: Tensor, target: Tensor, embed: Embed) -> Tensor:
    """(B,) cosine of the two identity embeddings; higher is better."""
    return (embed(image) * embed(target)).sum(1)


def image_metrics(image: Tensor, target: Tensor, *, lpips: Distance, embed: Embed) -> dict[str, Tensor]:
    """All of the above, clamped to the displayable range first: name -> (B,)."""
    image = image.clamp(-1, 1)
    return {
        "mse": mse(image, target),
        "psnr": psnr(image, target),
        "ssim": ssim(image, target),
        "lpips": lpips(image, target),
        "id": identity_similarity(image, target, embed),
    }
