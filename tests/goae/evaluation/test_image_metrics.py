"""Image metrics against known values."""

import math

import torch
from torch.nn.functional import normalize

from goae.evaluation.image_metrics import identity_similarity, image_metrics, mse, psnr, ssim


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
    assert set(found) == {"mse", "psnr", "ssim", "lpips", "id"}
    assert float(found["mse"]) == 0 and math.isinf(float(found["psnr"]))
