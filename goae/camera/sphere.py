"""Cameras on the generator's sphere: angles <-> labels, differences of poses, and views relative to an input camera.

A camera of the sphere stands at `radius` from the origin, looks at `pivot`, and is turned around its viewing axis by
the roll: cam2world = look-at(yaw, pitch) R_z(roll). Angles are (B, 3): yaw, pitch, roll in radians, the first two as in
`eg3d.cameras.pose_from_angles`; more roll turns the image counter-clockwise.
"""

import math
from dataclasses import dataclass, field

import torch
from eg3d.cameras import FOCAL, RADIUS, intrinsics_from_focal, join_label, pose_from_angles, split_label
from torch import Tensor

DEGREES = 180 / math.pi


@dataclass
class SphereConfig:
    """Where a generator's cameras stand and what they see."""

    radius: float = RADIUS  # from the origin, scene units
    pivot: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # the point looked at
    focal: float = FOCAL  # as a fraction of the image size

    def __post_init__(self) -> None:
        if self.radius <= 0 or self.focal <= 0 or len(self.pivot) != 3:
            raise ValueError(
                f"sphere.radius {self.radius}, focal {self.focal}, pivot {self.pivot}: expected the first two > 0 and "
                "three numbers"
            )


def label_from_angles(angles: Tensor, sphere: SphereConfig) -> Tensor:
    """Angles (B, 3) -> labels (B, 25); differentiable."""
    yaw, pitch, roll = angles.unbind(1)
    cam2world = pose_from_angles(yaw, pitch, sphere.radius, sphere.pivot)
    return join_label(cam2world @ _roll(roll), intrinsics_from_focal(sphere.focal))


def angles_from_label(c: Tensor, sphere: SphereConfig) -> Tensor:
    """Labels (B, 25) -> angles (B, 3); exact for cameras of the sphere.

    Of others, yaw and pitch say where the camera stands, and roll how it is turned against one that looks at the pivot.
    """
    cam2world, _ = split_label(c)
    x, y, z = torch.nn.functional.normalize(cam2world[:, :3, 3], dim=1).unbind(1)
    yaw, pitch = torch.atan2(x, z), torch.asin(y.clamp(-1, 1))
    straight = pose_from_angles(yaw, pitch, sphere.radius, sphere.pivot)[:, :3, :3]
    turned = straight.transpose(1, 2) @ cam2world[:, :3, :3]
    return torch.stack([yaw, pitch, torch.atan2(turned[:, 1, 0], turned[:, 0, 0])], 1)


def rotation_between(c: Tensor, other: Tensor) -> Tensor:
    """The angle (B,), in radians, of the rotation that takes one camera's axes to the other's; labels (B, 25)."""
    first, second = (split_label(x.double())[0][:, :3, :3] for x in (c, other))
    turn = first.transpose(1, 2) @ second
    skew = turn - turn.transpose(1, 2)
    sine = torch.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], 1).norm(dim=1) / 2
    cosine = (turn.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2
    return torch.atan2(sine, cosine).to(c.dtype)  # acos would lose the small angles


def camera_errors(estimated: Tensor, true: Tensor, sphere: SphereConfig) -> dict[str, Tensor]:
    """Degrees (B,): `angle` between the poses as a whole; absolute differences of `yaw`, `pitch` and `roll`."""
    found = {"angle": rotation_between(estimated, true) * DEGREES}
    off = (angles_from_label(estimated, sphere) - angles_from_label(true, sphere)) * DEGREES
    off = ((off + 180) % 360 - 180).abs()
    return found | dict(zip(("yaw", "pitch", "roll"), off.unbind(1), strict=True))


def relative_camera(target: Tensor, given: Tensor, estimated: Tensor) -> Tensor:
    """Where a method that placed the input camera at `estimated` has to stand to see what `target` sees.

    E_target = E_input T_input^-1 T_target: the motion from the input to the target camera is that of the data set, and
    starts where the method believes the input camera to be. The intrinsics are those of the target.

    Args:
        target: (B, 25), in the data set's world.
        given: (B, 25), the input camera in that world.
        estimated: (B, 25), the input camera in the method's world.
    Returns: (B, 25), in the method's world.
    """
    to_target, intrinsics = split_label(target)
    (true, _), (found, _) = split_label(given.double()), split_label(estimated.double())
    moved = found @ torch.linalg.inv_ex(true).inverse @ to_target.double()
    return join_label(moved.to(target.dtype), intrinsics)


def _roll(roll: Tensor) -> Tensor:
    """Rotations (B, 4, 4) around the viewing axis."""
    cosine, sine, zero, one = torch.cos(roll), torch.sin(roll), torch.zeros_like(roll), torch.ones_like(roll)
    rows = [cosine, -sine, zero, zero, sine, cosine, zero, zero, zero, zero, one, zero, zero, zero, zero, one]
    return torch.stack(rows, 1).view(-1, 4, 4)
