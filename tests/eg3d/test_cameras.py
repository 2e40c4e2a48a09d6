"""Camera labels, poses and intrinsics against reference numbers and geometry."""

import math

import pytest
import torch
from eg3d.cameras import (
    FOCAL,
    LabelError,
    canonical_label,
    check_label,
    intrinsics_from_focal,
    intrinsics_from_fov,
    join_label,
    look_at,
    mirror_label,
    orbit,
    pose_from_angles,
    split_label,
)
from parity import Case


@pytest.fixture(scope="module")
def case() -> Case:
    return Case("cameras")


def test_look_at_equals_the_released_poses(case: Case) -> None:
    for i, p in enumerate(case.config["lookat_cases"]):
        pose = look_at(math.pi / 2 + p["yaw"], math.pi / 2 + p["pitch"], p["pivot"], p["radius"])
        case.check(f"lookat{i}", pose, 1e-5)


def test_look_at_the_origin_equals_the_released_orbit(case: Case) -> None:
    for i, p in enumerate(case.config["gauss_cases"]):
        case.check(f"gauss{i}", look_at(math.pi / 2 + p["yaw"], math.pi / 2 + p["pitch"], radius=p["radius"]), 1e-5)


@pytest.mark.parametrize("fov", [18.837, 30.0, 45.0])
def test_intrinsics_from_a_field_of_view(case: Case, fov: float) -> None:
    case.check(f"intrinsics_fov{fov}", intrinsics_from_fov(fov), 1e-5)


def test_look_at_hand_computed_pose() -> None:
    expected = torch.tensor(
        [
            [0.9084563, 0.0570519, -0.4140680, 1.0428720],
            [0, -0.9906409, -0.1364944, 0.3437749],
            [-0.4179799, 0.1239992, -0.8999539, 2.4666247],
            [0, 0, 0, 1],
        ]
    )
    pose = look_at(math.pi / 2 + 0.4, math.pi / 2 - 0.2, (0, 0, 0.2), 2.7)[0]
    torch.testing.assert_close(pose, expected, atol=2e-6, rtol=0)
    rough = look_at(3.14 / 2, 3.14 / 2, (0, 0, 0.2), 2.7)[0]
    torch.testing.assert_close(rough[:3, 3], torch.tensor([-0.0021502, 0.0013688, 2.6999991]), atol=2e-6, rtol=0)
    torch.testing.assert_close(rough[0, :3], torch.tensor([0.9999996, -0.0000005, 0.0008601]), atol=2e-6, rtol=0)


def test_focal_lengths() -> None:
    assert intrinsics_from_fov(18.837)[0, 0].item() == pytest.approx(4.2633910, abs=1e-6)
    assert intrinsics_from_fov(45)[1, 1].item() == pytest.approx(1.7074, abs=1e-4)
    assert pytest.approx(2985.29 / 700, abs=1e-4) == FOCAL


def test_front_view_is_the_canonical_label() -> None:
    label = join_label(look_at(math.pi / 2, math.pi / 2, (0, 0, 0.2)), intrinsics_from_focal())
    torch.testing.assert_close(label, canonical_label(), atol=1e-6, rtol=0)
    torch.testing.assert_close(join_label(pose_from_angles(0.0), intrinsics_from_focal()), canonical_label())
    expected = [1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 2.7, 0, 0, 0, 1, FOCAL, 0, 0.5, 0, FOCAL, 0.5, 0, 0, 1]
    torch.testing.assert_close(canonical_label()[0], torch.tensor(expected))


def test_angles_place_the_camera() -> None:
    right = pose_from_angles(math.radians(30), 0.0, radius=2.0)[0, :3, 3]
    torch.testing.assert_close(right, torch.tensor([1.0, 0.0, math.sqrt(3)]))
    above = pose_from_angles(0.0, math.radians(30), radius=2.0)[0, :3, 3]
    torch.testing.assert_close(above, torch.tensor([0.0, 1.0, math.sqrt(3)]))
    level = pose_from_angles(torch.tensor([-0.4, 0.7]), 0.0, pivot=(0, 0, 0.2))
    torch.testing.assert_close(level[0], look_at(math.pi / 2 - 0.4, math.pi / 2, (0, 0, 0.2))[0], atol=1e-6, rtol=0)
    assert level.shape == (2, 4, 4)


def test_poses_look_at_the_pivot_and_keep_type() -> None:
    pivot = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    pose = look_at(torch.linspace(0.3, 2.8, 5, dtype=torch.float64), 1.1, pivot, 1.7)
    assert pose.dtype == torch.float64
    toward = torch.nn.functional.normalize(pivot - pose[:, :3, 3], dim=1)
    torch.testing.assert_close(pose[:, :3, 2], toward)
    torch.testing.assert_close(pose[:, :3, 3].norm(dim=1), torch.full((5,), 1.7, dtype=torch.float64))
    check_label(join_label(pose, intrinsics_from_focal()), radius=1.7)


def test_orbit_of_the_videos() -> None:
    poses = orbit(8, (0, 0, 0.2))
    assert poses.shape == (8, 4, 4)
    torch.testing.assert_close(poses[0], look_at(math.pi / 2, math.pi / 2 + 0.2, (0, 0, 0.2))[0])
    torch.testing.assert_close(poses[2], look_at(math.pi / 2 + 0.35, math.pi / 2 - 0.05, (0, 0, 0.2))[0])
    torch.testing.assert_close(poses[4, 1, 3], look_at(math.pi / 2, math.pi / 2 - 0.3)[0, 1, 3])
    rough = look_at(3.14 / 2 + 0.35, 3.14 / 2 - 0.05, (0, 0, 0.2))[0]
    assert 0 < (poses[2] - rough).abs().max() < 3e-3
    with pytest.raises(ValueError, match="num_frames"):
        orbit(0)


def test_split_and_join_are_inverse() -> None:
    c = torch.randn(3, 25, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(join_label(*split_label(c)), c, atol=0, rtol=0)
    with pytest.raises(ValueError, match=r"\(B, 25\)"):
        split_label(c[:, :24])


def test_mirroring() -> None:
    c = join_label(pose_from_angles(torch.tensor([0.3, -0.6]), 0.2, pivot=(0, 0, 0.2)), intrinsics_from_focal())
    other = join_label(pose_from_angles(torch.tensor([-0.3, 0.6]), 0.2, pivot=(0, 0, 0.2)), intrinsics_from_focal())
    torch.testing.assert_close(mirror_label(c), other, atol=1e-6, rtol=0)
    torch.testing.assert_close(mirror_label(mirror_label(c)), c, atol=0, rtol=0)
    torch.testing.assert_close(mirror_label(c[0]), mirror_label(c)[0], atol=0, rtol=0)
    with pytest.raises(ValueError, match="25"):
        mirror_label(c[:, :16])


def test_good_labels_pass() -> None:
    check_label(canonical_label())
    check_label(canonical_label()[0], radius=2.7)
    check_label(canonical_label(radius=2.72), radius=2.7)
    check_label(torch.from_numpy(Case("triplane_tiny").data["in/cameras"]), radius=2.7)


def _changed(index: int, value: float) -> torch.Tensor:
    c = canonical_label()
    c[0, index] = value
    return c


def _opengl(c: torch.Tensor) -> torch.Tensor:
    """The same camera with columns right, up, backward."""
    cam2world, intrinsics = split_label(c)
    return join_label(cam2world * torch.tensor([1.0, -1.0, -1.0, 1.0]), intrinsics)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (torch.zeros(16), r"25 numbers.*shape \(16,\).*one such row"),
        (torch.zeros(0, 25), "25 numbers"),
        (torch.zeros(1, 1, 25), "25 numbers"),
        (_changed(3, math.nan), "not finite"),
        (_changed(0, 1.1), "not orthonormal.*without scale"),
        (_changed(5, 1.0), "left-handed: its determinant is -1"),
        (canonical_label().double() * 1e200, "not finite"),
        (_changed(0, 1e20), "lengths 1e\\+20, 1, 1"),
        (_changed(15, 2.0), "0 0 0 1"),
        (_changed(24, 0.5), "0 0 1"),
        (_changed(16, -4.2), "focal lengths are -4.2"),
        (_changed(20, 2985.29), "focal lengths are 4.265, 2985.*image size in pixels"),
        (_changed(18, 256.0), r"principal point is \[256.0, 0.5\].*image size in pixels"),
        (_opengl(canonical_label()), "looks away from the origin, which lies -2.7 along.*OpenGL"),
        (canonical_label(radius=3.0), "stands 3 from the origin, expected 2.7 within 1%.*0.9"),
    ],
)
def test_bad_labels_are_refused(label: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_label(label, radius=2.7)


def test_the_radius_is_free_unless_asked_for() -> None:
    check_label(canonical_label(radius=3.0))


def _cameras(pivot: tuple[float, float, float], radius: float, focal: float, *, around: bool) -> torch.Tensor:
    """120 labels with the poses of faces, or of cars seen from all sides, above the ground."""
    noise = torch.Generator().manual_seed(0)
    yaw, pitch = (torch.randn(2, 120, generator=noise) * torch.tensor([[0.35], [0.15]])).unbind(0)
    if around:
        yaw, pitch = 9 * yaw, 4 * pitch.abs()
    return join_label(pose_from_angles(yaw, pitch, radius, pivot), intrinsics_from_focal(focal))


SETS = {
    "faces": _cameras((0, 0, 0.2), 2.7, 4.2647, around=False),
    "cats": _cameras((0, 0, -0.06), 2.7, 4.2647, around=False),
    "shown cars": _cameras((0, 0, 0), 1.7, 1.7074, around=True),
    "cars": _cameras((0, 0, 0), 1.3, 1.0254, around=True),
    "profiles": join_label(
        pose_from_angles(torch.tensor([-1.57, 1.57]), 0, pivot=(0, 0, 0.2)), intrinsics_from_focal()
    ),
}


def _inverse(c: torch.Tensor) -> torch.Tensor:
    cam2world, intrinsics = split_label(c)
    return join_label(torch.linalg.inv(cam2world), intrinsics)


@pytest.mark.parametrize("name", SETS)
def test_sets_of_other_conventions_are_told_apart(name: str) -> None:
    c = SETS[name]
    check_label(c, centred=True)
    cases = {
        "these look like world-to-camera matrices: give the inverse": _inverse(c),
        "these look like OpenGL's axes: negate": _opengl(c),
        "world-to-camera matrices with OpenGL's axes": _inverse(_opengl(c)),
        "left-handed": c * torch.tensor([-1.0, 1, 1, 1] * 3 + [1.0] * 13),
    }
    for message, labels in cases.items():
        with pytest.raises(ValueError, match=message):
            check_label(labels, centred=True)


def test_world_to_camera_labels_are_refused() -> None:
    """Frontal ones are nearly their own inverse, and pass alone."""
    passed = 0
    for c in _inverse(SETS["faces"]):
        try:
            check_label(c, centred=True)
            passed += 1
        except LabelError as error:
            assert error.row == 0 and "world-to-camera" in str(error)
    assert passed <= 30


def test_the_first_label_that_looks_elsewhere_is_told() -> None:
    c = SETS["faces"].clone()
    c[[7, 20], 3] += 2.0
    with pytest.raises(
        LabelError, match=r"sees the origin at \(.*estimate their poses again.*; 2 of 120 labels"
    ) as caught:
        check_label(c, centred=True)
    assert caught.value.row == 7
    check_label(c)  # a view for rendering may look elsewhere
