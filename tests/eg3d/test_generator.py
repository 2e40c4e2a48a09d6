"""The whole generator: reference numbers, published sizes, and how its steps compose."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from eg3d.cameras import canonical_label, intrinsics_from_focal, join_label, look_at, pose_from_angles
from eg3d.generator import GeneratorConfig, Synthesis, TriPlaneGenerator
from eg3d.rendering.renderer import RenderingConfig
from eg3d.rendering.sampling import Uniforms, half_uniforms, midpoint_uniforms
from parity import Case, load_state, seeded
from torch import Tensor

CONFIGS = Path(__file__).parents[2] / "configs" / "generator"
KINDS = {"half": half_uniforms, "midpoint": midpoint_uniforms}
IMAGE = 5e-4  # tolerance of renderer and whole images


def config(name: str, rendering: dict[str, Any] | None = None, **changes: Any) -> GeneratorConfig:
    values = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) | changes
    return GeneratorConfig(**values | {"rendering": RenderingConfig(**values["rendering"] | (rendering or {}))})


def released(case: Case, impl: str = "ref") -> TriPlaneGenerator:
    """The generator of a reference file, with its seeded weights."""
    g, r = case.config["generator"], case.config["generator"]["rendering_kwargs"]
    assert r["superresolution_module"].startswith("training.superresolution.SuperresolutionHybrid")
    cfg = GeneratorConfig(
        z_dim=g["z_dim"],
        w_dim=g["w_dim"],
        mapping_layers=g["mapping_kwargs"]["num_layers"],
        image_resolution=g["img_resolution"],
        channel_base=g["channel_base"],
        channel_max=g["channel_max"],
        neural_rendering_resolution=case.config["neural_rendering_resolution"],
        superresolution=r["superresolution_module"].removeprefix("training.superresolution.SuperresolutionHybrid"),
        sr_num_fp16_res=g["sr_num_fp16_res"],
        rendering=RenderingConfig(
            depth_resolution=r["depth_resolution"], depth_resolution_importance=r["depth_resolution_importance"]
        ),
    )
    generator = TriPlaneGenerator(cfg, impl=impl)
    load_state(generator, case.state("generator"))
    return generator.eval()


@pytest.fixture(scope="module")
def case() -> Case:
    return Case("triplane_tiny")


@pytest.fixture(scope="module")
def released_tiny(case: Case) -> TriPlaneGenerator:
    return released(case)


@pytest.fixture
def tiny() -> TriPlaneGenerator:
    torch.manual_seed(0)
    return TriPlaneGenerator(config("tiny"), impl="ref").eval()


def released_ws(case: Case, generator: TriPlaneGenerator) -> Tensor:
    psi, cutoff = case.config["truncation"]["psi"], case.config["truncation"]["cutoff"]
    z, c = case.input("z"), case.input("camera_for_mapping")
    return generator.mapping(z, c, truncation_psi=psi, truncation_cutoff=cutoff)


def placed(kind: str, generator: TriPlaneGenerator, resolution: int | None = None, batch: int = 1) -> Uniforms:
    resolution = resolution or generator.config.neural_rendering_resolution
    r = generator.config.rendering
    return KINDS[kind](batch, resolution**2, r.depth_resolution, r.depth_resolution_importance)


def check_images(case: Case, name: str, result: Synthesis, names: tuple[str, ...]) -> None:
    for n in names:
        case.check(f"{name}.{n}", getattr(result, n), IMAGE)


@torch.no_grad()
def check_released(case: Case, generator: TriPlaneGenerator, views: list[tuple[int, str]]) -> None:
    ws = released_ws(case, generator)
    case.check("ws", ws[:, 0], 1e-5)
    for i, kind in views:
        result = generator.synthesis(ws, case.input("cameras")[i : i + 1], uniforms=placed(kind, generator))
        case.check("planes", result.planes.flatten(1, 2), 3e-5)
        check_images(case, f"cam{i}.{kind}", result, ("image", "image_raw", "image_depth"))
    rgb, sigma = generator.sample(result.planes, case.input("points"))
    case.check("sample_mixed.rgb", rgb, IMAGE)
    case.check("sample_mixed.sigma", sigma, IMAGE)


def test_released_tiny_generator(case: Case, released_tiny: TriPlaneGenerator) -> None:
    check_released(case, released_tiny, [(0, "half"), (0, "midpoint"), (1, "half"), (1, "midpoint")])


@pytest.mark.slow
def test_released_face_configuration() -> None:
    big = Case("triplane_ffhq512")
    check_released(big, released(big, impl="auto"), [(0, "half"), (0, "midpoint"), (1, "half")])


@torch.no_grad()
def test_released_point_query_through_the_mapping(case: Case, released_tiny: TriPlaneGenerator) -> None:
    ws = released_ws(case, released_tiny)
    planes = released_tiny.planes(released_tiny.features(ws, 256), ws)
    case.check("sample.sigma", released_tiny.sample(planes, case.input("points"))[1], IMAGE)


@torch.no_grad()
def test_released_result_at_another_resolution(case: Case, released_tiny: TriPlaneGenerator) -> None:
    c = case.input("cameras")[:1]
    uniforms = placed("half", released_tiny, 24)
    result = released_tiny.synthesis(released_tiny.mapping(case.input("z"), c), c, resolution=24, uniforms=uniforms)
    check_images(case, "forward_res24.half", result, ("image", "image_raw"))
    assert released_tiny.config.neural_rendering_resolution == 16  # not overwritten by the call


@torch.no_grad()
def test_released_raw_image_where_nothing_is_resized(case: Case, released_tiny: TriPlaneGenerator) -> None:
    ws = released_ws(case, released_tiny)
    uniforms = placed("half", released_tiny, 64)
    result = released_tiny.synthesis(ws, case.input("cameras")[:1], resolution=64, uniforms=uniforms)
    case.check("native64.half.image", result.image, IMAGE)
    case.check("native64.half.image_raw_rendered", result.image_raw, IMAGE)
    case.check("native64.half.image_raw_returned", released_tiny.released_image_raw(result.rendering, ws), IMAGE)
    small = released_tiny.render(result.planes, case.input("cameras")[:1])
    assert released_tiny.released_image_raw(small, ws) is small.image_raw


def test_released_gradient(case: Case, released_tiny: TriPlaneGenerator) -> None:
    ws = released_ws(case, released_tiny).detach().requires_grad_()
    image = released_tiny.synthesis(ws, case.input("cameras")[:1], uniforms=placed("midpoint", released_tiny)).image
    (image * seeded(case.config["grad_key"], image.shape)).mean().backward()
    assert ws.grad is not None
    case.check("grad_ws_of_mean_image_times_g", ws.grad, 2e-3)


@pytest.mark.parametrize(
    ("name", "changes"), [("ws_cond_zero", {"c_gen_conditioning_zero": True}), ("ws_c_scale0.5", {"c_scale": 0.5})]
)
def test_released_conditioning(
    case: Case, released_tiny: TriPlaneGenerator, name: str, changes: dict[str, Any]
) -> None:
    other = TriPlaneGenerator(GeneratorConfig(**vars(released_tiny.config) | changes), impl="ref")
    other.load_state_dict(released_tiny.state_dict())
    ws = other.mapping(case.input("z"), case.input("camera_for_mapping"))
    case.check(name, ws[:, 0], 1e-5)


def test_names_and_sizes_of_the_published_face_model() -> None:
    with torch.device("meta"):
        generator = TriPlaneGenerator(config("ffhq512"))
    state = {n: tuple(t.shape) for n, t in generator.state_dict().items()}
    stored = Case("triplane_ffhq512").state("generator")
    assert {n: s for n, s in state.items() if not n.endswith("resample_filter")} == {
        n: tuple(t.shape) for n, t in stored.items()
    }
    assert len(state) == 176 and sum(p.numel() for p in generator.parameters()) == 30_662_136
    assert sum(b.numel() for b in generator.buffers()) == 831_024
    assert generator.num_ws == 14 and generator.row_offset(32) == 7
    assert sum(p.numel() for p in generator.decoder.parameters()) == 4257


def test_names_and_sizes_of_the_published_car_model() -> None:
    with torch.device("meta"):
        generator = TriPlaneGenerator(config("cars128"))
    state = generator.state_dict()
    assert len(state) == 177 and state["superresolution.resample_filter"].shape == (4, 4)
    assert sum(p.numel() for p in generator.parameters()) == 29_587_512
    assert sum(p.numel() for p in generator.superresolution.parameters()) == 574_954


def test_sizes_of_the_mini_generator() -> None:
    generator = TriPlaneGenerator(config("mini"), impl="ref")
    assert generator.num_ws == 10 and generator.w_avg.shape == (128,)
    assert 1_000_000 < sum(p.numel() for p in generator.parameters()) < 1_400_000
    with torch.no_grad():
        ws = generator.mapping(torch.zeros(1, 64), canonical_label())
        features = generator.features(ws, 16)
        assert features.x.shape == (1, 128, 16, 16) and features.skip.shape == (1, 96, 16, 16)
        assert generator.row_offset(16) == 5
        result = generator.synthesis(ws, canonical_label())
    assert result.image.shape == (1, 3, 64, 64) and result.image_raw.shape == (1, 3, 32, 32)
    assert result.planes.shape == (1, 3, 32, 64, 64) and result.rendering.feature_image.shape == (1, 32, 32, 32)
    assert result.image_depth.shape == result.rendering.opacity.shape == (1, 1, 32, 32)


@pytest.mark.parametrize("name", ["ffhq512", "afhqcat512", "cars128", "mini", "tiny"])
def test_every_config_names_every_field(name: str) -> None:
    values = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    cfg = config(name)
    assert set(values) == set(vars(cfg)) and set(values["rendering"]) == set(vars(cfg.rendering))


def test_defaults_are_the_published_face_model() -> None:
    assert config("ffhq512") == GeneratorConfig()


def codes(generator: TriPlaneGenerator, batch: int = 2) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(3)
    poses = pose_from_angles(torch.linspace(-0.5, 0.4, batch), 0.1, pivot=(0, 0, 0.1))
    c = join_label(poses, intrinsics_from_focal())
    return torch.randn(batch, generator.config.z_dim, generator=rng), c


@torch.no_grad()
def test_synthesis_is_the_composition_of_the_steps(tiny: TriPlaneGenerator) -> None:
    """Bit for bit, wherever the backbone is cut."""
    z, c = codes(tiny)
    ws = tiny.mapping(z, c)
    whole = tiny.synthesis(ws, c)
    for resolution in (4, 8, 16, 32):
        planes = tiny.planes(tiny.features(ws, resolution), ws)
        assert torch.equal(planes, whole.planes)
    rendering = tiny.render(planes, c)
    assert torch.equal(tiny.superresolve(rendering.image_raw, rendering.feature_image, ws), whole.image)
    assert torch.equal(rendering.image_raw, whole.image_raw) and torch.equal(rendering.image_depth, whole.image_depth)
    assert torch.equal(rendering.image_raw, rendering.feature_image[:, :3])
    assert torch.equal(tiny(z, c), whole.image)


@torch.no_grad()
def test_changed_features_change_the_planes_above_the_cut_only(tiny: TriPlaneGenerator) -> None:
    ws = tiny.mapping(*codes(tiny))
    features = tiny.features(ws, 8)
    below = ws.clone()
    below[:, : tiny.row_offset(8)] += 1  # rows that only the first half reads
    assert torch.equal(tiny.planes(features, below), tiny.planes(features, ws))
    changed = features._replace(x=features.x + 1)
    assert not torch.equal(tiny.planes(changed, ws), tiny.planes(features, ws))


@torch.no_grad()
def test_pixels_are_rows_of_rays(tiny: TriPlaneGenerator) -> None:
    """Planes that are dense only at +y light up the upper half of the image, and only at -x the left half."""
    with torch.no_grad():
        tiny.decoder.net[0].weight.copy_(torch.eye(64, 8) * math.sqrt(8))
        tiny.decoder.net[0].bias.zero_()
        tiny.decoder.net[2].weight.zero_()
        tiny.decoder.net[2].weight[0, 0] = 300
        tiny.decoder.net[2].bias.zero_()
        tiny.decoder.net[2].bias[0] = -75  # -49 where the planes are 0, 51 where they are 10
    planes = torch.zeros(1, 3, 8, 32, 32)
    planes[:, 0, 0, 16:, :] = 10  # +y is a larger row of the first plane
    up = tiny.render(planes, canonical_label()).opacity[0, 0]
    assert up[:7].min() > 0.9 and up[9:].max() < 0.1
    left = tiny.render(planes.flip(3).transpose(3, 4), canonical_label()).opacity[0, 0]
    assert left[:, :7].min() > 0.9 and left[:, 9:].max() < 0.1


@torch.no_grad()
def test_renders_are_deterministic_unless_drawn(tiny: TriPlaneGenerator) -> None:
    z, c = codes(tiny)
    ws = tiny.mapping(z, c)
    draw = lambda seed: tiny.synthesis(ws, c, uniforms=torch.Generator().manual_seed(seed)).image  # noqa: E731
    assert torch.equal(
        tiny.synthesis(ws, c).image, tiny.synthesis(ws, c, uniforms=placed("midpoint", tiny, batch=2)).image
    )
    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))
    state = torch.get_rng_state()
    tiny.synthesis(ws, c)
    assert torch.equal(state, torch.get_rng_state())


@torch.no_grad()
def test_noise_is_the_stored_image_by_default(tiny: TriPlaneGenerator) -> None:
    for name, parameter in tiny.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.5)
    z, c = codes(tiny)
    ws = tiny.mapping(z, c)

    def noisy(mode: str, seed: int = 0) -> Tensor:
        return tiny.synthesis(ws, c, noise_mode=mode, rng=torch.Generator().manual_seed(seed)).planes

    assert torch.equal(noisy("const"), noisy("const", 1)) and not torch.equal(noisy("const"), noisy("none"))
    assert torch.equal(noisy("random"), noisy("random")) and not torch.equal(noisy("random"), noisy("random", 1))


@torch.no_grad()
@pytest.mark.parametrize("resolution", [1, 7, 16])
def test_a_batch_equals_its_rows(tiny: TriPlaneGenerator, resolution: int) -> None:
    """Up to rounding; no depth of these rays meets the clamp, whose limits come from the whole batch."""
    z, c = codes(tiny, 3)
    ws = tiny.mapping(z, c)
    whole = tiny.synthesis(ws, c, resolution=resolution)
    for i in range(3):
        row = tiny.synthesis(ws[i : i + 1], c[i : i + 1], resolution=resolution)
        for name in ("image", "image_raw", "image_depth", "planes"):
            a, b = getattr(whole, name)[i : i + 1], getattr(row, name)
            torch.testing.assert_close(a, b, atol=3e-5 * float(a.abs().max()), rtol=0)


@torch.no_grad()
def test_conditioning_label(tiny: TriPlaneGenerator) -> None:
    z, c = codes(tiny)
    blind = TriPlaneGenerator(config("tiny", c_gen_conditioning_zero=True), impl="ref")
    blind.load_state_dict(tiny.state_dict())
    assert torch.equal(blind.mapping(z, c), blind.mapping(z, c.flip(0)))
    assert torch.equal(blind.mapping(z, c), tiny.mapping(z, torch.zeros_like(c)))
    assert not torch.equal(tiny.mapping(z, c), tiny.mapping(z, c.flip(0)))


@torch.no_grad()
def test_truncation_and_mean(tiny: TriPlaneGenerator) -> None:
    z, c = codes(tiny)
    ws = tiny.mapping(z, c, update_w_avg=True)
    torch.testing.assert_close(tiny.w_avg, 0.002 * ws[:, 0].mean(dim=0))
    half = tiny.mapping(z, c, truncation_psi=0.5, truncation_cutoff=3)
    torch.testing.assert_close(half[:, :3], tiny.w_avg + 0.5 * (ws[:, :3] - tiny.w_avg))
    assert torch.equal(half[:, 3:], ws[:, 3:])


def test_gradients_reach_everything_that_is_trained(tiny: TriPlaneGenerator) -> None:
    """All parameters but the noise strengths of the super-resolution, which runs without noise as published."""
    tiny.train()
    z, c = codes(tiny)
    c.requires_grad_()
    result = tiny.synthesis(tiny.mapping(z, c), c)
    (result.image.square().mean() + result.image_raw.mean() + result.image_depth.mean()).backward()
    assert c.grad is not None and c.grad.abs().sum() > 0
    for name, parameter in tiny.named_parameters():
        if "superresolution" in name and name.endswith("noise_strength"):
            assert parameter.grad is None
        else:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0, name


@torch.no_grad()
def test_points_are_those_of_the_render(tiny: TriPlaneGenerator) -> None:
    z, c = codes(tiny, 1)
    planes = tiny.planes(tiny.features(tiny.mapping(z, c), 32), tiny.mapping(z, c))
    points = torch.rand(1, 50, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    rgb, sigma = tiny.sample(planes, points)
    assert rgb.shape == (1, 50, 32) and sigma.shape == (1, 50, 1)
    again = [tiny.sample(planes, p)[1] for p in points.split(7, dim=1)]
    torch.testing.assert_close(torch.cat(again, dim=1), sigma, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"superresolution": "3X"}, "superresolution.*8XDC"),
        ({"image_resolution": 256}, "image_resolution is 256.*makes 512"),
        ({"superresolution_input": 64}, "makes 256"),
        ({"superresolution_channels": [8]}, "expected two"),
        ({"plane_resolution": 96}, "power of two"),
        ({"channel_base": 128}, "channel_base is 128, expected at least 256"),
        ({"z_dim": 0}, "z_dim"),
        ({"avg_camera_pivot": [0.0]}, "avg_camera_pivot"),
        ({"superresolution_noise_mode": "loud"}, "superresolution_noise_mode"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GeneratorConfig(**changes)


def test_wrong_labels_are_refused(tiny: TriPlaneGenerator) -> None:
    with pytest.raises(ValueError, match=r"\(B, 25\)"):
        tiny.render(torch.zeros(1, 3, 8, 32, 32), torch.zeros(1, 16))


# Weights from an integer hash, and numbers that independent code made from them.


def hashed(stream: int, count: int) -> Tensor:
    """Uniform numbers of variance 1, float64, from a hash in 32-bit arithmetic."""
    h = (torch.arange(1, count + 1) * 2654435761 + 2246822519 * (stream + 1)) & 0xFFFFFFFF
    for shift, factor in ((15, 2246822519), (13, 3266489917)):
        h = h ^ (h >> shift)
        # Multiply in halves: the product of two 32-bit numbers does not fit into a signed 64-bit one.
        h = ((h & 0xFFFF) * factor + (((h >> 16) * factor & 0xFFFF) << 16)) & 0xFFFFFFFF
    h = h ^ (h >> 16)
    return math.sqrt(12) * ((h.double() + 0.5) / 2**32 - 0.5)


def hashed_generator(name: str, impl: str = "ref", **rendering: Any) -> TriPlaneGenerator:
    generator = TriPlaneGenerator(config(name, rendering), impl=impl)
    state = generator.state_dict()
    names = sorted(n for n in state if not n.endswith("resample_filter"))
    assert len(names) == 150
    for k, n in enumerate(names):
        v = hashed(k, state[n].numel()).view(state[n].shape)
        if "mapping.fc" in n:
            v = v * (10 if n.endswith("bias") else 100)
        elif n.endswith("affine.bias"):
            v = 1 + 0.1 * v
        elif n.endswith(("bias", "noise_strength", "w_avg")):
            v = 0.1 * v
        state[n].copy_(v.float())
    return generator.eval()


def hashed_views(generator: TriPlaneGenerator, focal: float) -> tuple[Tensor, Tensor]:
    cfg = generator.config
    h, v = math.pi / 2 + torch.tensor([0.4, -0.3]), math.pi / 2 + torch.tensor([-0.2, 0.1])
    c = join_label(look_at(h, v, cfg.avg_camera_pivot, cfg.avg_camera_radius), intrinsics_from_focal(focal))
    z = hashed(1000, 1024).view(2, 512).float()
    return generator.mapping(z, c, truncation_psi=0.7, truncation_cutoff=14), c


def check_statistics(x: Tensor, statistics: list[float], entries: dict[tuple[int, ...], float]) -> None:
    """Mean, unbiased standard deviation, minimum, maximum, and single entries, as printed."""
    found = torch.stack([x.mean(), x.std(), x.min(), x.max()]).double()
    scale = float(x.abs().max())
    torch.testing.assert_close(found, torch.tensor(statistics, dtype=torch.float64), atol=1e-5 * scale, rtol=0)
    picked = torch.tensor([x[i].item() for i in entries])
    torch.testing.assert_close(picked, torch.tensor(list(entries.values())), atol=3e-5 * scale, rtol=0)


POINTS = torch.tensor([[0.1, 0.2, 0.3], [-0.25, 0.05, 0.4], [0, 0, 0], [0.7, 0.1, -0.2]])  # the last is outside


def test_hashed_numbers() -> None:
    torch.testing.assert_close(hashed(0, 3), torch.tensor([-1.15360698, -0.31035530, 0.42587296]).double())
    torch.testing.assert_close(hashed(7, 2), torch.tensor([-1.40862271, -1.01816265]).double())


@pytest.mark.slow
@torch.no_grad()
def test_hashed_face_generator() -> None:
    generator = hashed_generator("ffhq512", "auto", depth_resolution=12, depth_resolution_importance=12)
    ws, c = hashed_views(generator, 4.2647)
    f, skip = generator.features(ws, 32)
    out = generator.synthesis(ws, c, resolution=16)
    check = check_statistics
    check(
        ws,
        [0.3273520, 0.6606678, -0.642468, 3.430192],
        {(0, 0, 0): 0.027695, (0, 13, 511): -0.044594, (1, 5, 100): 0.675441},
    )
    check(f, [0.2360086, 0.4928992, -0.685354, 4.161655], {(0, 0, 0, 0): 0.297689, (1, 300, 16, 5): 1.298348})
    check(skip, [0.0892215, 1.3757118, -6.077731, 6.068672], {(0, 0, 0, 0): 0.590363, (1, 50, 16, 5): -0.319331})
    check(
        out.planes.flatten(1, 2),
        [0.1710792, 2.0575484, -8.243601, 9.817293],
        {
            (0, 0, 0, 0): 0.061889,
            (0, 31, 128, 7): 0.027034,
            (0, 32, 200, 100): -0.147308,
            (1, 95, 255, 255): -0.046994,
        },
    )
    check(
        out.rendering.feature_image,
        [-0.7368261, 0.1340369, -0.976286, -0.166426],
        {(0, 0, 0, 0): -0.825393, (0, 31, 8, 8): -0.765791, (1, 5, 3, 15): -0.920674},
    )
    check(
        out.image_raw,
        [-0.7045166, 0.1272078, -0.886273, -0.361118],
        {(0, 0, 0, 0): -0.825393, (0, 1, 8, 8): -0.773067, (1, 2, 15, 0): -0.610328},
    )
    check(
        out.image_depth,
        [2.8051842, 0.0589997, 2.695766, 2.934373],
        {(0, 0, 0, 0): 2.877605, (0, 0, 8, 8): 2.909206, (1, 0, 15, 0): 2.768310},
    )
    check(
        out.image,
        [0.4698755, 0.9506986, -2.240793, 2.544780],
        {
            (0, 0, 0, 0): 0.421648,
            (0, 1, 256, 256): 2.409424,
            (1, 2, 511, 0): 0.352993,
            (1, 0, 170, 102): -0.212437,
        },
    )
    rgb, sigma = generator.sample(out.planes, POINTS.expand(2, 4, 3))
    expected = [[-0.8689673, -0.5527513, -0.8499391, 0.0475061], [-0.0436063, 0.0378797, 0.3331240, 0.0475061]]
    torch.testing.assert_close(sigma[..., 0], torch.tensor(expected), atol=3e-5, rtol=0)
    expected = [[0.4048882, 0.4604352, 0.3270057, 0.4220964], [0.4261707, 0.4299243, 0.3327285, 0.4220964]]
    torch.testing.assert_close(rgb[..., 0], torch.tensor(expected), atol=3e-5, rtol=0)


@pytest.mark.slow
@torch.no_grad()
def test_hashed_car_generator() -> None:
    """No pose conditioning, white background, a larger box, and the changed raw image."""
    generator = hashed_generator("cars128", depth_resolution=8, depth_resolution_importance=8)
    ws, c = hashed_views(generator, 1.7074)
    out = generator.synthesis(ws, c)
    check = check_statistics
    check(
        ws,
        [0.3165250, 0.6366915, -0.718536, 3.077046],
        {(0, 0, 0): 0.571907, (0, 13, 511): -0.107167, (1, 5, 100): 1.189270},
    )
    check(
        out.planes.flatten(1, 2),
        [-0.0088705, 1.8452970, -8.693685, 10.272866],
        {
            (0, 0, 0, 0): 0.130199,
            (0, 31, 128, 7): 1.334920,
            (0, 32, 200, 100): -1.944864,
            (1, 95, 255, 255): -0.315389,
        },
    )
    check(
        out.rendering.feature_image,
        [0.4093008, 0.2493936, -0.408913, 0.858102],
        {(0, 0, 0, 0): 0.377856, (0, 31, 32, 32): 0.781490, (1, 5, 3, 63): 0.014893},
    )
    check(
        generator.released_image_raw(out.rendering, ws),
        [0.5700038, 0.4637758, -0.469652, 1.390003],
        {(0, 0, 0, 0): -0.191189, (0, 1, 32, 32): 1.072742, (1, 2, 63, 0): -0.249438},
    )
    assert torch.equal(out.image_raw, out.rendering.feature_image[:, :3])
    check(
        out.image_depth,
        [1.4204279, 0.0521754, 1.294186, 1.642705],
        {(0, 0, 0, 0): 1.429133, (0, 0, 32, 32): 1.370372, (1, 0, 63, 0): 1.411977},
    )
    check(
        out.image,
        [0.5895179, 1.3065779, -1.429209, 2.552994],
        {(0, 0, 0, 0): -0.189059, (0, 1, 64, 64): 2.477473, (1, 2, 127, 0): 0.185236, (1, 0, 42, 25): -1.287230},
    )
    sigma = generator.sample(out.planes, POINTS.expand(2, 4, 3))[1]
    expected = [[0.6857582, -0.1662661, 0.0159849, 0.2200295], [1.5753355, 0.6217133, 1.4474767, 0.7607260]]
    torch.testing.assert_close(sigma[..., 0], torch.tensor(expected), atol=3e-5, rtol=0)
