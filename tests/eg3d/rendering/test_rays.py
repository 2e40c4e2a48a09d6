"""Rays through pixel centres."""

import pytest
import torch
from eg3d.cameras import canonical_label, split_label
from eg3d.rendering.rays import rays
from parity import Case


@pytest.mark.parametrize("resolution", [8, 5])
def test_rays_equal_the_released_ones(resolution: int) -> None:
    case = Case("cameras")
    origins, directions = rays(case.input("ray_cam2world"), case.input("ray_intrinsics"), resolution)
    case.check(f"rays{resolution}.origins", origins, 1e-5)
    case.check(f"rays{resolution}.directions", directions, 1e-5)


def test_front_camera_by_hand() -> None:
    origins, directions = rays(*split_label(canonical_label()), 2)
    a, b = 0.0584204, 0.9965813
    expected = torch.tensor([[-a, a, -b], [a, a, -b], [-a, -a, -b], [a, -a, -b]])
    torch.testing.assert_close(directions[0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(origins[0], torch.tensor([[0, 0, 2.7]]).expand(4, 3))


def test_one_ray_looks_through_the_middle() -> None:
    _, directions = rays(*split_label(canonical_label()), 1)
    torch.testing.assert_close(directions, torch.tensor([[[0.0, 0.0, -1.0]]]))


def test_directions_have_unit_length_and_follow_the_camera() -> None:
    c = canonical_label().double().repeat(2, 1).requires_grad_()
    _, directions = rays(*split_label(c), 7)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(2, 49, dtype=torch.float64))
    directions[..., 0].square().sum().backward()
    assert c.grad is not None and c.grad[:, :11].abs().sum() > 0 and c.grad[:, 16] @ c.grad[:, 16] > 0


def test_autocast_leaves_rays_as_they_are() -> None:
    """Directions of three digits would move surface points by several texels."""
    c = split_label(canonical_label())
    with torch.autocast("cpu", torch.bfloat16):
        _, directions = rays(*c, 9)
    assert torch.equal(directions, rays(*c, 9)[1])


def test_no_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="resolution"):
        rays(*split_label(canonical_label()), 0)
