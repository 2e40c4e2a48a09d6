"""Pictures of procedural heads: geometry, labels, determinism, mirroring."""

import math

import pytest
import torch
from eg3d.cameras import canonical_label, intrinsics_from_focal, join_label, mirror_label, pose_from_angles, split_label
from eg3d.rendering.rays import rays
from torch import Tensor

from goae.data import heads
from goae.data.head_render import FAR, render_heads
from goae.data.head_shapes import HeadShape, nose_tip
from goae.data.heads import HeadParams, Part, sample_heads


def people(num: int = 2, seed: int = 0) -> HeadParams:
    return sample_heads(num, torch.Generator().manual_seed(seed))


def label(yaw: float, pitch: float = 0.0, num: int = 1) -> Tensor:
    pose = pose_from_angles(math.radians(yaw), math.radians(pitch))
    return join_label(pose, intrinsics_from_focal()).expand(num, 25)


def surface(depth: Tensor, c: Tensor) -> Tensor:
    """World points (R², 3) of a depth map (1, 1, R, R)."""
    origins, directions = rays(*split_label(c), depth.shape[-1])
    return (origins + directions * depth.reshape(1, -1, 1))[0]


def test_rendering_is_deterministic_and_rows_are_independent() -> None:
    params, c = people(3), label(20, num=3)
    whole, one = render_heads(params, c, resolution=32), render_heads(params[1:2], c[:1], resolution=32)
    for batch, row in zip(whole, one, strict=True):
        assert torch.equal(batch[1:2], row)
    assert whole.image.shape == (3, 3, 32, 32) and whole.image.dtype == torch.float32
    assert whole.image.abs().max() <= 1 and whole.parts.dtype == torch.uint8


def test_faces_show_their_parts() -> None:
    params = heads.with_factors(people(6), {"glasses": 2.0, "hair_length": -0.5, "eye_open": 0.0})
    parts = render_heads(params, label(0, num=6)).parts
    counts = [(parts == part).flatten(1).sum(1) for part in Part]
    for part in set(Part) - {Part.EARS}:
        assert (counts[part] > 0).all(), part.name
    filled = 1 - counts[Part.BACKGROUND] / 64**2
    assert (filled > 0.35).all() and (filled < 0.8).all()


def test_glasses_are_labelled_only_when_worn() -> None:
    bare = render_heads(heads.with_factors(people(), {"glasses": 0.0}), label(0, num=2))
    assert not (bare.parts == Part.GLASSES).any()


def test_depth_of_the_nose_tip_seen_from_the_front() -> None:
    params = heads.with_factors(people(1), {"glasses": 0.0})
    head = heads.describe(params)[0]
    x, y, z = nose_tip(head)
    tip = torch.tensor([x, y, z + head.nose_width])
    row = int((0.5 - tip[1] / (2.7 - tip[2]) * 4.2647) * 64)
    out = render_heads(params, canonical_label())
    assert out.parts[0, 0, row, 32] == Part.NOSE
    expected = (torch.tensor([0.0, 0.0, 2.7]) - tip).norm()
    # a pixel's half width (0.005) on a ball of radius 0.019 recedes by at most 0.002; blending adds 0.003
    assert abs(out.depth[0, 0, row, 32] - expected) < 0.006


def test_depth_lies_on_the_zero_level_of_the_distance() -> None:
    params, c = people(1, seed=5), label(35, 10)
    out = render_heads(params, c, supersampling=4)
    fine = render_heads(params, c, resolution=256, supersampling=1)
    solid = fine.parts.flatten() != Part.BACKGROUND
    points = surface(fine.depth, c)[solid].T
    off = HeadShape(heads.describe(params)[0]).distances(points).nearest().abs()
    assert off.max() < 4e-3 and off.mean() < 1e-4  # the longest step is 0.02, its secant off by its square / 8 r
    assert (out.depth[out.parts == Part.BACKGROUND] == FAR).all()
    assert out.depth[out.parts != Part.BACKGROUND].max() < FAR


def test_two_views_agree_on_the_surface() -> None:
    """Points of one view, projected into another where they are seen, have the depth found there."""
    params, a, b = heads.with_factors(people(1), {"glasses": 0.0}), label(-10), label(10, 5)
    one, two = (render_heads(params, c, resolution=128, supersampling=1) for c in (a, b))
    points = surface(one.depth, a)[one.parts.flatten() == Part.SKIN]
    cam2world, intrinsics = split_label(b)
    local = (points - cam2world[0, :3, 3]) @ cam2world[0, :3, :3]
    pixel = (local / local[:, 2:]) @ intrinsics[0].T
    at = (pixel[:, :2] * 128).long()
    found = two.depth[0, 0, at[:, 1], at[:, 0]]
    expected = local.norm(dim=1)
    # a pixel is 0.005 wide; what one view sees may be hidden from the other, yet never stand before its surface
    assert ((found - expected).abs() < 0.01).float().mean() > 0.85
    assert (found < expected + 0.01).float().mean() > 0.95


def test_a_mirrored_head_gives_the_mirrored_picture() -> None:
    params, c = people(3, seed=2), label(25, -8, num=3)
    one = render_heads(params, c, resolution=32)
    two = render_heads(heads.mirror(params), mirror_label(c), resolution=32)
    off = (one.image - two.image.flip(-1)).abs()
    assert off.mean() < 1e-4 and (off > 0.01).float().mean() < 1e-3  # single samples flip at edges, by rounding
    assert (one.parts == two.parts.flip(-1)).float().mean() > 0.998


def test_expressions_and_people_change_the_face() -> None:
    params = heads.in_studio(people(1))
    faces = [render_heads(heads.with_expression(params, e), label(0)).image for e in heads.EXPRESSIONS]
    for i, one in enumerate(faces):
        assert all((one - two).abs().mean() > 0.002 for two in faces[i + 1 :])


def test_wrong_labels_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 25\)"):
        render_heads(people(2), label(0))
    with pytest.raises(ValueError, match="multiple"):
        render_heads(people(1), label(0), resolution=31, supersampling=1)
