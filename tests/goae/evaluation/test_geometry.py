"""Depth error on analytic heads."""

import pytest
import torch

from goae.evaluation.geometry import depth_errors


def test_a_constant_shift_inside_the_head_is_the_error() -> None:
    true = torch.full((2, 1, 4, 4), 2.7)
    parts = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    parts[:, :, 1:3, 1:3] = 5
    depth = true + torch.tensor([0.1, -0.3]).view(2, 1, 1, 1)
    depth[:, :, 0] = 9.0  # background does not count
    assert depth_errors(depth, true, parts).tolist() == pytest.approx([0.1, 0.3], abs=1e-6)


def test_a_smaller_render_of_a_slope_is_exact_and_silhouettes_stay_out() -> None:
    x = torch.arange(8.0).expand(1, 1, 8, 8) + 0.5
    true, parts = x.clone(), torch.ones(1, 1, 8, 8, dtype=torch.uint8)
    parts[..., 5:] = 0  # the third block of two is half background
    true[..., 5:] = 100.0
    depth = (torch.arange(4.0) * 2 + 1).expand(1, 1, 4, 4)  # the slope in the middle of two pixels
    assert depth_errors(depth, true, parts).tolist() == [0.0]
    assert depth_errors(depth + 0.25, true, parts).tolist() == [0.25]


def test_every_image_has_its_own_number() -> None:
    true, parts = torch.rand(3, 1, 6, 6), (torch.rand(3, 1, 6, 6) > 0.3).byte()
    depth = torch.rand(3, 1, 6, 6)
    whole = depth_errors(depth, true, parts)
    rows = [depth_errors(depth[i : i + 1], true[i : i + 1], parts[i : i + 1])[0] for i in range(3)]
    assert torch.equal(whole, torch.stack(rows))


def test_no_head_is_no_number_and_wrong_sizes_are_named() -> None:
    none = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    assert depth_errors(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 4, 4), none).isnan().all()
    with pytest.raises(ValueError, match="multiple of the render's size"):
        depth_errors(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 4, 4), none)
