"""Colours and part labels on the surface of a procedural head: eyes, brows, lips and hair are painted by position."""

from typing import NamedTuple

import torch
from torch import Tensor

from goae.data.head_shapes import (
    Distances,
    eyeball_radius,
    lips_width,
    mouth_gap,
    mouth_line,
    nose_tip,
)
from goae.data.heads import Head, Part

# sRGB colours in [0, 1], from palest to darkest.
SKINS = ((1.0, 0.86, 0.78), (0.95, 0.76, 0.64), (0.83, 0.61, 0.47), (0.62, 0.42, 0.31), (0.38, 0.25, 0.19))
HAIRS = ((0.86, 0.73, 0.50), (0.64, 0.46, 0.29), (0.37, 0.24, 0.16), (0.21, 0.14, 0.11), (0.09, 0.075, 0.075))
IRISES = ((0.35, 0.52, 0.70), (0.42, 0.52, 0.38), (0.42, 0.29, 0.16), (0.24, 0.15, 0.10), (0.15, 0.09, 0.07))

Color = tuple[float, float, float]


class Paint(NamedTuple):
    """Per point: `albedo` (3, N) sRGB in [0, 1], `parts` (N,) uint8, `gloss` (N,) strength of the highlight."""

    albedo: Tensor
    parts: Tensor
    gloss: Tensor


def paint(head: Head, points: Tensor, dist: Distances) -> Paint:
    """Colour and label surface points (3, N), given their distances to the parts."""
    skin = skin_color(head)
    albedo = points.new_tensor(skin)[:, None].repeat(1, points.shape[1])
    parts = torch.full_like(points[0], Part.SKIN, dtype=torch.uint8)
    gloss = torch.full_like(points[0], 0.10)
    canvas = Paint(albedo, parts, gloss)
    _paint_skin(head, points, dist, canvas)
    _paint_mouth(head, points, canvas)
    _paint_brows(head, points, canvas)
    _paint_eyes(head, points, canvas)
    _paint_hair(head, points, dist, canvas)
    _paint_clothes(head, points, dist, canvas)
    if dist.glasses is not None:
        nearest = (dist.glasses < dist.skin) & (dist.glasses < dist.hair)
        shade = 0.05 + 0.5 * max(head.frame_shade - 0.5, 0.0)
        _fill(canvas, nearest, (shade, 0.8 * shade, 0.7 * shade), Part.GLASSES, 0.5)
    return canvas


def skin_color(head: Head) -> Color:
    r, g, b = ramp(SKINS, head.skin_tone)
    return (min(r * (1.0 + 0.03 * head.skin_hue), 1.0), g, b * (1.0 - 0.06 * head.skin_hue))


def hair_color(head: Head) -> Color:
    """Blond to black, reddish for one in eight, greying with age."""
    color = ramp(HAIRS, head.hair_dark)
    red = min(max(head.hair_red - 1.0, 0.0), 1.0) * (1.0 - head.hair_dark)
    color = mix(color, (0.55, 0.22, 0.10), red)
    return mix(color, (0.74, 0.73, 0.72), min(max(4.0 * head.age - 3.1, 0.0), 0.9))


def ramp(colors: tuple[Color, ...], t: float) -> Color:
    """Piecewise linear interpolation of a palette, t in [0, 1]."""
    s = min(max(t, 0.0), 1.0) * (len(colors) - 1)
    i = min(int(s), len(colors) - 2)
    return mix(colors[i], colors[i + 1], s - i)


def mix(a: Color, b: Color, t: float) -> Color:
    return (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t)


def _fill(canvas: Paint, where: Tensor, color: Color, part: Part | None = None, gloss: float | None = None) -> None:
    """Set colour, and part and gloss if given, of the points where a mask (N,) holds."""
    torch.where(where, canvas.albedo.new_tensor(color)[:, None], canvas.albedo, out=canvas.albedo)
    if part is not None:
        canvas.parts[where] = int(part)
    if gloss is not None:
        canvas.gloss[where] = gloss


def _tint(canvas: Paint, strength: Tensor, color: Color) -> None:
    """Multiply the colour by `color`, faded by a strength (N,) in [0, 1]."""
    canvas.albedo.mul_(1.0 - strength * (1.0 - canvas.albedo.new_tensor(color)[:, None]))


def _bump(value: Tensor, center: float, width: float) -> Tensor:
    return torch.exp(-(((value - center) / width) ** 2))


def _paint_skin(head: Head, points: Tensor, dist: Distances, canvas: Paint) -> None:
    """Blush, nostrils, age lines, beard; labels of nose, ears and neck."""
    x, y, z = points[0].abs(), points[1], points[2]
    tip = nose_tip(head)
    nose = (dist.nose < dist.skin + 0.004) & (y < tip[1] + 0.075) & (z > 0.1)
    canvas.parts[nose] = int(Part.NOSE)
    canvas.parts[dist.ears < dist.skin + 0.003] = int(Part.EARS)
    canvas.parts[(dist.neck < dist.skin + 0.004) & (y < -0.12)] = int(Part.NECK)
    blush = _bump(x, 0.075, 0.035) * _bump(y, -0.05, 0.035) * (z > 0) + 0.6 * _bump(y, tip[1], 0.02) * nose
    _tint(canvas, 0.35 * blush.clamp(max=1.0), (1.0, 0.80, 0.78))
    nostril = _bump(x, 0.55 * head.nose_width, 0.007) * _bump(y, tip[1] - 0.016, 0.006) * (z > tip[2] - 0.03)
    _tint(canvas, 0.8 * nostril, (0.45, 0.3, 0.28))
    fold_x = 0.030 + 0.25 * (tip[1] - y).clamp(0.0, 0.08) + 0.006 * head.smile
    fold = torch.exp(-(((x - fold_x) / 0.006) ** 2)) * ((y < tip[1]) & (y > head.mouth_height - 0.02)) * (z > 0.05)
    _tint(canvas, (0.15 + 0.5 * head.age * head.age) * fold, (0.62, 0.55, 0.52))
    lines = torch.cos(y * 320.0).clamp(min=0.0) ** 3 * _bump(y, 0.10, 0.025) * (x < 0.07) * (z > 0.05)
    _tint(canvas, 0.55 * max(head.age - 0.5, 0.0) * lines, (0.5, 0.45, 0.42))
    if head.has_beard:
        _paint_beard(head, x, y, z, canvas)


def _paint_beard(head: Head, x: Tensor, y: Tensor, z: Tensor, canvas: Paint) -> None:
    """Beard and moustache; they stay labelled as the skin they cover."""
    strength = min(1.5 * (head.beard - 0.5), 0.9)
    edge = -0.105 + 5.0 * (x - 0.06).clamp(min=0.0) ** 2 * 6.0
    lower = torch.sigmoid((edge - y) / 0.006) * torch.sigmoid((z + 0.02) / 0.02) * (y > -0.235)
    moustache = _bump(y, head.mouth_height + 0.026, 0.009) * (x < lips_width(head)) * (z > 0.08)
    amount = strength * torch.maximum(lower, moustache).clamp(max=1.0)
    canvas.albedo.lerp_(canvas.albedo.new_tensor(hair_color(head))[:, None].expand_as(canvas.albedo), amount[None])


def _paint_mouth(head: Head, points: Tensor, canvas: Paint) -> None:
    x, y, z = points[0].abs(), points[1], points[2]
    bent, full, gap = y - mouth_line(head, x), head.lip_fullness, mouth_gap(head)
    taper = (1.0 - (x / lips_width(head)) ** 2).clamp(min=0.0)
    bow = 1.0 - 0.25 * _bump(x, 0.0, 0.008)
    upper, lower = 1.15 * full * taper.sqrt() * bow, -(1.45 * full + gap) * taper.sqrt()
    front = (z > 0.06) & (taper > 0)
    skin = skin_color(head)
    lip = mix((skin[0] * 0.86, skin[1] * 0.62, skin[2] * 0.62), (0.75, 0.22, 0.26), 0.45 * head.lip_redness)
    _fill(canvas, front & (bent < upper) & (bent > lower), lip, Part.LIPS, 0.25)
    inside = front & (bent < 0.1 * full * taper) & (bent > -gap * taper.sqrt()) & (gap > 0.004)
    _fill(canvas, inside, (0.22, 0.07, 0.07), Part.LIPS, 0.0)
    teeth = inside & (bent > -0.45 * gap - 0.002) & (head.smile > 0.0)
    _fill(canvas, teeth, (0.93, 0.91, 0.87), Part.LIPS, 0.2)
    line = front & (bent.abs() < 0.0028) & (gap <= 0.004)
    _fill(canvas, line, (lip[0] * 0.5, lip[1] * 0.4, lip[2] * 0.4), Part.LIPS, 0.0)


def _paint_brows(head: Head, points: Tensor, canvas: Paint) -> None:
    x, y, z = points[0].abs(), points[1], points[2]
    u = (x - head.eye_spacing) / 0.044
    middle = head.eye_height + head.brow_height + head.brow_raise + head.brow_arch * (1.0 - u * u)
    middle = middle + (head.brow_frown + 0.04) * (x - head.eye_spacing)
    thick = head.brow_thickness * (1.0 - 0.45 * (u + 0.2).clamp(min=0.0))
    where = (u.abs() < 1.0) & ((y - middle).abs() < thick) & (z > 0.04)
    _fill(canvas, where, mix(hair_color(head), (0.14, 0.09, 0.07), 0.35), Part.BROWS, 0.03)


def _paint_eyes(head: Head, points: Tensor, canvas: Paint) -> None:
    """Sclera, iris, pupil and lid line inside an almond around the eyeball's front."""
    x, y, z = points[0].abs(), points[1], points[2]
    wide, opened = head.eye_size, max(head.eye_open - 0.1 * max(head.smile - 0.6, 0.0), 0.15)
    u = (x - head.eye_spacing) / wide
    v = y - head.eye_height - head.eye_tilt * (x - head.eye_spacing)
    arc = (1.0 - u * u).clamp(min=0.0)
    upper, lower = 0.52 * wide * opened * arc.sqrt(), -0.40 * wide * (0.4 + 0.6 * opened) * arc
    front = (arc > 0) & (z > 0.06)
    skin = skin_color(head)
    lash = front & (v >= upper - 0.001) & (v < upper + 0.0055)
    _fill(canvas, lash, (0.25 * skin[0], 0.2 * skin[1], 0.2 * skin[2]), Part.EYES, 0.0)
    eye = front & (v < upper) & (v > lower)
    _fill(canvas, eye, (0.95, 0.94, 0.93), Part.EYES, 0.15)
    ball = eyeball_radius(head)
    nx = (points[0] - torch.sign(points[0]) * head.eye_spacing) / ball - head.gaze_x
    ny = (y - head.eye_height) / ball - head.gaze_y
    off = (nx * nx + ny * ny).sqrt()
    iris = ramp(IRISES, max(head.iris, 1.5 * head.skin_tone - 0.3))
    _fill(canvas, eye & (off < 0.47), mix(iris, (0.0, 0.0, 0.0), 0.25), Part.EYES, 0.4)
    _fill(canvas, eye & (off < 0.40), iris)
    _fill(canvas, eye & (off < 0.20), (0.02, 0.02, 0.02))
    spark = ((nx + head.gaze_x - 0.35 * head.light_yaw) ** 2 + (ny - 0.18) ** 2).sqrt() < 0.10
    _fill(canvas, eye & spark, (1.0, 1.0, 1.0))


def _paint_hair(head: Head, points: Tensor, dist: Distances, canvas: Paint) -> None:
    x, y, z = points
    where = dist.hair < torch.minimum(dist.skin, dist.clothes)
    _fill(canvas, where, hair_color(head), Part.HAIR, 0.18)
    angle = torch.atan2(z + 0.03, (x - 0.06 * head.hair_part).abs() + 1e-4)
    strand = torch.sin(34.0 * angle + 3.0 * torch.sin(14.0 * y + 5.0 * angle))
    tips = ((0.10 - y) / 0.35).clamp(0.0, 1.0)
    _tint(canvas, where * (0.16 * (1.0 - strand) + 0.2 * tips), (0.45, 0.40, 0.38))


def _paint_clothes(head: Head, points: Tensor, dist: Distances, canvas: Paint) -> None:
    where = (dist.clothes < dist.skin) & (dist.clothes <= dist.hair)
    _fill(canvas, where, hue_color(head.clothes_hue, 0.5, head.clothes_shade), Part.CLOTHES, 0.03)


def hue_color(hue: float, saturation: float, value: float) -> Color:
    """HSV to RGB with smooth (cosine) hues, all in [0, 1]."""
    phase = torch.tensor([0.0, 1.0 / 3.0, 2.0 / 3.0])
    wave = 0.5 + 0.5 * torch.cos(2.0 * torch.pi * (hue - phase))
    r, g, b = (value * (1.0 - saturation * (1.0 - wave))).tolist()
    return (r, g, b)
