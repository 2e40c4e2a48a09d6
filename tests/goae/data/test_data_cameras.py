"""Poses of data sets and mirrored samples."""

import math

import torch
from eg3d.cameras import canonical_label, check_label, split_label

from goae.data import heads
from goae.data.cameras import labels_from_angles, mirror_sample, multiview_labels, sample_labels, sample_mini_labels
from goae.data.head_render import render_heads


def test_a_mirrored_sample_is_the_mirrored_scene() -> None:
    params = heads.sample_heads(1, torch.Generator().manual_seed(0))
    c = sample_mini_labels(1, torch.Generator().manual_seed(1))
    view = render_heads(params, c, resolution=32)
    sample = {
        "image": view.image[0],
        "depth": view.depth[0],
        "parts": view.parts[0],
        "c": c[0],
        "factors": heads.factors(params)[0],
        "identity": heads.identity(params)[0],
        "name": "a",
    }
    flipped = mirror_sample(sample)
    again = render_heads(heads.HeadParams(flipped["factors"][None]), flipped["c"][None], resolution=32)
    assert ((again.image[0] - flipped["image"]).abs() > 0.01).float().mean() < 0.002  # rounding at edges
    assert (again.parts[0] == flipped["parts"]).float().mean() > 0.998
    assert torch.equal(flipped["identity"], heads.identity(heads.HeadParams(flipped["factors"][None]))[0])
    twice = mirror_sample(flipped)
    assert all(torch.equal(twice[key], sample[key]) for key in sample if key != "name") and twice["name"] == "a"


def test_mini_cameras_follow_their_distribution() -> None:
    c = sample_mini_labels(20000, torch.Generator().manual_seed(0))
    check_label(c, 2.7)
    centre = split_label(c)[0][:, :3, 3]
    yaw, pitch = torch.atan2(centre[:, 0], centre[:, 2]).rad2deg(), torch.asin(centre[:, 1] / 2.7).rad2deg()
    # variance 0.7 · 18² + 0.3 · 65²/3 = 649; four standard errors of a deviation are about 2 %, of the mean 0.7°
    assert abs(yaw.std() - 649**0.5) < 0.6 and abs(yaw.mean()) < 0.8
    assert abs(pitch.std() - 8.0) < 0.2 and abs(pitch.mean()) < 0.3
    beyond = 0.3 * (1 - 45 / 65) + 0.7 * math.erfc(45 / 18 / 2**0.5)
    assert abs((yaw.abs() > 45).float().mean() - beyond) < 0.01


def test_front_camera_is_the_canonical_label() -> None:
    torch.testing.assert_close(labels_from_angles(torch.zeros(1), torch.zeros(1)), canonical_label(), atol=1e-6, rtol=0)


def test_multiview_cameras_stand_at_their_yaws() -> None:
    x = split_label(multiview_labels())[0][:, 0, 3]
    torch.testing.assert_close(
        x, 2.7 * torch.tensor([-60.0, -30.0, 0.0, 30.0, 60.0]).deg2rad().sin(), atol=1e-5, rtol=0
    )


def test_labels_are_drawn_from_the_data_set_by_seed() -> None:
    labels = torch.arange(75.0).reshape(3, 25)
    drawn = sample_labels(labels, 100, torch.Generator().manual_seed(0))
    assert {row[0].item() for row in drawn} == {0.0, 25.0, 50.0}
    assert torch.equal(drawn, sample_labels(labels, 100, torch.Generator().manual_seed(0)))
