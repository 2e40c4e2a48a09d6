"""Camera labels, poses and intrinsics (EG3D, Sec. 4 "generator pose conditioning" and its data sets' labels).

The convention, stated once. The world has y up, and the canonical face looks along +z. Cameras are OpenCV cameras:
x right, y down, z forward, so the columns of `cam2world` are the camera's right, down and forward axes and its centre.
Intrinsics are divided by the image size: focal lengths and principal point are fractions of width and height. A label
`c` has 25 numbers: the 16 of `cam2world`, row by row, then the 9 of `intrinsics`.

Poses stand on a sphere around the world's origin; a pivot turns the camera and never moves it.
"""

import math
from collections.abc import Callable, Sequence

import torch
from eg3d.transfer import send
from torch import Tensor

LABEL_LENGTH = 25
FOCAL = 4.2647  # 2985.29 / 700, of the published face and cat data
RADIUS = 2.7  # of the published face and cat data, scene units
_POLE = 1e-5  # v is kept this far away from the poles, where the camera's right axis is undefined
_ORTHONORMAL = 1e-3  # largest admitted deviation of RᵀR from the identity; labels are often rounded to 4 digits
_RADIUS_SHARE = 0.01
_LONGEST_FOCAL = 50.0  # a field of view of 1.1 degrees; more are pixels
_MARGIN = 0.25  # how far out of the image a rough pose may see the origin, where its inverse would not see it
_NEARLY_ALL = 0.9  # share of labels that a convention has to explain


def split_label(c: Tensor) -> tuple[Tensor, Tensor]:
    """Labels (B, 25) -> cam2world (B, 4, 4), intrinsics (B, 3, 3)."""
    if c.ndim != 2 or c.shape[1] != LABEL_LENGTH:
        raise ValueError(f"camera labels must have shape (B, {LABEL_LENGTH}), but have {tuple(c.shape)}")
    return c[:, :16].reshape(-1, 4, 4), c[:, 16:].reshape(-1, 3, 3)


def join_label(cam2world: Tensor, intrinsics: Tensor) -> Tensor:
    """cam2world (B, 4, 4), intrinsics (B, 3, 3) or (3, 3) -> labels (B, 25)."""
    batch = cam2world.shape[0]
    intrinsics = send(intrinsics, cam2world).expand(batch, 3, 3)
    return torch.cat([cam2world.reshape(batch, 16), intrinsics.reshape(batch, 9)], dim=1)


def look_at(
    h: float | Tensor, v: float | Tensor, pivot: Sequence[float] | Tensor = (0.0, 0.0, 0.0), radius: float = RADIUS
) -> Tensor:
    """Pose of EG3D's pose sampler, looking at `pivot` from a sphere of `radius` around the origin.

    Args:
        h: horizontal position in radians, scalar or (B,); pi/2 is the front, more moves the camera to +x.
        v: vertical position, scalar or (B,); pi/2 is the equator, less moves it up. Uniform v is uniform in solid
            angle: the polar angle is arccos(1 - 2 v / pi), so v is an angle only at 0, pi/2 and pi.
        pivot: point (3,) looked at, scene units.
        radius: distance of the camera from the world's origin, scene units.
    Returns: cam2world (B, 4, 4); float32 unless h or v is a tensor of another type.
    """
    h, v = _angles(h, v)
    v = v.clamp(_POLE, math.pi - _POLE)
    polar = torch.arccos(1 - 2 * v / math.pi)
    sine, azimuth = torch.sin(polar), math.pi - h
    toward = torch.stack([sine * torch.cos(azimuth), torch.cos(polar), sine * torch.sin(azimuth)], dim=1)
    return _pose(radius * toward, pivot)


def pose_from_angles(
    yaw: float | Tensor,
    pitch: float | Tensor = 0.0,
    radius: float = RADIUS,
    pivot: Sequence[float] | Tensor = (0, 0, 0),
) -> Tensor:
    """Pose at a geometric yaw and pitch: the camera stands at radius (sin yaw cos pitch, sin pitch, cos yaw cos pitch).

    Args:
        yaw, pitch: radians, scalar or (B,). (0, 0) is the front; +yaw moves the camera to +x, +pitch moves it up
            (unlike `look_at`, whose v falls on the way up and is no angle).
        radius, pivot: as in `look_at`.
    Returns: cam2world (B, 4, 4).
    """
    yaw, pitch = _angles(yaw, pitch)
    level = torch.cos(pitch)
    toward = torch.stack([torch.sin(yaw) * level, torch.sin(pitch), torch.cos(yaw) * level], dim=1)
    return _pose(radius * toward, pivot)


def orbit(
    num_frames: int,
    pivot: Sequence[float] | Tensor = (0.0, 0.0, 0.0),
    radius: float = RADIUS,
    *,
    yaw: float = 0.35,
    pitch: float = 0.25,
    tilt: float = -0.05,
) -> Tensor:
    """Poses of the published videos, one closed loop around the front: h swings by `yaw`, v by `pitch` around `tilt`.

    h = pi/2 + yaw sin(2 pi k / T), v = pi/2 + tilt + pitch cos(2 pi k / T) in the sense of `look_at`, k = 0 ... T - 1.
    The published scripts write pi as 3.14, which moves a pose by up to 2e-3.

    Returns: cam2world (num_frames, 4, 4).
    """
    if num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}, expected at least 1")
    phase = 2 * math.pi * torch.arange(num_frames) / num_frames
    h, v = math.pi / 2 + yaw * torch.sin(phase), math.pi / 2 + tilt + pitch * torch.cos(phase)
    return look_at(h, v, pivot, radius)


def intrinsics_from_focal(focal: float = FOCAL) -> Tensor:
    """Intrinsics (3, 3) with one normalised focal length, the principal point in the middle, no skew."""
    return torch.tensor([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]], dtype=torch.float32)


def intrinsics_from_fov(degrees: float) -> Tensor:
    """Intrinsics (3, 3) from a diagonal field of view, with the rounded constants of the published scripts.

    18.837 degrees give a focal length of 4.26339: close to, but not, the labels' 4.2647.
    """
    return intrinsics_from_focal(1 / (math.tan(degrees * 3.14159 / 360) * 1.414))


def canonical_label(radius: float = RADIUS, focal: float = FOCAL) -> Tensor:
    """Label (1, 25) of the exact front view: rotation diag(1, -1, -1), centre (0, 0, radius)."""
    cam2world = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    cam2world[2, 3] = radius
    return join_label(cam2world[None], intrinsics_from_focal(focal))


def mirror_label(c: Tensor) -> Tensor:
    """Labels (..., 25) of the horizontally flipped images: cam2world' = F cam2world F with F = diag(-1, 1, 1, 1).

    The intrinsics stay as they are, which takes for granted that the principal point is centred and the skew is 0.
    """
    if c.shape[-1] != LABEL_LENGTH:
        raise ValueError(f"camera labels must have {LABEL_LENGTH} numbers, but have shape {tuple(c.shape)}")
    signs = torch.ones(LABEL_LENGTH, dtype=c.dtype, device=c.device)
    signs[[1, 2, 3, 4, 8]] = -1
    return c * signs


class LabelError(ValueError):
    """A camera label that is none; `row` is the first such one of those that were given."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


def check_label(c: Tensor, radius: float | None = None, *, centred: bool = False) -> None:
    """Raise a ValueError unless `c`, (25,) or (B, 25), is a camera label in the convention of this module.

    Checked are the number of entries, finite numbers, the constant last rows, a right-handed orthonormal rotation
    (within 1e-3), focal lengths and a principal point in units of the image size, that the origin is in front of the
    camera, and, where `radius` is given, the camera's distance from it (within 1%).

    Args:
        radius: scene units, or None for no check.
        centred: whether the origin has to project into the image, as in every photograph that a generator is trained
            on or that is inverted. Nearly all world-to-camera matrices fail this, and may pass everything else.
    Raises: ValueError for another shape; LabelError, which is one, for a label.
    """
    if c.ndim not in (1, 2) or c.shape[-1] != LABEL_LENGTH or not c.numel():
        raise ValueError(
            f"a camera label has {LABEL_LENGTH} numbers (16 of cam2world, row by row, then 9 of the intrinsics), but "
            f"an array of shape {tuple(c.shape)} was given; store one such row for each image"
        )
    label = c.detach().reshape(-1, LABEL_LENGTH).double()
    _refuse(
        ~torch.isfinite(label.float()).all(1),
        lambda _: "a camera label has numbers that are not finite; estimate the pose of that image again",
    )
    cam2world, intrinsics = split_label(label)
    _check_rows(cam2world, intrinsics)
    _check_intrinsics(intrinsics)
    _check_rotation(cam2world[:, :3, :3])
    _check_view(cam2world, intrinsics, centred)
    if radius is not None:
        _check_radius(cam2world[:, :3, 3].norm(dim=1), radius)


def _refuse(bad: Tensor, message: Callable[[int], str]) -> None:
    """Raise an error about the first bad row of a mask (B,), if there is one."""
    if bad.any():
        row, share = int(bad.int().argmax()), f"; {int(bad.sum())} of {len(bad)} labels are so" if len(bad) > 1 else ""
        raise LabelError(message(row) + share, row)


def _check_rows(cam2world: Tensor, intrinsics: Tensor) -> None:
    rows = torch.cat([cam2world[:, 3], intrinsics[:, 2]], dim=1)
    _refuse(
        (rows - rows.new_tensor([0, 0, 0, 1, 0, 0, 1])).abs().amax(1) > _ORTHONORMAL,
        lambda i: (
            f"the last rows of cam2world and of the intrinsics are {rows[i, :4].tolist()} and {rows[i, 4:].tolist()}, "
            "expected 0 0 0 1 and 0 0 1; write both matrices row by row, cam2world first"
        ),
    )


def _check_intrinsics(intrinsics: Tensor) -> None:
    remedy = "divide the first two rows of the intrinsics by the image size in pixels"
    focal, centre = intrinsics.diagonal(dim1=1, dim2=2)[:, :2], intrinsics[:, :2, 2]
    _refuse(
        ((centre < 0) | (centre > 1)).any(1),
        lambda i: f"a principal point is {centre[i].tolist()}, expected within 0 to 1; {remedy}",
    )
    _refuse(
        ((focal <= 0) | (focal > _LONGEST_FOCAL)).any(1),
        lambda i: (
            f"focal lengths are {', '.join(f'{x:.4g}' for x in focal[i].tolist())}, expected within 0 to "
            f"{_LONGEST_FOCAL:.0f}, as fractions of the image size; {remedy}"
        ),
    )


def _check_rotation(rotation: Tensor) -> None:
    off = (rotation.transpose(1, 2) @ rotation - torch.eye(3).to(rotation)).abs().amax((1, 2))
    lengths, determinant = rotation.norm(dim=1), torch.linalg.det(rotation)
    columns = "camera-to-world with unit columns right, down, forward"
    _refuse(
        ~(off <= _ORTHONORMAL),  # so that overflow fails
        lambda i: (
            f"the rotation of a camera label is not orthonormal: its columns have the lengths "
            f"{', '.join(f'{x:.4g}' for x in lengths[i].tolist())}, and RᵀR differs from the identity by {off[i]:.3g} "
            f"(admitted {_ORTHONORMAL}); give {columns}, without scale"
        ),
    )
    _refuse(
        determinant < 0,
        lambda i: (
            f"the rotation of a camera label is left-handed: its determinant is {determinant[i]:.3g}, expected 1, so "
            f"one axis is mirrored; give {columns}, right-handed"
        ),
    )


def _check_view(cam2world: Tensor, intrinsics: Tensor, centred: bool) -> None:
    """Check where the origin is seen. A camera at the origin sees it nowhere and is left to the radius.

    The inverse of a pose takes the origin to the pose's own translation.
    """
    inverse = cam2world[:, :3, 3]
    point = -(cam2world[:, :3, :3] * inverse[:, :, None]).sum(1)  # the origin in the camera's axes
    other = ~_is_seen(point, intrinsics) & _is_seen(inverse, intrinsics)

    def message(i: int) -> str:
        if point[i, 2] < 0:
            what = f"a camera looks away from the origin, which lies {point[i, 2]:.4g} along its third column"
        else:
            x, y = _project(point, intrinsics)[i].tolist()
            what = f"a camera sees the origin at ({x:.3g}, {y:.3g}), which is outside of its image (0 to 1)"
        return f"{what}; {_explain_view(point, inverse, intrinsics)}"

    _refuse((~_is_seen(point, intrinsics, _MARGIN) | other) if centred else point[:, 2] < 0, message)


def _explain_view(point: Tensor, inverse: Tensor, intrinsics: Tensor) -> str:
    """Tell which other convention would let nearly all cameras see the origin."""
    flip = point.new_tensor([1, -1, -1])
    readings = {
        "these look like OpenGL's axes: negate the second and third columns of cam2world": point * flip,
        "these look like world-to-camera matrices: give the inverse": inverse,
        "these look like world-to-camera matrices with OpenGL's axes: give the inverse, its second and third columns "
        "negated": inverse * flip,
    }
    for text, reading in readings.items():
        if _is_seen(reading, intrinsics).double().mean() >= _NEARLY_ALL:
            return text
    return (
        "give camera-to-world with columns right, down, forward (OpenCV), in a world whose origin is the middle of the "
        "head or object; if few cameras are so, estimate their poses again or leave their images out"
    )


def _project(point: Tensor, intrinsics: Tensor) -> Tensor:
    """Points (B, 3) in the cameras' axes -> places in their images (B, 2); not finite at depth 0."""
    return (intrinsics @ point[:, :, None])[:, :2, 0] / point[:, 2:]


def _is_seen(point: Tensor, intrinsics: Tensor, margin: float = 0.0) -> Tensor:
    pixel = _project(point, intrinsics)
    inside = ((pixel >= -margin) & (pixel <= 1 + margin)).all(1)
    return ((point[:, 2] > 0) & inside) | (point == 0).all(1)


def _check_radius(distances: Tensor, radius: float) -> None:
    _refuse(
        (distances - radius).abs() > _RADIUS_SHARE * radius,
        lambda i: (
            f"a camera stands {distances[i]:.4g} from the origin, expected {radius:.4g} within {_RADIUS_SHARE:.0%}; "
            f"scale the translation of cam2world by {radius / max(float(distances[i]), 1e-12):.4g}, or, for a "
            "generator of other cameras, set data.radius (images) or generator.avg_camera_radius (its own)"
        ),
    )


def _angles(first: float | Tensor, second: float | Tensor) -> tuple[Tensor, Tensor]:
    """Both as tensors (B,) of one type and device, taken from whichever is a tensor."""
    like = next((a for a in (first, second) if isinstance(a, Tensor)), torch.zeros(()))
    dtype = like.dtype if like.is_floating_point() else torch.float32
    tensors = [torch.as_tensor(a, dtype=dtype, device=like.device).reshape(-1) for a in (first, second)]
    a, b = torch.broadcast_tensors(*tensors)
    return a, b


def _pose(centre: Tensor, pivot: Sequence[float] | Tensor) -> Tensor:
    """cam2world (B, 4, 4) of cameras at `centre` (B, 3) that look at `pivot`, with the world's y up in the image."""
    forward = torch.nn.functional.normalize(send(torch.as_tensor(pivot), centre) - centre, dim=1)
    up = send(torch.tensor([0.0, 1.0, 0.0]), centre).expand_as(forward)
    right = -torch.nn.functional.normalize(torch.linalg.cross(up, forward, dim=1), dim=1)
    down = torch.nn.functional.normalize(torch.linalg.cross(forward, right, dim=1), dim=1)
    pose = torch.eye(4, dtype=centre.dtype, device=centre.device).repeat(len(centre), 1, 1)
    pose[:, :3] = torch.stack([right, down, forward, centre], dim=2)
    return pose
