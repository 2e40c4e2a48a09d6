"""Signed distance to a procedural head: a few blended ellipsoids, capsules and rings.

Heads are symmetric in x except for the hairline, so shapes are evaluated on |x|. Distances are lower bounds up to the
blending, which is why the tracer takes steps a little shorter than they say. Coordinates: x right in the picture, y up,
the face looks along +z; everything lies in the cube [-0.5, 0.5]^3.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from goae.data.heads import Head

Triple = tuple[float, float, float]

FLOOR = -0.49  # the bust ends here, inside the cube


class Distances(NamedTuple):
    """Distances (N,) of points to the parts; `skin` blends head, nose, ears and neck, which also come alone."""

    skin: Tensor
    hair: Tensor
    clothes: Tensor
    glasses: Tensor | None
    nose: Tensor
    ears: Tensor
    neck: Tensor

    def nearest(self) -> Tensor:
        """Distance to the whole head, (N,)."""
        surface = torch.minimum(torch.minimum(self.skin, self.hair), self.clothes)
        return surface if self.glasses is None else torch.minimum(surface, self.glasses)


class HeadShape:
    """The surfaces of one head, prepared for many evaluations."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self._skull = _Ellipsoids(_skull(head))
        self._lips = _Ellipsoids(_lips(head))
        self._ears = _Ellipsoids(_ears(head))
        self._hair = _Hair(head)

    def distances(self, points: Tensor) -> Distances:
        """Signed distances of points (3, N) to the parts."""
        head = self.head
        x, y, z = points[0].abs(), points[1], points[2]
        (skull, face, jaw, chin, cheek, ridge, socket, ball, wing, shoulders) = self._skull(x, y, z)
        skin = _join(_join(_join(skull, face, 0.05), jaw, 0.05), chin, 0.05)
        skin = _join(_join(skin, cheek, 0.04), ridge, 0.03)
        skin = _join(_carve(skin, socket, 0.02), ball, 0.006)
        nose = _join(_nose_bridge(head, x, y, z), wing, 0.012)
        upper_lip, lower_lip = self._lips(x, y - mouth_line(head, x), z)
        skin = _join(_join(_join(skin, nose, 0.022), upper_lip, 0.012), lower_lip, 0.012)
        outer_ear, inner_ear = self._ears(x, y, z + 0.25 * y + 0.8 * (x - ear_side(head)))  # leans back, opens outwards
        ears = _carve(outer_ear, inner_ear, 0.008)
        neck = _neck(head, x, y, z)
        skin = _join(_join(skin, ears, 0.012), neck, 0.03)
        glasses = _glasses(head, x, y, z) if head.wears_glasses else None
        return Distances(skin, self._hair(points, x), _clothes(head, shoulders, x, y, z), glasses, nose, ears, neck)


class _Ellipsoids:
    """First-order distances to axis-parallel ellipsoids: k0 (k0 - 1) / k1, with k0 = |p / r| and k1 = |p / r²|."""

    def __init__(self, shapes: list[tuple[Triple, Triple]]) -> None:
        centers, radii = zip(*shapes, strict=True)
        self.inverse = (1.0 / torch.tensor(radii)).T[..., None]  # (3, K, 1)
        self.offset = torch.tensor(centers).T[..., None] * self.inverse

    def __call__(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        """Distances of N points to each of the K ellipsoids."""
        k0: Tensor | None = None
        k1: Tensor | None = None
        for p, inverse, offset in zip((x, y, z), self.inverse, self.offset, strict=True):
            scaled = (p * inverse).sub_(offset)
            square = scaled * scaled
            k0 = square if k0 is None else k0.add_(square)
            scaled.mul_(inverse).square_()
            k1 = scaled if k1 is None else k1.add_(scaled)
        assert k0 is not None and k1 is not None
        k0.sqrt_()
        return ((k0 * k0).sub_(k0).mul_(k1.clamp_(min=1e-9).rsqrt_())).unbind(0)


def capsule(x: Tensor, y: Tensor, z: Tensor, a: Triple, b: Triple, radius_a: float, radius_b: float) -> Tensor:
    """Distance to a segment a-b thickened by a radius that changes linearly along it."""
    dx, dy, dz = (b[i] - a[i] for i in range(3))
    length = dx * dx + dy * dy + dz * dz
    px, py, pz = x - a[0] if a[0] else x, y - a[1], z - a[2]
    t = (py * (dy / length)).add_(pz, alpha=dz / length)
    t = (t.add_(px, alpha=dx / length) if dx else t).clamp_(0.0, 1.0)
    px = px.sub(t, alpha=dx) if dx else px
    squares = py.sub_(t, alpha=dy).square_().add_(pz.sub_(t, alpha=dz).square_()).add_(px * px)
    return squares.sqrt_().sub_(t, alpha=radius_b - radius_a).sub_(radius_a)


def _join(a: Tensor, b: Tensor, k: float) -> Tensor:
    """Union with a fillet of size k."""
    h = (a - b).abs_().mul_(-1.0 / k).add_(1.0).clamp_(min=0.0)
    return torch.minimum(a, b).sub_(h.square_(), alpha=0.25 * k)


def _carve(a: Tensor, b: Tensor, k: float) -> Tensor:
    """a without b, with a fillet of size k."""
    return _smooth_max(a, -b, k)


def _smooth_max(a: Tensor, b: Tensor, k: float) -> Tensor:
    """Intersection with a rounded edge of size k."""
    h = (a - b).abs_().mul_(-1.0 / k).add_(1.0).clamp_(min=0.0)
    return torch.maximum(a, b).add_(h.square_(), alpha=0.25 * k)


def _skull(head: Head) -> list[tuple[Triple, Triple]]:
    """Cranium, face, jaw, chin, cheek, brow ridge, eye socket, eyeball, wing of the nose, shoulders."""
    drop = 0.022 * max(head.mouth_open, 0.0)  # the jaw opens
    w, tip, ball = head.head_width, nose_tip(head), eyeball_radius(head)
    cheek = 0.040 + head.cheeks + 0.004 * max(head.smile, 0.0)
    eye = (head.eye_spacing, head.eye_height, eye_depth(head))
    return [
        ((0.0, 0.065, -0.035), (w, head.head_height, head.head_depth)),
        ((0.0, -0.03, 0.030), (0.84 * w, 0.160, 0.120)),
        ((0.0, -0.125 - 0.5 * (head.chin_length + drop), 0.030), (head.jaw_width, 0.07, 0.095)),
        ((0.0, -0.180 - head.chin_length - drop, 0.088 + head.chin_forward), (0.040, 0.032, 0.040)),
        ((0.074, -0.040, 0.080), (cheek, 0.036, 0.048)),
        ((0.050, 0.062, 0.118), (0.055, 0.018, 0.028)),
        ((eye[0], eye[1], eye[2] + 0.040), (0.042, 0.024, 0.032)),
        (eye, (ball, ball, ball)),
        ((0.95 * head.nose_width, tip[1] - 0.003, tip[2] - 0.014), (0.75 * head.nose_width, 0.013, 0.018)),
        ((0.0, -0.435, -0.060), (0.37, 0.165, 0.165)),
    ]


def eye_depth(head: Head) -> float:
    """z of the centres of the eyeballs."""
    return 0.100 + 0.2 * (head.head_width - 0.146)


def eyeball_radius(head: Head) -> float:
    return 1.06 * head.eye_size


def nose_tip(head: Head) -> tuple[float, float, float]:
    """Centre of the ball of the nose; its foremost point lies one radius (`nose_width`) further along +z."""
    return (0.0, 0.032 - head.nose_length, 0.126 + head.nose_out)


def _nose_bridge(head: Head, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return capsule(x, y, z, (0.0, 0.042, 0.134 + head.nose_bridge), nose_tip(head), 0.011, head.nose_width)


def mouth_line(head: Head, x: Tensor) -> Tensor:
    """Height of the line between the lips at |x|: the corners rise with the smile, fall with sadness."""
    return head.mouth_height + 7.0 * head.smile * x.clamp(max=0.07) ** 2 - 0.004 * head.smile


def _lips(head: Head) -> list[tuple[Triple, Triple]]:
    """Upper and lower lip, in heights above the mouth line; they part when the mouth opens."""
    full, depth, width = head.lip_fullness, 0.124 + 0.5 * head.chin_forward, lips_width(head)
    return [
        ((0.0, 0.45 * full, depth + 0.002), (width, 0.85 * full, 0.026)),
        ((0.0, -0.6 * full - mouth_gap(head), depth), (0.85 * width, full, 0.026)),
    ]


def lips_width(head: Head) -> float:
    """Half the width of the mouth; a smile widens it."""
    return head.mouth_width * (1.0 + 0.16 * head.smile)


def mouth_gap(head: Head) -> float:
    """Height of the opening between the lips at the middle."""
    return 0.026 * max(head.mouth_open, 0.0)


def ear_side(head: Head) -> float:
    """x of the middle of the ears."""
    return head.head_width + 0.4 * head.ear_out


def _ears(head: Head) -> list[tuple[Triple, Triple]]:
    """The ear and the hollow in it."""
    size, at = head.ear_size, ear_side(head)
    return [
        ((at, -0.004, -0.028), (head.ear_out + 0.008, size, 0.62 * size)),
        ((at + 0.016, -0.002, -0.012), (0.014, 0.6 * size, 0.3 * size)),
    ]


def _neck(head: Head, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    wide = head.neck_width
    return capsule(x, y, z, (0.0, -0.10, -0.045), (0.0, -0.40, -0.065), wide, 1.12 * wide)


def _clothes(head: Head, shoulders: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Shoulders, sloping up to the neck, with a neckline that the collar raises or lowers."""
    wide = head.neck_width
    rise = capsule(x, y, z, (0.0, -0.50, -0.060), (0.0, -0.245, -0.070), 0.20, 1.02 * wide)
    d = _join(shoulders, rise, 0.06)
    neckline = -0.262 + 0.012 * head.collar + 0.9 * (-0.05 - z).clamp(-0.2, 0.06)  # lower in front
    d = _smooth_max(d, y - neckline, 0.015)
    return torch.maximum(d, FLOOR - y)


class _Hair:
    """An ellipsoid over the cranium, drawn down to `hair_length` and opened for the face and, if short, the ears."""

    def __init__(self, head: Head) -> None:
        length = head.hair_length
        self.head = head
        thick = head.hair_volume * min(1.0, 0.45 + 1.1 * length)
        self.free = min(max(6.0 - 15.0 * length, 0.0), 1.0)  # 1 frees the ears, 0 covers them
        width = head.head_width + thick + 0.018 * (1.0 - self.free)
        radii = (width, head.head_height + 1.15 * thick, head.head_depth + thick)
        self.shell = _Ellipsoids([((0.0, 0.0, 0.0), radii)])
        ear = (head.head_width + 0.02, -0.015, -0.015)
        self.ear = _Ellipsoids([(ear, (0.06, 0.075 * self.free, 0.050 * self.free))]) if self.free else None
        self.slope = 0.55 * max(1.0 - 2.0 * length, 0.0)  # short hair ends higher at the temples than at the nape
        self.end = -0.03 - 0.40 * max(length - 0.15, 0.0)

    def __call__(self, points: Tensor, x: Tensor) -> Tensor:
        head, y, z = self.head, points[1], points[2]
        below = (0.068 - y).clamp_(min=0.0)  # under the widest section the hair hangs, a little flared
        flare = below.mul(0.7 * head.hair_length).add_(1.0)
        (shell,) = self.shell(x / flare, below.add_(y).sub_(0.068), (z + 0.040).div_(flare))
        end = z * self.slope + (self.end + 0.03 * self.slope) - y
        hair = _smooth_max(shell, end.mul_(0.87) if self.slope else end, 0.03)
        hair = _carve(hair, _face_opening(head, points), 0.015)
        if self.ear is not None:
            hair = _carve(hair, self.ear(x, y, z)[0], 0.01)
        if head.hair_curl > 0.3:
            size = 0.004 * min(head.hair_curl, 2.0)
            hair = hair + size * torch.sin(58.0 * x) * torch.sin(52.0 * y) * torch.sin(58.0 * z)
        return hair


def _face_opening(head: Head, points: Tensor) -> Tensor:
    """The room in front that hair leaves to the face: an elliptic column around it, tilted by the parting."""
    x, y, z = points
    top = head.hair_line
    lean = y - 0.35 * head.hair_part * x
    above = (lean + 0.05) / (top + 0.05)
    half = head.head_width - 0.018
    oval = ((x / half) ** 2 + above.clamp(min=0.0) ** 2).sqrt_() - 1.0
    start = 0.005 + 0.04 * above.clamp(0.0, 1.0) ** 2  # hair covers the ears' upper rear, not the cheeks
    return torch.maximum(oval * (0.6 * half), start - z)


def _glasses(head: Head, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Two rings before the eyes, a bridge, and temples to the ears."""
    size, front = head.frame_size, eye_depth(head) + 0.058
    cx, cy = max(head.eye_spacing + 0.002, size + 0.008), head.eye_height - 0.003
    px, py, pz = x - cx, (y - cy) * 1.15, z - front + 0.35 * (x - cx).clamp(min=0.0)
    ring = (((px * px + py * py).sqrt_() - size) ** 2 + pz * pz).sqrt_() - 0.0058
    bridge = capsule(x, y, z, (0.0, cy + 0.012, front + 0.008), (cx - size, cy + 0.006, front), 0.0055, 0.0055)
    hinge = (cx + size, cy + 0.010, front - 0.016)
    ear = (head.head_width + 0.008, cy + 0.014, -0.02)
    temple = capsule(x, y, z, hinge, ear, 0.0055, 0.0055)
    return torch.minimum(torch.minimum(ring, bridge), temple)
