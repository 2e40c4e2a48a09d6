"""Visibility masks and the tri-plane mix (paper, Eq. 8, 9, 12), against float64 NumPy and the released numbers."""

import dataclasses

import numpy as np
import pytest
import torch
from eg3d.cameras import split_label
from eg3d.rendering.rays import rays
from parity import Case, seeded
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from goae.models.occlusion import (
    MixConfig,
    binary_closing,
    dense_depth,
    draw_sigmas,
    gaussian_blur,
    jumps,
    mix_planes,
    silhouette_depth,
    soft_closing,
    surface_points,
    texel_hits,
    visibility_masks,
)

PUBLISHED = "xy,xz,zx"
CORRECTED = "xy,xz,zy"
OFFICIAL = MixConfig(planes="xy", close="blur", oob="clamp", depth_density=0.5)


def labels(batch: int) -> Tensor:
    """Camera labels at radius 2.7 that look at the origin from different sides, with the published focal length."""
    rows = []
    for i in range(batch):
        yaw, pitch = 0.4 * i - 0.3, 0.1 - 0.15 * i
        origin = 2.7 * np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
        forward = -origin / 2.7
        right = np.cross(forward, [0, 1, 0])
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3] = np.stack([right, np.cross(forward, right), forward, origin], 1)
        rows.append(np.concatenate([pose.ravel(), [4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1]]))
    return torch.from_numpy(np.stack(rows)).float()


def points_seen(depth: Tensor, c: Tensor) -> Tensor:
    return surface_points(depth, *rays(*split_label(c), depth.shape[-1]))


def numpy_points(depth: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Eq. 8 in float64, pixel by pixel: X = π D_z K⁻¹ [u, v, 1]ᵀ with D_z the ray distance times its cosine."""
    pose, inverse = label[:16].reshape(4, 4), np.linalg.inv(label[16:].reshape(3, 3))
    size, points = len(depth), []
    for row in range(size):
        for column in range(size):
            k = inverse @ [(column + 0.5) / size, (row + 0.5) / size, 1.0]
            z = depth[row, column] / np.linalg.norm(k)
            points.append((pose @ np.append(z * k, 1.0))[:3])
    return np.array(points)


def numpy_masks(points: np.ndarray, axes: str, resolution: int, box_warp: float) -> np.ndarray:
    """Eq. 12's tri-Mask in float64, point by point; points outside a plane are dropped."""
    masks = np.zeros((3, resolution, resolution))
    for q, (a, b) in enumerate(axes.split(",")):
        for point in points:
            column, row = (int(np.floor(resolution * (point["xyz".index(axis)] / box_warp + 0.5))) for axis in (a, b))
            if 0 <= column < resolution and 0 <= row < resolution:
                masks[q, row, column] = 1
    return masks


def test_eq8_matches_float64_numpy() -> None:
    c, depth = labels(2), 2.6 + 0.2 * torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    expected = np.stack(
        [numpy_points(d[0].double().numpy(), k.double().numpy()) for d, k in zip(depth, c, strict=True)]
    )
    np.testing.assert_allclose(points_seen(depth, c).numpy(), expected, atol=2e-6)


def test_T7_depth_along_camera_z_gives_the_points_of_the_ray_form() -> None:
    c, depth = labels(2).double(), 2.6 + 0.2 * torch.rand(2, 1, 32, 32, dtype=torch.float64)
    cam2world, intrinsics = split_label(c)
    centre = (torch.arange(32, dtype=torch.float64) + 0.5) / 32
    v, u = torch.meshgrid(centre, centre, indexing="ij")
    k = torch.stack([u, v, torch.ones_like(u)], -1).view(-1, 3) @ intrinsics.inverse().mT
    z = depth.view(2, -1, 1) / k.norm(dim=-1, keepdim=True)
    literal = (z * k) @ cam2world[:, :3, :3].mT + cam2world[:, None, :3, 3]
    torch.testing.assert_close(points_seen(depth, c), literal, atol=1e-6, rtol=0)
    # the ray distance taken for camera z would be visibly wrong: 1.3 % at the corner
    wrong = (depth.view(2, -1, 1) * k) @ cam2world[:, :3, :3].mT + cam2world[:, None, :3, 3]
    assert (wrong - literal).norm(dim=-1).max() > 0.03


@pytest.mark.parametrize("axes", [PUBLISHED, CORRECTED])
@pytest.mark.parametrize("box_warp", [1.0, 1.6])
def test_T6_hit_texel_is_the_one_a_nearest_lookup_reads(axes: str, box_warp: float) -> None:
    resolution, count = 64, 5000
    points = (torch.rand(count, 1, 3, generator=torch.Generator().manual_seed(1)) - 0.5) * box_warp
    hits = texel_hits(points, axes=axes, resolution=resolution, box_warp=box_warp).view(count, 3, -1)
    assert (hits.sum(-1) == 1).all()
    numbered = torch.arange(resolution**2, dtype=torch.float32).view(1, 1, resolution, resolution)
    for q, pair in enumerate(axes.split(",")):
        grid = points[:, 0, ["xyz".index(axis) for axis in pair]] * 2 / box_warp
        read = grid_sample(numbered, grid.view(1, 1, count, 2), mode="nearest", align_corners=False).flatten()
        torch.testing.assert_close(hits[:, q].argmax(-1), read.long())


@pytest.mark.parametrize("axes", [PUBLISHED, CORRECTED])
def test_eq9_and_eq12_match_float64_numpy(axes: str) -> None:
    c, generator = labels(2), torch.Generator().manual_seed(2)
    depth = 2.1 + 1.2 * torch.rand(2, 1, 24, 24, generator=generator)
    planes_w, planes_f = torch.randn(2, 2, 3, 4, 16, 16, generator=generator, dtype=torch.float64)
    points = points_seen(depth.double(), c.double())
    assert (points.abs() > 0.45).any(), "some points have to lie outside the cube"
    config = MixConfig(close="none")
    got = visibility_masks(points, config, axes=axes, resolution=16, box_warp=0.9)
    mixed = mix_planes(planes_w, planes_f, got)
    for i in range(2):
        seen = numpy_points(depth[i, 0].double().numpy(), c[i].double().numpy())
        masks = numpy_masks(seen, axes, 16, 0.9)
        np.testing.assert_array_equal(got[i, :, 0].numpy(), masks)
        assert 0 < masks.mean() < 1
        expected = planes_f[i].numpy() * masks[:, None] + planes_w[i].numpy() * (1 - masks[:, None])
        np.testing.assert_allclose(mixed[i].numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("resolution", [128, 256, 384])
def test_windows_of_an_image_have_the_rays_of_the_whole(resolution: int) -> None:
    c = labels(2).double()
    c[:, 17], c[:, 18], c[:, 21] = 0.03, 0.47, 0.52  # skew and principal point off the centre
    calls = []

    def angle_as_depth(camera: Tensor, size: int) -> Tensor:
        calls.append(size)
        _, directions = rays(*split_label(camera), size)
        return (directions @ torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)).view(-1, 1, size, size)

    got = dense_depth(angle_as_depth, c, resolution)
    assert calls == [128] * (resolution // 128) ** 2
    torch.testing.assert_close(got, angle_as_depth(c, resolution), atol=1e-10, rtol=0)


def test_third_mask_of_the_published_axes_is_the_second_transposed() -> None:
    points = torch.rand(2, 300, 3, generator=torch.Generator().manual_seed(3)) - 0.5
    published = texel_hits(points, axes=PUBLISHED, resolution=32)
    assert torch.equal(published[:, 2], published[:, 1].mT)
    assert not torch.equal(texel_hits(points, axes=CORRECTED, resolution=32)[:, 2], published[:, 2])


def test_points_outside_the_cube_are_dropped_or_clamped() -> None:
    points = torch.tensor([[[0.7, 0.1, -0.6], [float("nan"), 0.0, 0.0], [0.5, -0.5, 0.0]]])
    dropped = texel_hits(points, axes=PUBLISHED, resolution=8)
    assert dropped.sum() == 0  # x = 0.5 is one texel too far as well
    clamped = texel_hits(points, axes=PUBLISHED, resolution=8, oob="clamp")
    assert clamped[0, 0, 0].nonzero().tolist() == [[0, 7], [4, 7]]  # (row, column) = (y, x)
    assert clamped[0, 1, 0].nonzero().tolist() == [[0, 7], [4, 7]]  # (z, x)


def test_closing_fills_holes_and_loses_nothing() -> None:
    mask = torch.zeros(1, 3, 1, 9, 9)
    mask[..., 1:8, 1:8] = 1
    mask[..., 3, 3] = mask[..., 5, 4] = 0
    closed = binary_closing(mask)
    assert closed[..., 1:8, 1:8].min() == 1 and (closed >= mask).all()
    torch.testing.assert_close(binary_closing(closed), closed)
    edge = torch.zeros(2, 1, 1, 5, 5)
    edge[..., 0, :] = 1
    assert torch.equal(binary_closing(edge), edge)


def test_dense_depth_and_closing_leave_no_hole_in_the_paper_mask() -> None:
    """A surface seen whole: strict masks at half a ray per texel have holes, the default mask has none."""
    c, config = labels(1), MixConfig()

    def holes(rays_per_axis: int, close: str) -> int:
        depth = torch.full((1, 1, rays_per_axis, rays_per_axis), 2.7)
        mask = visibility_masks(
            points_seen(depth, c), dataclasses.replace(config, close=close), axes=CORRECTED, resolution=64
        )[0, 0, 0]
        inside = mask[16:48, 16:48]  # the camera sees more than this
        return int((inside == 0).sum())

    assert holes(config.depth_resolution_for(64), config.close) == 0
    assert holes(32, "none") > 200


def sphere_under(c: Tensor, size: int, *, radius: float = 0.35, behind: float = 3.3) -> Tensor:
    """Depth (B, 1, n, n) of a sphere about the origin before a background at one distance."""
    origins, directions = rays(*split_label(c), size)
    along = -(origins * directions).sum(-1)
    square = radius**2 - (origins.square().sum(-1) - along.square())
    return torch.where(square > 0, along - square.clamp(min=0).sqrt(), behind).view(-1, 1, size, size)


def sparse(c: Tensor, resolution: int, jump: float, **scene: float) -> tuple[Tensor, int]:
    """`silhouette_depth` of the sphere, and how many rays of the dense map were asked for."""
    dense, asked = sphere_under(c, resolution, **scene), []

    def depth_at(image: int, pixels: Tensor) -> Tensor:
        assert len(pixels) <= 128**2
        asked.append(len(pixels))
        return dense[image].flatten()[pixels]

    found = silhouette_depth(lambda k, size: sphere_under(k, size, **scene), depth_at, c, resolution, jump=jump)
    return found, sum(asked)


def test_smooth_depth_is_interpolated_as_if_it_were_dense() -> None:
    """A sphere that fills the image: no ray beyond the coarse ones, errors of second order in their pitch."""
    c = labels(2)
    found, asked = sparse(c, 128, 0.1, radius=1.0)
    dense = sphere_under(c, 128, radius=1.0)
    assert asked == 0 and float(dense.max() - dense.min()) > 0.02
    assert float((found - dense)[..., 2:-2, 2:-2].abs().max()) < 1e-4
    assert float((found - dense).abs().max()) < 4e-3  # the border takes the nearest: half a coarse pixel


def test_silhouettes_are_rendered_and_not_bridged() -> None:
    c = labels(2)
    found, asked = sparse(c, 256, 4 / 128)
    dense = sphere_under(c, 256)
    gap = (found > float(dense[dense < 3.2].max()) + 0.02) & (found < 3.28)  # between the rim and the background
    assert not gap.any()
    bridged, none = sparse(c, 256, float("inf"))
    assert none == 0 and int(((bridged > 2.8) & (bridged < 3.28)).sum()) > 500
    assert 0 < asked < 0.25 * dense.numel()
    assert float((found - dense).abs().max()) < 4 / 128  # what is interpolated lies between four close depths
    masks = [visibility_masks(points_seen(d, c), MixConfig(), axes=PUBLISHED, resolution=128) for d in (found, dense)]
    assert float((masks[0] * masks[1]).sum() / torch.maximum(*masks).sum()) > 0.98


@pytest.mark.parametrize(("size", "resolution"), [(4, 16), (5, 20), (4, 18), (3, 7), (8, 8), (1, 5)])
def test_jumps_are_the_gaps_that_an_interpolated_pixel_reads(size: int, resolution: int) -> None:
    depth = torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    place = ((torch.arange(resolution).double() + 0.5) * size / resolution - 0.5).clamp(0, size - 1)
    low, high = (f(place).long() for f in (torch.floor, torch.ceil))
    corners = torch.stack([depth[..., y[:, None], x] for y in (low, high) for x in (low, high)])
    spread = corners.amax(0) - corners.amin(0)
    assert (jumps(depth, resolution, 0.3) >= (spread > 0.3)).all()
    inside = (place % 1 > 0) & (place > 0) & (place < size - 1)  # pixels that read four others
    both = inside[:, None] & inside
    assert torch.equal(jumps(depth, resolution, 0.3)[..., both], (spread > 0.3)[..., both])


def test_T8_mask_follows_the_injected_sigmas() -> None:
    c, depth = labels(2), 2.7 + 0.1 * torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(4))
    points, sigmas = points_seen(depth, c), torch.tensor([[1.0, 2.0], [1.7, 1.2]])
    config = dataclasses.replace(OFFICIAL, sigma=None)
    mask = visibility_masks(points, config, axes=PUBLISHED, resolution=64, sigmas=sigmas)
    hits = texel_hits(points, axes=PUBLISHED, resolution=64, oob="clamp")[:, 0, 0].double().numpy()
    width = config.kernel_for(64)
    for i in range(2):
        image = hits[i]
        for step in range(2):
            taps = np.exp(-((np.arange(width) - width // 2) ** 2) / (2 * float(sigmas[i, step]) ** 2))
            taps /= taps.sum()
            padded = np.pad(image, width // 2, mode="reflect")
            windows = np.lib.stride_tricks.sliding_window_view(padded, (width, width))
            image = np.einsum("abij,i,j->ab", windows, taps, taps)
            image = (image > 0.35).astype(float) if step == 0 else image
        np.testing.assert_allclose(mask[i, 0, 0].numpy(), image, atol=1e-6)
    assert (mask[:, 1:] == 1).all()
    assert not torch.equal(mask, visibility_masks(points, config, axes=PUBLISHED, resolution=64, sigmas=sigmas + 0.3))
    with pytest.raises(ValueError, match="random blur"):
        visibility_masks(points, config, axes=PUBLISHED, resolution=64)


def test_blur_keeps_constants_and_treats_images_apart() -> None:
    sigmas = torch.tensor([1.0, 2.0])
    torch.testing.assert_close(gaussian_blur(torch.ones(2, 3, 1, 16, 16), sigmas, 9), torch.ones(2, 3, 1, 16, 16))
    x = torch.rand(2, 3, 1, 16, 16)
    torch.testing.assert_close(gaussian_blur(x, sigmas, 5)[1:], gaussian_blur(x[1:], sigmas[1:], 5))
    soft = soft_closing((x > 0.5).float(), torch.full((2, 2), 1.5), kernel=5, threshold=0.35)
    assert soft.min() >= 0 and soft.max() <= 1


def test_random_sigmas_come_from_the_generator_passed() -> None:
    config = MixConfig(sigma=None)
    draws = [draw_sigmas(config, 4, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert draws[0].shape == (4, 2) and draws[0].min() >= 1 and draws[0].max() <= 2
    assert (draw_sigmas(MixConfig(sigma=1.3), 2) == 1.3).all()


@pytest.mark.parametrize("resolution", [64, 256])
def test_T14_all_ones_keep_the_refined_planes_and_zeros_the_coded_ones(resolution: int) -> None:
    planes_w, planes_f = torch.randn(2, 2, 3, 2, resolution, resolution)
    ones = torch.ones(2, 3, 1, resolution, resolution)
    assert torch.equal(mix_planes(planes_w, planes_f, ones), planes_f)
    assert torch.equal(mix_planes(planes_w, planes_f, 0 * ones), planes_w)


def test_mix_refuses_shapes_that_disagree() -> None:
    planes = torch.zeros(1, 3, 2, 8, 8)
    with pytest.raises(ValueError, match="disagree"):
        mix_planes(planes, planes[..., :4], torch.ones(1, 3, 1, 8, 8))
    with pytest.raises(ValueError, match="does not fit"):
        mix_planes(planes, planes, torch.ones(1, 3, 1, 4, 4))
    with pytest.raises(ValueError, match="does not fit"):
        surface_points(torch.ones(1, 1, 4, 4), torch.zeros(1, 9, 3), torch.zeros(1, 9, 3))


def test_no_mixing_refines_everything() -> None:
    mask = visibility_masks(torch.rand(2, 5, 3), MixConfig(planes="none"), axes=PUBLISHED, resolution=8)
    assert mask.shape == (2, 3, 1, 8, 8) and (mask == 1).all()


def test_gradient_reaches_the_planes_and_not_the_depth() -> None:
    depth = torch.full((1, 1, 16, 16), 2.7, requires_grad=True)
    planes_w = torch.randn(1, 3, 2, 16, 16, requires_grad=True)
    planes_f = torch.randn(1, 3, 2, 16, 16, requires_grad=True)
    mask = visibility_masks(points_seen(depth, labels(1)), MixConfig(), axes=PUBLISHED, resolution=16)
    mix_planes(planes_w, planes_f, mask).sum().backward()
    assert depth.grad is None
    torch.testing.assert_close(planes_f.grad, mask.expand_as(planes_f))
    torch.testing.assert_close(planes_w.grad, (1 - mask).expand_as(planes_w))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("planes", "yz"),
        ("close", "open"),
        ("oob", "wrap"),
        ("depth_from", "F"),
        ("input_view", "w+"),
        ("sigma", 0.0),
        ("threshold", 1.0),
        ("kernel", 4),
        ("depth_density", 0.0),
        ("depth_resolution", 0),
        ("depth_rays", "sparse"),
        ("depth_jump", -1.0),
    ],
)
def test_config_names_the_wrong_key(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"mix\.{field}"):
        dataclasses.replace(MixConfig(), **{field: value})


def test_sizes_scale_with_the_planes() -> None:
    config = MixConfig()
    assert [config.kernel_for(r) for r in (32, 64, 128, 256)] == [3, 3, 5, 9]
    assert [config.depth_resolution_for(r) for r in (64, 256)] == [128, 512]
    assert [OFFICIAL.depth_resolution_for(r) for r in (64, 256)] == [32, 128]
    assert MixConfig(kernel=7, depth_resolution=40).kernel_for(256) == 7
    assert MixConfig(kernel=7, depth_resolution=40).depth_resolution_for(256) == 40


def test_parity_goae_mix_fusion() -> None:
    case = Case("goae_mix_fusion")
    coarse = seeded("goae_mix_fusion/depth", [2, 1, 16, 16])
    depth = 2.65 + 0.15 * interpolate(coarse, (128, 128), mode="bilinear", align_corners=False)
    planes_f, planes_w = (seeded(f"goae_mix_fusion/{name}_triplane", [2, 3, 2, 256, 256]) for name in "fw")
    points = points_seen(depth, case.input("camera"))
    mask = visibility_masks(points, OFFICIAL, axes=PUBLISHED, resolution=256, sigmas=torch.full((2, 2), 1.5))
    share = ((mask[:, 0] - case.output("mask")).abs() > 1e-3).double().mean()
    assert share <= 1e-4  # single texels may flip: coordinates are truncated and a blur is thresholded
    assert OFFICIAL.depth_resolution_for(256) == 128
    mixed = mix_planes(planes_w, planes_f, mask)
    index = torch.from_numpy(case.data["out/mix_triplane@idx"]).long()
    difference = (mixed.flatten()[index] - torch.from_numpy(case.data["out/mix_triplane@val"])).abs()
    assert (difference > 3e-5 * float(mixed.abs().max())).double().mean() <= 1e-3
    if share == 0:
        case.check("mix_triplane", mixed, 3e-5)
