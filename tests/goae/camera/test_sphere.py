"""Angles and labels are inverse to each other; differences and relative views are those of known cases."""

import math

import pytest
import torch
from eg3d.cameras import canonical_label, check_label, join_label, pose_from_angles, split_label

from goae.camera.sphere import (
    SphereConfig,
    angles_from_label,
    camera_errors,
    label_from_angles,
    relative_camera,
    rotation_between,
)

SPHERE = SphereConfig(pivot=[0.0, 0.05, 0.2])
ANGLES = torch.tensor([[0.0, 0.0, 0.0], [0.9, -0.3, 0.2], [-1.2, 0.4, -0.6], [2.5, 0.1, 3.0]])


def test_angles_come_back_from_their_labels() -> None:
    c = label_from_angles(ANGLES, SPHERE)
    check_label(c, SPHERE.radius)
    assert torch.allclose(angles_from_label(c, SPHERE), ANGLES, atol=1e-5)
    straight = pose_from_angles(ANGLES[:1, 0], ANGLES[:1, 1], SPHERE.radius, SPHERE.pivot)
    assert torch.allclose(split_label(c[:1])[0], straight)
    assert torch.allclose(label_from_angles(torch.zeros(1, 3), SphereConfig()), canonical_label(), atol=1e-6)


def test_roll_turns_the_image_counter_clockwise() -> None:
    """A point on the camera's right moves up: towards negative y of the image."""
    cam2world, _ = split_label(label_from_angles(torch.tensor([[0.0, 0.0, 0.1]]), SphereConfig()))
    seen = torch.linalg.inv(cam2world)[0] @ torch.tensor([1.0, 0.0, 0.0, 1.0])
    assert float(seen[0]) > 0.9 and float(seen[1]) == pytest.approx(-math.sin(0.1), abs=1e-6)


def test_labels_follow_the_angles_smoothly() -> None:
    angles = ANGLES[1:2].double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda a: label_from_angles(a, SPHERE), (angles,))


def test_angles_between_poses() -> None:
    c = label_from_angles(torch.tensor([[0.1, 0.0, 0.0]]), SphereConfig())
    for turn in (1e-4, 0.3, 3.0):
        other = label_from_angles(torch.tensor([[0.1 + turn, 0.0, 0.0]]), SphereConfig())
        assert float(rotation_between(c, other)) == pytest.approx(turn, rel=2e-3)
    errors = camera_errors(c, label_from_angles(torch.tensor([[-0.1, 0.2, 0.0]]), SphereConfig()), SphereConfig())
    assert float(errors["yaw"]) == pytest.approx(math.degrees(0.2), abs=1e-3)
    assert float(errors["pitch"]) == pytest.approx(math.degrees(0.2), abs=1e-3)
    assert float(errors["roll"]) < 1e-3 and float(errors["angle"]) > float(errors["yaw"])
    around = label_from_angles(torch.tensor([[math.pi - 0.01, 0, 0], [0.01 - math.pi, 0, 0]]), SphereConfig())
    found = camera_errors(around[:1], around[1:], SphereConfig())
    assert float(found["yaw"]) == pytest.approx(math.degrees(0.02), abs=1e-2)


def test_relative_cameras() -> None:
    sphere = SphereConfig()
    given, target = label_from_angles(ANGLES[1:3], sphere), label_from_angles(ANGLES[:2], sphere)
    # a right estimate leaves targets where they are, and the input itself is seen from the estimate
    assert torch.allclose(relative_camera(target, given, given), target, atol=1e-5)
    estimated = label_from_angles(ANGLES[1:3] + 0.1, sphere)
    assert torch.allclose(relative_camera(given, given, estimated), estimated, atol=1e-5)
    # an estimate off by a yaw shifts every target by it, on the sphere
    shift = torch.tensor([[0.2, 0.0, 0.0]])
    level = torch.tensor([[0.3, 0.0, 0.0]])
    moved = relative_camera(
        label_from_angles(level + 0.5 * shift, sphere),
        label_from_angles(level, sphere),
        label_from_angles(level + shift, sphere),
    )
    assert torch.allclose(moved, label_from_angles(level + 1.5 * shift, sphere), atol=1e-5)
    check_label(moved, sphere.radius)
    # intrinsics are those of the target
    zoomed = join_label(split_label(target)[0], split_label(target)[1] * torch.tensor([[2.0], [2.0], [1.0]]))
    assert torch.equal(relative_camera(zoomed, given, estimated)[:, 16:], zoomed[:, 16:])


def test_wrong_spheres_are_named() -> None:
    for values in ({"radius": 0.0}, {"focal": -1.0}, {"pivot": [0.0]}):
        with pytest.raises(ValueError, match=r"sphere\.radius"):
            SphereConfig(**values)  # type: ignore[arg-type]
