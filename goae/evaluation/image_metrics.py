"""Distances between an image and its reconstruction, one number per image (paper, Sec. 5.1 and App. B).

Images are (B, 3, H, W) in [-1, 1], and so are MSE and PSNR (peak 2): the paper's printed pairs agree only with that.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Embed = Callable[[Tensor], Tensor]
Distance = Callable[[Tensor, Tensor], Tensor]
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # weights of MS-SSIM (Wang et al., 2003), the finest scale first
WINDOW = 11  # pixels of the Gaussian window of SSIM, sigma 1.5


def mse(image: Tensor, target: Tensor) -> Tensor:
    """(B,) mean squared difference on [-1, 1] data."""
    return (image - target).square().flatten(1).mean(1)


def psnr(image: Tensor, target: Tensor) -> Tensor:
    """(B,) peak signal-to-noise ratio in dB, 10 log10(4 / MSE); infinite for equal images."""
    return 10 * torch.log10(4 / mse(image, target))


def ssim(image: Tensor, target: Tensor) -> Tensor:
    """(B,) structural similarity: 11 x 11 Gaussian window, sigma 1.5, data range 2."""
    from torchmetrics.functional.image import structural_similarity_index_measure  # takes seconds

    value = structural_similarity_index_measure(
        image, target, sigma=1.5, kernel_size=WINDOW, data_range=2.0, reduction="none"
    )
    assert isinstance(value, Tensor)
    return value.reshape(-1)


def ms_ssim(image: Tensor, target: Tensor) -> Tensor:
    """(B,) multi-scale structural similarity: `ssim` at up to five scales, each half of the one before.

    Five scales need 176 pixels. Smaller images have the first `num_scales` of them, whose weights are divided by their
    sum: 3 at 64. Such numbers compare among themselves, not with those of five scales. A scale whose contrast and
    structure are negatively correlated counts as 0; as in torchmetrics, the coarsest scale is averaged border included.
    Raises: ValueError for images smaller than the window.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure  # takes seconds

    weights = SCALES[: num_scales(min(image.shape[2:]))]
    betas = tuple(w / sum(weights) for w in weights)
    value = multiscale_structural_similarity_index_measure(
        image,
        target,
        sigma=1.5,
        kernel_size=WINDOW,
        data_range=2.0,
        reduction="none",
        betas=betas,
        normalize="relu",
    )
    return value.reshape(-1)


def num_scales(side: int) -> int:
    """How many scales of MS-SSIM an image of this side has: as many as torchmetrics allows it, at most five."""
    if side < WINDOW:
        raise ValueError(f"images of {side} pixels are smaller than the window of SSIM, {WINDOW} pixels")
    fits = [n for n in range(1, len(SCALES) + 1) if side // max((n - 1) ** 2, 2 ** (n - 1)) >= WINDOW]
    return max(fits)


def identity_similarity(image: Tensor, target: Tensor, embed: Embed) -> Tensor:
    """(B,) cosine of the two identity embeddings; higher is better."""
    return (embed(image) * embed(target)).sum(1)


def image_metrics(image: Tensor, target: Tensor, *, lpips: Distance, embed: Embed | None) -> dict[str, Tensor]:
    """All of the above, clamped to the displayable range first: name -> (B,); without `embed` no `id`."""
    image = image.clamp(-1, 1)
    values = {
        "mse": mse(image, target),
        "psnr": psnr(image, target),
        "ssim": ssim(image, target),
        "ms_ssim": ms_ssim(image, target),
        "lpips": lpips(image, target),
    }
    return values if embed is None else values | {"id": identity_similarity(image, target, embed)}
