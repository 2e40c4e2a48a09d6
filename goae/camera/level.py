"""Level cameras around a head: where further views of an inversion are taken from."""

import math

import torch
from eg3d.cameras import join_label, pose_from_angles, split_label
from eg3d.generator import TriPlaneGenerator
from torch import Tensor


def level_label(generator: TriPlaneGenerator, yaw: float, like: Tensor) -> Tensor:
    """Labels (B, 25) of cameras at `yaw` degrees and the height of the origin that look at the generator's pivot.

    Args:
        generator: its `avg_camera_pivot` is what renders look at: (0, 0, 0.2) for FFHQ.
        like: labels (B, 25), whose distance from the origin and intrinsics they have.
    """
    cam2world, intrinsics = split_label(like)
    pivot = generator.config.avg_camera_pivot
    poses = [pose_from_angles(math.radians(yaw), 0.0, float(c[:3, 3].norm()), pivot) for c in cam2world]
    return join_label(torch.cat(poses).to(like), intrinsics)


def yaw_of(c: Tensor) -> float:
    """Yaw in degrees of where the camera (1, 25) stands."""
    centre = split_label(c)[0][0, :3, 3]
    return math.degrees(math.atan2(float(centre[0]), float(centre[2])))


def mirrored(generator: TriPlaneGenerator, c: Tensor) -> Tensor:
    """A level camera on the other side of the face; at least 20 degrees from the front, so that something is hidden."""
    yaw = yaw_of(c)
    return level_label(generator, -math.copysign(max(abs(yaw), 20.0), yaw), c)
