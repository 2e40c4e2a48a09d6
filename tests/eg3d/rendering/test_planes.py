"""Plane axes, projection and look-up."""

import pytest
import torch
from eg3d.rendering.planes import (
    CORRECTED_AXES,
    PUBLISHED_AXES,
    axes_from_matrix,
    mean_features,
    parse_axes,
    project,
    sample_planes,
)
from parity import Case


@pytest.fixture(scope="module")
def case() -> Case:
    return Case("renderer_parts")


def test_axes_of_the_released_matrices(case: Case) -> None:
    assert axes_from_matrix(case.output("plane_axes")) == PUBLISHED_AXES


def test_corrected_axes_of_matrices() -> None:
    x, y, z = torch.eye(3)
    corrected = torch.stack([torch.stack([x, y, z]), torch.stack([x, z, y]), torch.stack([z, y, x])])
    assert axes_from_matrix(corrected) == CORRECTED_AXES
    rotated = torch.stack([torch.stack([y, z, x])] * 3)  # no involution: the inverse differs from the matrix
    point = torch.tensor([[[1.0, 2.0, 3.0]]])
    torch.testing.assert_close(
        project(point, axes_from_matrix(rotated))[0, 0, 0], (point[0, 0] @ torch.linalg.inv(rotated[0]))[:2]
    )


def test_matrices_that_are_no_permutations_are_refused() -> None:
    tilted = torch.eye(3).repeat(3, 1, 1)
    tilted[1, 0, 1] = 0.5
    with pytest.raises(ValueError, match="permutations"):
        axes_from_matrix(tilted)
    with pytest.raises(ValueError, match="permutations"):
        axes_from_matrix(-torch.eye(3).repeat(3, 1, 1))
    with pytest.raises(ValueError, match="shape"):
        axes_from_matrix(torch.eye(3))


@pytest.mark.parametrize("axes", ["xy,xz", "xx,xz,zy", "xy,xz,zw", "xyz,xz,zy", "", "xy, xz, zy"])
def test_wrong_axes_are_refused(axes: str) -> None:
    with pytest.raises(ValueError, match="plane_axes"):
        parse_axes(axes)


def test_projection(case: Case) -> None:
    case.check("projected", project(case.input("coords"), PUBLISHED_AXES).flatten(0, 1), 1e-6)
    point = torch.tensor([[[0.1, 0.2, 0.3]]])
    expected = [[0.1, 0.2], [0.1, 0.3], [0.3, 0.1]]
    torch.testing.assert_close(project(point, PUBLISHED_AXES)[0, :, 0], torch.tensor(expected))
    torch.testing.assert_close(project(point, CORRECTED_AXES)[0, 2, 0], torch.tensor([0.3, 0.2]))


@pytest.mark.parametrize("box", ["1", "1.6"])
def test_look_up(case: Case, box: str) -> None:
    features = sample_planes(case.input("planes"), case.input("coords"), axes=PUBLISHED_AXES, box_warp=float(box))
    case.check(f"planes_box{box}.features", features, 1e-5)


def test_gradients_of_the_look_up(case: Case) -> None:
    planes, points = case.input("planes").requires_grad_(), case.input("coords").requires_grad_()
    features = sample_planes(planes, points, axes=PUBLISHED_AXES, box_warp=1.0)
    upstream = _upstream(case.output("planes_box1.dplanes"), points.detach())
    dplanes, dcoords = torch.autograd.grad(features, [planes, points], upstream)
    case.check("planes_box1.dplanes", dplanes, 1e-5)
    case.check("planes_box1.dcoords", dcoords, 1e-5)


def _upstream(dplanes: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The gradient that was fed in, (B, 3, K, C): not stored, but the gradient to the planes is linear in it.

    Only in a box of side 1 do the points hit enough different texels for one solution.
    """
    batch, _, _, height, width = dplanes.shape
    texels = torch.eye(height * width).view(1, 1, -1, height, width).expand(batch, 3, -1, -1, -1)
    shares = sample_planes(texels, points, axes=PUBLISHED_AXES, box_warp=1.0).transpose(2, 3).double()
    return torch.linalg.lstsq(shares, dplanes.flatten(3).transpose(2, 3).double(), driver="gelsd").solution.float()


def test_mean_over_planes(case: Case) -> None:
    planes, points = case.input("planes"), case.input("coords")
    separate = sample_planes(planes, points, axes=CORRECTED_AXES, box_warp=1.2)
    torch.testing.assert_close(
        mean_features(planes, points, axes=CORRECTED_AXES, box_warp=1.2), separate.mean(dim=1), atol=1e-6, rtol=0
    )


def test_texels_are_found_where_they_lie() -> None:
    planes = torch.arange(3 * 4 * 8, dtype=torch.float32).view(1, 3, 1, 4, 8)
    # Middle of column 6 and row 1 of the first plane, in a box of side 2.
    point = torch.tensor([[[(6 + 0.5) / 8 * 2 - 1, (1 + 0.5) / 4 * 2 - 1, 0.0]]])
    assert sample_planes(planes, point, axes=CORRECTED_AXES, box_warp=2.0)[0, 0, 0, 0] == planes[0, 0, 0, 1, 6]


def test_points_outside_see_zeros() -> None:
    planes = torch.ones(1, 3, 2, 4, 4)
    inside, beyond_y = torch.tensor([[[0.0, 0.0, 0.0]]]), torch.tensor([[[0.0, 0.9, 0.0]]])
    assert mean_features(planes, inside, axes=CORRECTED_AXES, box_warp=1.0).min() == 1
    assert mean_features(planes, beyond_y, axes=PUBLISHED_AXES, box_warp=1.0)[0, 0, 0].item() == pytest.approx(2 / 3)
    assert mean_features(planes, beyond_y, axes=CORRECTED_AXES, box_warp=1.0)[0, 0, 0].item() == pytest.approx(1 / 3)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(B, 3, C, H, W\)"):
        sample_planes(torch.ones(1, 2, 4, 8, 8), torch.ones(1, 5, 3), axes=PUBLISHED_AXES, box_warp=1.0)
