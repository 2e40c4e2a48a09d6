"""Marching against reference numbers, by hand, and in closed form."""

import math

import pytest
import torch
from eg3d.rendering.marching import March, composite, interval_weights, march, sample_weights
from parity import Case, seeded
from torch import Tensor


@pytest.fixture(scope="module")
def case() -> Case:
    return Case("renderer_parts")


def samples(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    depths = case.input("march_depths").abs().cumsum(dim=2) * 0.1 + 2.0
    return torch.sigmoid(case.input("march_colors")), case.input("march_densities"), depths


def check(case: Case, name: str, result: March) -> None:
    case.check(f"{name}.rgb", result.features, 1e-5)
    case.check(f"{name}.depth", result.depth, 1e-5)
    case.check(f"{name}.weights", result.weights, 1e-5)


@pytest.mark.parametrize("white_back", [False, True])
def test_released_results(case: Case, white_back: bool) -> None:
    check(case, f"march_wb{int(white_back)}", march(*samples(case), white_back=white_back))


def test_empty_scene(case: Case) -> None:
    colors, densities, depths = samples(case)
    result = march(colors, torch.full_like(densities, -1000), depths)
    check(case, "march_empty", result)
    assert (result.depth == depths.max()).all() and (result.features == -1).all()


def test_gradients(case: Case) -> None:
    colors, densities, depths = samples(case)
    colors, densities = colors.requires_grad_(), densities.clone().requires_grad_()
    result = march(colors, densities, depths)
    upstream = [
        seeded(f"renderer_parts/march_{n}", x.shape) for n, x in (("ga", result.features), ("gb", result.depth))
    ]
    torch.autograd.backward([result.features, result.depth], upstream)
    assert colors.grad is not None and densities.grad is not None
    case.check("march_grad.dcolors", colors.grad, 1e-5)
    case.check("march_grad.ddensities", densities.grad, 1e-5)


def test_empty_rays_have_finite_gradients() -> None:
    densities = torch.full((1, 2, 5, 1), -1000.0, requires_grad=True)
    depths = torch.linspace(2, 3, 5).view(1, 1, 5, 1).expand(1, 2, 5, 1)
    march(torch.ones(1, 2, 5, 3), densities, depths).depth.sum().backward()
    assert densities.grad is not None and torch.isfinite(densities.grad).all()


def test_one_ray_by_hand() -> None:
    depths = torch.tensor([1, 1.5, 2.5, 3, 4]).view(1, 1, 5, 1)
    densities = torch.tensor([-1.0, 0, 2, 3, 1]).view(1, 1, 5, 1)
    colors = torch.tensor([0, 0.25, 0.5, 0.75, 1]).view(1, 1, 5, 1)
    result = march(colors, densities, depths)
    expected = torch.tensor([0.0958018, 0.4520991, 0.2590017, 0.1411655])
    torch.testing.assert_close(result.weights.flatten(), expected, atol=1e-6, rtol=0)
    assert result.features.item() == pytest.approx(-0.0661834, abs=1e-6)
    assert result.depth.item() == pytest.approx(2.3524516, abs=2e-6)
    assert march(colors, densities, depths, white_back=True).features.item() == pytest.approx(0.0376801, abs=1e-6)


def test_constant_density_absorbs_exponentially() -> None:
    sigma, length = 0.7, 1.3
    depths = torch.linspace(1, 1 + length, 40, dtype=torch.float64).view(1, 1, -1, 1)
    weights = interval_weights(torch.full_like(depths, sigma), depths)
    absorbed = 1 - math.exp(-math.log1p(math.exp(sigma - 1)) * length)
    assert weights.sum().item() == pytest.approx(absorbed, abs=1e-8)
    torch.testing.assert_close(sample_weights(weights).sum(), weights.sum())


def test_sample_shares_equal_averaged_ends(case: Case) -> None:
    colors, densities, depths = (x.double() for x in samples(case))
    weights = interval_weights(densities, depths)
    ends = (weights * (colors[:, :, 1:] + colors[:, :, :-1]) / 2).sum(dim=2)
    torch.testing.assert_close(composite(colors, sample_weights(weights)), ends)


def test_depth_is_clamped_to_the_range_of_the_batch() -> None:
    """A ray without weight takes the largest depth of another batch item."""
    depths = torch.stack([torch.linspace(1, 2, 4), torch.linspace(3, 5, 4)]).view(2, 1, 4, 1)
    densities = torch.tensor([-1000.0, 5.0]).view(2, 1, 1, 1).expand(2, 1, 4, 1)
    depth = march(torch.ones(2, 1, 4, 3), densities, depths).depth
    assert depth[0].item() == 5.0 and 3 < depth[1].item() < 5
