"""Level cameras around a head."""

import dataclasses

import pytest
import torch
from eg3d.cameras import canonical_label, split_label
from eg3d.generator import TriPlaneGenerator
from tiny import tiny_generator

from goae.camera.level import level_label, mirrored, yaw_of


def looking_at(pivot: list[float]) -> TriPlaneGenerator:
    generator = tiny_generator()
    generator.config = dataclasses.replace(generator.config, avg_camera_pivot=pivot)
    return generator


def test_cameras_keep_radius_and_intrinsics() -> None:
    generator, front = tiny_generator(), canonical_label(1.7)
    c = level_label(generator, 35.0, front)
    assert yaw_of(c) == pytest.approx(35.0, abs=1e-3)
    assert float(split_label(c)[0][0, :3, 3].norm()) == pytest.approx(1.7)
    assert yaw_of(mirrored(generator, c)) == pytest.approx(-35.0, abs=1e-3)
    assert abs(yaw_of(mirrored(generator, front))) == pytest.approx(20.0, abs=1e-3)
    assert torch.equal(c[:, 16:], front[:, 16:])


def test_cameras_look_at_the_generators_pivot_which_no_level_front_tells() -> None:
    generator = looking_at([0.0, 0.0, 0.2])
    like = torch.cat([canonical_label(2.7), canonical_label(1.7)])
    cam2world, _ = split_label(level_label(generator, 30.0, like))
    centre, forward = cam2world[:, :3, 3], cam2world[:, :3, 2]
    to_pivot = torch.tensor([0.0, 0.0, 0.2]) - centre
    assert torch.allclose(forward, to_pivot / to_pivot.norm(dim=1, keepdim=True), atol=1e-6)
    assert centre.norm(dim=1).tolist() == pytest.approx([2.7, 1.7])
    assert torch.allclose(level_label(generator, 0.0, like), like, atol=1e-6)
