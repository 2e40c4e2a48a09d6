"""The renderer against reference numbers in all of its settings, and what holds for any of them."""

from typing import Any

import pytest
import torch
from eg3d.cameras import canonical_label, intrinsics_from_focal, join_label, pose_from_angles, split_label
from eg3d.nn.decoder import Decoder
from eg3d.rendering.marching import march
from eg3d.rendering.rays import rays
from eg3d.rendering.reference import merge_depths, unsort
from eg3d.rendering.renderer import Rays, Renderer, RenderingConfig
from eg3d.rendering.sampling import Uniforms, half_uniforms, importance_depths, midpoint_uniforms, random_uniforms
from parity import Case, load_state, seeded
from torch import Tensor

KINDS = {"half": half_uniforms, "midpoint": midpoint_uniforms}
TOLERANCE = 5e-4  # renderer and whole images
CASE = Case("importance_renderer")
SMALL = {"depth_resolution": 6, "depth_resolution_importance": 5}


def config(values: dict[str, Any]) -> RenderingConfig:
    values = {k: None if v == "auto" else v for k, v in values.items() if k != "clamp_mode"}
    return RenderingConfig(**values)


def reference_decoder() -> Decoder:
    decoder = Decoder(32)
    load_state(decoder, CASE.state("decoder"), "decoder.")
    return decoder


@pytest.mark.parametrize("impl", ["ref", "cpu"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", CASE.config["variants"])
def test_released_results(variant: str, kind: str, impl: str) -> None:
    cfg, decoder, planes = config(CASE.config["variants"][variant]), reference_decoder(), CASE.input("planes")
    camera = CASE.input("camera_auto_wide" if variant == "auto_wide" else "camera")
    uniforms = KINDS[kind](2, 144, cfg.depth_resolution, cfg.depth_resolution_importance)
    result = Renderer(cfg, impl)(planes.requires_grad_(), decoder, *rays(*split_label(camera), 12), uniforms)
    names = dict(zip(("rgb", "depth", "weights"), result, strict=True))
    for name, value in names.items():
        CASE.check(f"{variant}.{kind}.{name}", value, TOLERANCE)
    if f"out/{variant}.{kind}.d_net.0.weight" in CASE.data:
        keys = ("ga", "gb", "gc")
        sum(
            (v * seeded(f"importance_renderer/{k}", v.shape)).mean() for k, v in zip(keys, result, strict=True)
        ).backward()
        assert planes.grad is not None
        CASE.check(f"{variant}.{kind}.dplanes", planes.grad, TOLERANCE)
        for name, parameter in decoder.named_parameters():
            CASE.check(f"{variant}.{kind}.d_{name}", parameter.grad, TOLERANCE)


def test_released_merging() -> None:
    case = Case("renderer_parts")
    depths = case.input("march_depths").abs().cumsum(dim=2) * 0.1 + 2.0
    colors, densities = torch.sigmoid(case.input("march_colors")), case.input("march_densities")
    merged, order = merge_depths(depths, depths + 0.013)
    sort = lambda x: x.gather(2, order.expand(-1, -1, -1, x.shape[-1]))  # noqa: E731
    case.check("unify_depths", merged, 1e-6)
    case.check("unify_colors", sort(torch.cat([colors, colors * 0.5], dim=2)), 1e-6)
    case.check("unify_densities", sort(torch.cat([densities, densities + 1], dim=2)), 1e-6)
    torch.testing.assert_close(unsort(merged, order), torch.cat([depths, depths + 0.013], dim=2), atol=0, rtol=0)


def scene(batch: int = 2, channels: int = 4) -> tuple[Tensor, Decoder, Tensor]:
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    decoder = Decoder(channels, hidden=8, out_channels=5)
    with torch.no_grad():
        decoder.net[2].weight[0] *= 3
        decoder.net[2].bias[0] = 4
    poses = pose_from_angles(torch.linspace(-0.4, 0.5, batch), 0.1)
    return torch.randn(batch, 3, channels, 8, 8, generator=rng), decoder, join_label(poses, intrinsics_from_focal())


def render(
    planes: Tensor, decoder: Decoder, c: Tensor, resolution: int = 5, u: Uniforms | None = None, **kw: Any
) -> Rays:
    cfg = RenderingConfig(**(SMALL | kw))
    sizes = (len(c), resolution**2, cfg.depth_resolution, cfg.depth_resolution_importance)
    return Renderer(cfg)(planes, decoder, *rays(*split_label(c), resolution), u or midpoint_uniforms(*sizes))


def test_two_lists_of_samples_equal_one_sorted_list() -> None:
    """Compositing where the samples stand equals sorting colours and densities, as the definition does."""
    planes, decoder, c = scene()
    result = render(planes, decoder, c)
    seen: list[Tensor] = []

    def record(features: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(features)
        return decoder(features)

    cfg = RenderingConfig(**SMALL)
    renderer = Renderer(cfg)
    origins, directions = rays(*split_label(c), 5)
    renderer(planes, record, origins, directions, midpoint_uniforms(2, 25, 6, 5))
    assert [f.shape[1] for f in seen] == [25 * 6, 25 * 5]  # nothing is evaluated twice
    colors, densities = (
        torch.cat([a.view(2, 25, 6, -1), b.view(2, 25, 5, -1)], dim=2)
        for a, b in zip(decoder(seen[0]), decoder(seen[1]), strict=True)
    )
    coarse = renderer._coarse_depths(origins, directions, midpoint_uniforms(2, 25, 6, 5).coarse)
    weights = march(colors[:, :, :6], densities[:, :, :6], coarse).weights
    depths, order = merge_depths(coarse, importance_depths(coarse, weights, midpoint_uniforms(2, 25, 6, 5).fine))
    expected = march(colors.gather(2, order.expand(-1, -1, -1, 5)), densities.gather(2, order), depths)
    torch.testing.assert_close(result.features, expected.features, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(result.depth, expected.depth, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(result.weight_sum, expected.weights.sum(dim=2), atol=1e-6, rtol=1e-5)


def test_constant_volume_of_full_density() -> None:
    """Opaque everywhere: weight 1, the colour of the biases, depth within the first steps."""
    planes, decoder, c = scene()
    with torch.no_grad():
        decoder.net[2].weight.zero_()
        decoder.net[2].bias.copy_(torch.tensor([500.0, 0, 1, -1, 2, -2]))
    result = render(planes, decoder, c)
    torch.testing.assert_close(result.weight_sum, torch.ones(2, 25, 1))
    expected = 2 * (torch.sigmoid(torch.tensor([0.0, 1, -1, 2, -2])) * 1.002 - 0.001) - 1
    torch.testing.assert_close(result.features, expected.expand(2, 25, 5), atol=1e-5, rtol=0)
    assert result.depth.min() > 2.25 and result.depth.max() < 2.25 + 2 * (3.3 - 2.25) / 5


@pytest.mark.parametrize("points", [1, 7, 30, 150, 151, 300])
@pytest.mark.parametrize("limits", [(2.25, 3.3), (None, None)])
def test_portions_do_not_change_the_result(points: int, limits: tuple[float | None, float | None]) -> None:
    """Single rays, uneven rests, single batch items, everything: values and gradients."""
    planes, decoder, c = scene(2)
    with torch.no_grad():
        decoder.net[2].bias[0] = -2  # some rays are nearly empty
    cfg = RenderingConfig(**SMALL, ray_start=limits[0], ray_end=limits[1])
    camera, u = rays(*split_label(c), 5), half_uniforms(2, 25, 6, 5)

    def run(renderer: Renderer) -> tuple[Rays, list[Tensor]]:
        leaf = planes.clone().requires_grad_()
        found = renderer(leaf, decoder, *camera, u)
        (found.features.sum() + found.depth.sum()).backward()
        assert leaf.grad is not None
        grads = [leaf.grad, *(p.grad.clone() for p in decoder.parameters() if p.grad is not None)]
        decoder.zero_grad()
        return found, grads

    found, grads = run(Renderer(cfg, "ref", points_at_once=points))
    expected, expected_grads = run(Renderer(cfg, "ref", points_at_once=10**6))
    for a, b in zip([*found, *grads], [*expected, *expected_grads], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_a_batch_equals_its_rows() -> None:
    """But for the depth of rays whose depth was clamped by another item's extrema; here none is."""
    planes, decoder, c = scene(3)
    whole = render(planes, decoder, c)
    for i in range(3):
        row = render(planes[i : i + 1], decoder, c[i : i + 1])
        for a, b in zip(whole, row, strict=True):
            torch.testing.assert_close(a[i : i + 1], b, atol=1e-6, rtol=1e-6)


def test_depth_of_empty_rays_depends_on_the_batch() -> None:
    """The clamp takes the largest depth of all items, as the released code does."""
    planes, decoder, c = scene(2)
    with torch.no_grad():
        decoder.net[2].weight.zero_()
        decoder.net[2].bias[0] = -1000
    far = c.clone()
    far[1, [3, 7, 11]] *= 1.1
    near_alone = render(planes[:1], decoder, far[:1], ray_start=None, ray_end=None).depth
    together = render(planes, decoder, far, ray_start=None, ray_end=None).depth
    assert (together == together.max()).all() and together[0, 0] > near_alone[0, 0]


def test_one_single_ray() -> None:
    planes, decoder, _ = scene(1)
    one = render(planes, decoder, canonical_label(), resolution=1)
    assert one.features.shape == (1, 1, 5) and one.depth.shape == one.weight_sum.shape == (1, 1, 1)
    odd = render(planes, decoder, canonical_label(), resolution=3)
    for a, b in zip(one, odd, strict=True):
        torch.testing.assert_close(a[:, 0], b[:, 4], atol=1e-6, rtol=1e-6)


def test_rays_outside_of_the_box_decode_zero_features() -> None:
    planes, decoder, c = scene(1)
    away = c.clone()
    away[:, 3] += 50
    outside = render(planes, decoder, away)
    torch.testing.assert_close(outside.features, render(torch.zeros_like(planes), decoder, away).features)
    assert outside.features.std(dim=1).max() < 1e-5 and torch.isfinite(outside.depth).all()


def test_limits_of_the_box() -> None:
    """With both limits None a ray is sampled where it crosses the box, whatever the camera's distance."""
    planes, decoder, c = scene(1)
    auto = {"ray_start": None, "ray_end": None}
    near = render(planes, decoder, c, resolution=3, **auto)
    assert (near.depth > 2.7 - 0.9).all() and (near.depth < 2.7 + 0.9).all()
    straight = canonical_label()
    by_hand = render(planes, decoder, straight, resolution=1, ray_start=2.2, ray_end=3.2)
    for a, b in zip(render(planes, decoder, straight, resolution=1, **auto), by_hand, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_white_background() -> None:
    planes, decoder, c = scene(1)
    with torch.no_grad():
        decoder.net[2].bias[0] = -0.5
    black, white = render(planes, decoder, c), render(planes, decoder, c, white_back=True)
    torch.testing.assert_close(white.features, black.features + 2 * (1 - black.weight_sum), atol=1e-6, rtol=1e-5)


def test_corrected_axes_see_y_on_two_planes() -> None:
    planes, decoder, c = scene(1)
    planes[:, :2] = 0
    rows = planes.clone()
    rows[:, 2] = torch.arange(8.0).view(8, 1)  # grows along the plane's height: x if published, y if corrected
    flat = render(rows, decoder, c, plane_axes="xy,xz,zx").features
    tall = render(rows, decoder, c, plane_axes="xy,xz,zy").features
    assert (flat - tall).abs().max() > 1e-3
    swapped = rows.transpose(3, 4)
    torch.testing.assert_close(render(swapped, decoder, c, plane_axes="xy,xz,xz").features, flat, atol=1e-6, rtol=1e-5)


def test_random_uniforms_are_reproducible() -> None:
    planes, decoder, c = scene()
    draw = lambda seed: random_uniforms(2, 25, 6, 5, rng=torch.Generator().manual_seed(seed))  # noqa: E731
    first, again, other = (render(planes, decoder, c, u=draw(s)).features for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_gradients_reach_planes_decoder_and_rays() -> None:
    planes, decoder, c = scene()
    planes.requires_grad_()
    c.requires_grad_()
    result = render(planes, decoder, c)
    (result.features.sum() + result.depth.sum() + result.weight_sum.sum()).backward()
    for tensor in (planes, c, *decoder.parameters()):
        assert tensor.grad is not None and torch.isfinite(tensor.grad).all() and tensor.grad.abs().sum() > 0


def test_gradients_equal_finite_differences() -> None:
    """In double precision, without importance samples, whose places have no gradient by definition."""
    planes, decoder, c = scene(1, channels=2)
    planes, decoder, c = planes.double(), decoder.double(), c.double()
    u = Uniforms(torch.full((1, 1, 6, 1), 0.5).double(), torch.zeros(1, 0))
    run = lambda p: render(p, decoder, c, resolution=1, u=u, depth_resolution_importance=0)[:2]  # noqa: E731
    assert torch.autograd.gradcheck(run, planes[..., 2:6, 2:6].contiguous().requires_grad_(), fast_mode=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ray_start": None}, "both"),
        ({"ray_start": 3.4}, "ray_start < ray_end"),
        ({"ray_start": 0.0}, "0 < ray_start"),
        ({"box_warp": 0.0}, "box_warp"),
        ({"depth_resolution": 3}, "at least 4"),
        ({"depth_resolution": 1, "depth_resolution_importance": 0}, "at least 2"),
        ({"depth_resolution_importance": -1}, ">= 0"),
        ({"ray_start": None, "ray_end": None, "disparity_space_sampling": True}, "disparity"),
        ({"plane_axes": "xy,yz"}, "plane_axes"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RenderingConfig(**values)


def test_uniforms_that_do_not_fit_are_refused() -> None:
    planes, decoder, c = scene()
    with pytest.raises(ValueError, match="uniforms"):
        render(planes, decoder, c, u=midpoint_uniforms(2, 25, 6, 4))


def test_no_state() -> None:
    assert not Renderer(RenderingConfig()).state_dict()


def test_recomputed_samples_give_the_same_values_and_gradients() -> None:
    torch.manual_seed(0)
    config = RenderingConfig(depth_resolution=6, depth_resolution_importance=6)
    planes, decoder = torch.randn(2, 3, 8, 16, 16), Decoder(8)
    origins, directions = rays(*split_label(canonical_label().expand(2, -1)), 4)
    uniforms = midpoint_uniforms(2, 16, 6, 6)
    found = []
    for recompute in (False, True):
        leaf = planes.clone().requires_grad_()
        renderer = Renderer(config, "ref", points_at_once=48, recompute=recompute)
        out = renderer(leaf, decoder, origins, directions, uniforms)
        (gradient,) = torch.autograd.grad(out.features.square().sum() + out.depth.sum(), leaf)
        found.append((out.features, out.depth, gradient))
    for kept, recomputed in zip(*found, strict=True):
        assert torch.equal(kept, recomputed)
