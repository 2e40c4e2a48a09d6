"""Image metrics against known values."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, normalize, pad

from goae.evaluation.image_metrics import (
    SCALES,
    identity_similarity,
    image_metrics,
    ms_ssim,
    mse,
    num_scales,
    psnr,
    ssim,
)


def test_T15_psnr_is_of_peak_2_and_averages_like_the_papers() -> None:
    """Images in [-1, 1]: an error of 0.2 everywhere is MSE 0.04 and 20 dB; means of PSNR exceed PSNR of means."""
    image = torch.zeros(2, 3, 16, 16)
    other = torch.stack([image[0] + 0.2, image[1] + 0.02])
    assert torch.allclose(mse(other, image), torch.tensor([0.04, 0.0004]))
    assert torch.allclose(psnr(other, image), torch.tensor([20.0, 40.0]), atol=1e-4)
    assert psnr(other, image).mean() > 10 * math.log10(4 / float(mse(other, image).mean()))


def test_ssim_is_one_for_equal_images_and_matches_its_formula_for_constants() -> None:
    a, b = torch.full((1, 3, 32, 32), 0.4), torch.full((1, 3, 32, 32), 0.1)
    assert torch.allclose(ssim(a, a), torch.ones(1))
    c1 = (0.01 * 2) ** 2
    expected = (2 * 0.4 * 0.1 + c1) / (0.4**2 + 0.1**2 + c1)
    assert torch.allclose(ssim(a, b), torch.tensor([expected]), atol=1e-4)


def test_ssim_is_per_image() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(3, 3, 24, 24, generator=generator)
    b = a + 0.3 * torch.rand(3, 3, 24, 24, generator=generator)
    assert torch.allclose(ssim(a, b), torch.cat([ssim(a[i : i + 1], b[i : i + 1]) for i in range(3)]), atol=1e-6)


def pictures(side: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    a = torch.rand(2, 3, side, side, generator=generator) * 2 - 1
    return a, (a + 0.4 * torch.randn(2, 3, side, side, generator=generator)).clamp(-1, 1)


def reference_ms_ssim(a: Tensor, b: Tensor, scales: int) -> Tensor:
    """Wang et al., 2003, Eq. 7, written down once more, with torchmetrics' border: windows reflect there, and its 5
    pixels do not count but at the coarsest scale."""
    x = torch.arange(11.0) - 5
    window = torch.exp(-(x**2) / (2 * 1.5**2))
    window = (window[:, None] * window).div(window.sum() ** 2).expand(3, 1, 11, 11)

    def smooth(y: Tensor) -> Tensor:
        return conv2d(pad(y, (5, 5, 5, 5), mode="reflect"), window, groups=3)

    weights = torch.tensor(SCALES[:scales])
    c1, c2 = 0.02**2, 0.06**2
    product = torch.ones(len(a))
    for i, weight in enumerate(weights / weights.sum()):
        ma, mb = smooth(a), smooth(b)
        structure = (2 * (smooth(a * b) - ma * mb) + c2) / (smooth(a * a) - ma**2 + smooth(b * b) - mb**2 + c2)
        if i == scales - 1:
            structure = structure * (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
        else:
            structure = structure[..., 5:-5, 5:-5]
        product = product * structure.mean((1, 2, 3)).clamp_min(0) ** weight
        a, b = avg_pool2d(a, 2), avg_pool2d(b, 2)
    return product


@pytest.mark.parametrize(("side", "scales"), [(32, 2), (64, 3), (176, 5)])
def test_ms_ssim_equals_its_definition(side: int, scales: int) -> None:
    a, b = pictures(side)
    assert num_scales(side) == scales
    torch.testing.assert_close(ms_ssim(a, b), reference_ms_ssim(a, b, scales), rtol=0, atol=1e-4)  # float32 variances
    torch.testing.assert_close(ms_ssim(a, a), torch.ones(2), rtol=0, atol=1e-5)


def test_a_negative_correlation_counts_as_0_and_too_small_images_are_named() -> None:
    a, _ = pictures(64)
    assert float(ms_ssim(a, -a).abs().max()) == 0
    with pytest.raises(ValueError, match="smaller than the window"):
        ms_ssim(a[..., :10, :10], a[..., :10, :10])


def test_identity_is_the_cosine() -> None:
    def embed(x: torch.Tensor) -> torch.Tensor:
        return normalize(x.mean((2, 3)), dim=1)

    a = torch.zeros(1, 3, 4, 4)
    a[:, 0] = 1
    b = torch.zeros(1, 3, 4, 4)
    b[:, 0] = b[:, 1] = 1
    assert torch.allclose(identity_similarity(a, b, embed), torch.tensor([math.sqrt(0.5)]))


def test_all_metrics_see_what_a_screen_shows() -> None:
    """Values beyond [-1, 1] are clamped first."""
    image = torch.ones(1, 3, 16, 16)
    found = image_metrics(
        image * 3,
        image,
        lpips=lambda a, b: (a - b).abs().mean((1, 2, 3)),
        embed=lambda x: normalize(x.flatten(1), dim=1),
    )
    assert set(found) == {"mse", "psnr", "ssim", "ms_ssim", "lpips", "id"}
    assert float(found["mse"]) == 0 and math.isinf(float(found["psnr"]))
