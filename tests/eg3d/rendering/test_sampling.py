"""Depths of coarse and fine samples."""

import pytest
import torch
from eg3d.cameras import canonical_label, split_label
from eg3d.rendering.marching import interval_weights
from eg3d.rendering.rays import rays
from eg3d.rendering.sampling import (
    box_limits,
    fill_misses,
    half_uniforms,
    importance_depths,
    midpoint_uniforms,
    random_uniforms,
    sample_pdf,
    stratified_depths,
)
from parity import Case
from torch import Tensor
from torch.nn.functional import normalize

KINDS = {"half": half_uniforms, "midpoint": midpoint_uniforms}


@pytest.fixture(scope="module")
def case() -> Case:
    return Case("renderer_parts")


def march_depths(case: Case) -> Tensor:
    return case.input("march_depths").abs().cumsum(dim=2) * 0.1 + 2.0


@pytest.mark.parametrize("kind", KINDS)
def test_stratified_depths(case: Case, kind: str) -> None:
    u = KINDS[kind](1, 4, 12, 0).coarse
    near, far = torch.tensor([2.0, 2.1, 2.2, 2.3]).view(1, 4, 1), torch.tensor([3.0, 3.3, 2.9, 3.1]).view(1, 4, 1)
    case.check(f"stratified_{kind}", stratified_depths(2.25, 3.3, u), 1e-6)
    case.check(f"stratified_disparity_{kind}", stratified_depths(2.25, 3.3, u, disparity=True), 1e-6)
    case.check(f"stratified_tensor_{kind}", stratified_depths(near, far, u), 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_importance_depths(case: Case, kind: str) -> None:
    depths = march_depths(case)
    weights = interval_weights(case.input("march_densities"), depths)
    fine = KINDS[kind](2, 6, 10, 9).fine
    case.check(f"importance_{kind}", importance_depths(depths, weights, fine), 1e-5)


def test_inverse_cdf(case: Case) -> None:
    bins, weights = march_depths(case)[0, :, :, 0], case.input("pdf_weights").abs()
    for kind, uniforms in KINDS.items():
        case.check(f"pdf_{kind}", sample_pdf(bins, weights, uniforms(1, 6, 4, 11).fine), 1e-5)
    even = torch.linspace(0, 1, 11).expand(6, 11)
    case.check("pdf_det", sample_pdf(bins, weights, even), 1e-5)
    weights[:, 3:6] = 0
    case.check("pdf_det_zero_bins", sample_pdf(bins, weights, even), 1e-5)


def test_importance_by_hand() -> None:
    depths = torch.tensor([1, 1.5, 2.5, 3, 4]).view(1, 1, 5, 1)
    densities = torch.tensor([-1.0, 0, 2, 3, 1]).view(1, 1, 5, 1)
    u = torch.tensor([[0, 0.25, 0.5, 0.75, 0.999]])
    fine = importance_depths(depths, interval_weights(densities, depths), u)
    expected = torch.tensor([1.25, 1.5858254, 1.9216510, 2.3254790, 2.7483020])
    torch.testing.assert_close(fine.flatten(), expected, atol=2e-6, rtol=0)


def test_importance_has_no_gradient() -> None:
    depths = torch.linspace(1, 2, 6).view(1, 1, 6, 1).requires_grad_()
    weights = torch.full((1, 1, 5, 1), 0.1, requires_grad=True)
    assert not importance_depths(depths, weights, torch.tensor([[0.5]])).requires_grad


def test_box_limits_of_the_released_code(case: Case) -> None:
    origins = case.input("box_origins") + torch.tensor([0.0, 0.0, 2.7])
    directions = normalize(case.input("box_dirs") + torch.tensor([0.0, 0.0, -1.0]), dim=-1)
    near, far = box_limits(origins, directions, 1.0)
    case.check("box_start", near, 1e-5)
    case.check("box_end", far, 1e-5)
    assert (near == -1).any() and (near > 0).any()


def test_box_limits_of_the_front_camera() -> None:
    near, far = box_limits(*rays(*split_label(canonical_label()), 2), 1.0)
    torch.testing.assert_close(near, torch.full((1, 4, 1), 2.2075472), atol=2e-6, rtol=0)
    torch.testing.assert_close(far, torch.full((1, 4, 1), 3.2109776), atol=2e-6, rtol=0)


def test_rays_along_the_axes_have_box_limits() -> None:
    origins = torch.tensor([[[0.2, 0.1, 2.0], [0.5, 0.0, 2.0], [0.6, 0.0, 2.0]]])  # inside, in a face, outside
    near, far = box_limits(origins, torch.tensor([[[0.0, 0.0, -1.0]]]).expand(1, 3, 3), 1.0)
    torch.testing.assert_close(near.flatten(), torch.tensor([1.5, 1.5, -1.0]))
    torch.testing.assert_close(far.flatten(), torch.tensor([2.5, 2.5, -2.0]))


def test_misses_take_the_range_of_near_limits() -> None:
    near, far = torch.tensor([[[2.0], [-1.0]], [[2.4], [2.1]]]), torch.tensor([[[3.0], [-2.0]], [[3.3], [3.1]]])
    near, far = fill_misses(near, far)
    assert near[0, 1].item() == 2.0 and far[0, 1].item() == pytest.approx(2.4)
    assert far[1, 0].item() == pytest.approx(3.3)
    nothing = torch.full((1, 2, 1), -1.0)
    near, far = fill_misses(nothing, nothing - 1)
    assert torch.equal(near, nothing) and torch.equal(far, nothing - 1)


def test_uniforms() -> None:
    half, middle = half_uniforms(2, 3, 4, 5), midpoint_uniforms(2, 3, 4, 5)
    assert half.coarse.shape == middle.coarse.shape == (2, 3, 4, 1) and half.fine.shape == middle.fine.shape == (6, 5)
    assert half.fine.unique().tolist() == [0.5] and middle.coarse.unique().tolist() == [0.5]
    torch.testing.assert_close(middle.fine[4], torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]))
    assert midpoint_uniforms(2, 3, 4, 0).fine.shape == (6, 0)


def test_random_uniforms_follow_the_generator() -> None:
    draw = lambda seed, **kw: random_uniforms(2, 3, 4, 5, rng=torch.Generator().manual_seed(seed), **kw)  # noqa: E731
    torch.testing.assert_close(draw(1), draw(1), atol=0, rtol=0)
    assert not torch.equal(draw(1).coarse, draw(2).coarse)
    rng = torch.Generator().manual_seed(1)
    torch.testing.assert_close(draw(1).coarse, torch.rand(2, 3, 4, 1, generator=rng), atol=0, rtol=0)
    torch.testing.assert_close(draw(1).fine, torch.rand(6, 5, generator=rng), atol=0, rtol=0)
    rng = torch.Generator().manual_seed(1)
    swapped = torch.rand(4, 2, 3, 1, generator=rng).permute(1, 2, 0, 3)
    torch.testing.assert_close(draw(1, samples_first=True).coarse, swapped, atol=0, rtol=0)


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        stratified_depths(1.0, 2.0, torch.zeros(1, 1, 1, 1))
    with pytest.raises(ValueError, match="at least 4"):
        importance_depths(torch.ones(1, 1, 3, 1), torch.ones(1, 1, 2, 1), torch.zeros(1, 2))
