"""The fused renderer against the reference in single and double precision: values, gradients, limits, messages."""

import math
import shutil
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from eg3d.cameras import canonical_label, split_label
from eg3d.nn.decoder import Decoder
from eg3d.ops import build
from eg3d.rendering import fused, reference
from eg3d.rendering.marching import Marched, Settings
from eg3d.rendering.rays import rays
from eg3d.rendering.renderer import Renderer, RenderingConfig
from eg3d.rendering.sampling import midpoint_uniforms, random_uniforms
from torch import Tensor

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
NAMES = ("features", "depth", "total", "planes", "origins", "directions", "w1", "b1", "w2", "b2")
# batch, rays, coarse, fine, channels, hidden, colours, planes (height, width), box, axes, rays' spread
CASES = {
    "published": (2, 36, 48, 48, 32, 64, 32, (32, 32), 1.0, "xy,xz,zx", 0.1),
    "corrected": (1, 30, 12, 9, 32, 64, 32, (16, 24), 0.9, "xy,xz,zy", 0.1),
    "most": (1, 9, 96, 96, 16, 64, 3, (9, 7), 1.6, "xy,xz,zy", 0.2),
    "odd": (3, 7, 5, 1, 5, 20, 2, (7, 9), 2.0, "yx,zx,zy", 0.3),
    "few": (2, 1, 4, 3, 1, 1, 1, (1, 1), 1.0, "xy,xz,zx", 0.1),
    "coarse": (2, 25, 2, 0, 8, 33, 17, (8, 8), 1.0, "xy,xz,zx", 0.2),
    "seven": (1, 9, 7, 5, 32, 64, 32, (8, 8), 1.0, "xy,xz,zx", 0.1),
    "single": (2, 3, 1, 0, 3, 9, 5, (8, 8), 1.0, "xy,xz,zx", 0.1),
    "past": (1, 5, 33, 65, 7, 12, 5, (8, 8), 1.0, "xy,xz,zx", 0.1),  # one more than the lanes of a warp
    "outside": (1, 25, 8, 8, 8, 16, 4, (8, 8), 0.2, "xy,xz,zx", 0.9),
    "wide": (1, 4, 2, 0, 72, 100, 130, (8, 8), 1.0, "xy,xz,zx", 0.1),
}
ON_GPU = [name for name in CASES if name != "wide"]  # at most 32 channels and colours


@pytest.fixture(autouse=True, scope="module")
def kernels() -> None:
    """Built before any test calls them directly."""
    build.resolve("cpu", torch.device("cpu"))


class Scene:
    """Random planes, decoder, rays and samples; rays leave the box where they spread."""

    def __init__(self, case: str, *, fine_is_depth: bool) -> None:
        batch, num, coarse, fine, channels, hidden, colors, size, box, axes, spread = CASES[case]
        rng = torch.Generator().manual_seed(len(case))
        torch.manual_seed(len(case))
        self.decoder = Decoder(channels, hidden, colors)
        with torch.no_grad():
            for parameter in self.decoder.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=rng))
            self.decoder.net[2].bias[0] = 2
        self.planes = torch.randn(batch, 3, channels, *size, generator=rng)
        self.origins = torch.randn(batch, num, 3, generator=rng) * 0.1 + torch.tensor([0.0, 0.0, 2.7])
        aim = torch.randn(batch, num, 3, generator=rng) * spread + torch.tensor([0.0, 0.0, -1.0])
        self.directions = torch.nn.functional.normalize(aim, dim=-1)
        self.depths = 2.25 + 1.05 * torch.rand(batch, num, coarse, 1, generator=rng).sort(dim=2).values
        self.fine = torch.rand(batch, num, fine, generator=rng)
        if fine_is_depth:
            self.fine = 2.25 + 1.05 * self.fine
        self.settings = Settings(axes, box, fine_is_depth)

    def run(self, impl: Any, dtype: torch.dtype, **options: Any) -> dict[str, Tensor]:
        """Results and gradients of a fixed random combination of them."""
        decoder = Decoder(self.planes.shape[2], self.decoder.net[0].out_features, self.decoder.net[2].out_features - 1)
        decoder.load_state_dict(self.decoder.state_dict())
        decoder.to(dtype)
        leaves = [x.to(dtype, copy=True).requires_grad_() for x in (self.planes, self.origins, self.directions)]
        found = impl(
            leaves[0], decoder, *leaves[1:], self.depths.to(dtype), self.fine.to(dtype), self.settings, **options
        )
        results = [found.features, found.depth.nan_to_num(posinf=0.0), found.total]
        rng = torch.Generator().manual_seed(7)
        sum((x * torch.randn(x.shape, generator=rng)).sum() for x in results).backward()
        values = [*results, *(x.grad for x in (*leaves, *decoder.parameters()))]
        return dict(zip(NAMES, (v.detach() for v in values), strict=True))


@pytest.mark.parametrize("fine_is_depth", [True, False], ids=["depths", "uniforms"])
@pytest.mark.parametrize("case", CASES)
def test_errors_are_those_of_single_precision(case: str, fine_is_depth: bool) -> None:
    """Against double precision: at most twice the reference's error, or a few units in the last place."""
    scene = Scene(case, fine_is_depth=fine_is_depth)
    exact = scene.run(reference.march_rays, torch.float64)
    single = scene.run(reference.march_rays, torch.float32)
    found = scene.run(fused.march_rays, torch.float32, backend="cpu")
    for name, value in exact.items():
        error, allowed = (value - found[name]).abs().max(), 2 * (value - single[name]).abs().max()
        floor = 10 * torch.finfo(torch.float32).eps * max(1.0, value.abs().max().item())
        assert error <= max(allowed.item(), floor), f"{name}: {error:.2e}, reference {allowed / 2:.2e}"


@pytest.fixture
def by_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program of a GPU: its 32 lanes in a loop on a CPU, which shares every line but the atomic additions."""
    kernel = build.kernel

    def lanes(backend: str, name: str) -> Any:
        return partial(kernel(backend, name), **({"by_lanes": True} if name.startswith("render") else {}))

    monkeypatch.setattr(build, "kernel", lanes)


def check_the_program_of_a_gpu(scene: Scene) -> None:
    exact = scene.run(reference.march_rays, torch.float64)
    single = scene.run(reference.march_rays, torch.float32)
    found = scene.run(fused.march_rays, torch.float32, backend="cpu")
    for name, value in exact.items():
        error, allowed = (value - found[name]).abs().max(), 8 * (value - single[name]).abs().max()  # sums in one piece
        floor = 20 * torch.finfo(torch.float32).eps * max(1.0, value.abs().max().item())
        assert error <= max(allowed.item(), floor), f"{name}: {error:.2e}, reference {allowed / 8:.2e}"


@pytest.mark.parametrize("fine_is_depth", [True, False], ids=["depths", "uniforms"])
@pytest.mark.parametrize("case", ON_GPU)
def test_the_program_of_a_gpu(case: str, fine_is_depth: bool, by_lanes: None) -> None:
    check_the_program_of_a_gpu(Scene(case, fine_is_depth=fine_is_depth))


@pytest.mark.parametrize("case", ["corrected", "past"])
@pytest.mark.parametrize("odd", ["coarse depths again", "one depth", "falling depths", "no weight", "one wall"])
def test_the_program_of_a_gpu_on_odd_rays(odd: str, case: str, by_lanes: None) -> None:
    scene = Scene(case, fine_is_depth=odd in ("coarse depths again", "falling depths"))
    num_fine = scene.fine.shape[2]
    if odd == "coarse depths again":
        scene.fine = scene.depths.squeeze(3)[:, :, torch.arange(num_fine) % 3]
    elif odd == "one depth":
        scene.fine = torch.full_like(scene.fine, 0.5)
    elif odd == "falling depths":
        scene.depths, scene.fine = scene.depths.flip(2), scene.fine.sort(dim=2, descending=True).values
    else:  # a flat distribution of fine samples, and one that is nothing but a step
        with torch.no_grad():
            scene.decoder.net[2].bias[0] = -math.inf if odd == "no weight" else 1e3
    check_the_program_of_a_gpu(scene)


def test_the_program_of_a_gpu_keeps_what_is_no_number(by_lanes: None) -> None:
    scene = Scene("corrected", fine_is_depth=True)
    scene.fine[0, 0, 2], scene.planes[0, :, :, 3] = math.nan, math.nan
    found = scene.run(fused.march_rays, torch.float32, backend="cpu")
    assert found["total"].isnan().any() and found["planes"].isnan().any()


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("case", ["published", "odd", "single", "past"])
def test_the_program_of_a_gpu_with_deterministic_sums(case: str, by_lanes: None, deterministic: None) -> None:
    check_the_program_of_a_gpu(Scene(case, fine_is_depth=True))


def gradients_in_order(scene: Scene, order: Tensor) -> list[Tensor]:
    """Gradients of planes and decoder with the rays of each item in this order; they add to the same sums."""
    leaf, decoder = scene.planes.clone().requires_grad_(), scene.decoder
    rays = [x[:, order] for x in (scene.origins, scene.directions, scene.depths, scene.fine)]
    found = fused.march_rays(leaf, decoder, *rays, scene.settings, backend="cpu")
    loss = found.features * torch.randn(found.features.shape[1], 1, generator=torch.Generator().manual_seed(3))[order]
    return list(torch.autograd.grad((loss.sum(dim=2) * 1e-7).sum(), [leaf, *decoder.parameters()]))


def test_deterministic_sums_do_not_depend_on_the_order_of_rays(by_lanes: None, deterministic: None) -> None:
    scene = Scene("published", fine_is_depth=True)
    num = scene.origins.shape[1]
    orders = torch.arange(num), torch.randperm(num, generator=torch.Generator().manual_seed(0))
    first, second = (gradients_in_order(scene, order) for order in orders)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    torch.use_deterministic_algorithms(False)
    plain = gradients_in_order(scene, orders[1])
    assert not torch.equal(plain[0], gradients_in_order(scene, orders[0])[0])
    for exact, rounded in zip(first, plain, strict=True):
        torch.testing.assert_close(exact, rounded, atol=2e-6 * float(rounded.abs().max()), rtol=0)


def test_deterministic_sums_are_no_numbers_if_one_of_them_is_none(by_lanes: None, deterministic: None) -> None:
    scene = Scene("corrected", fine_is_depth=True)
    scene.planes[0, 0, 0] = math.nan
    found = scene.run(fused.march_rays, torch.float32, backend="cpu")
    assert found["planes"].isnan().all() and found["w1"].isnan().all()


@pytest.mark.parametrize("case", CASES)
def test_given_depths_give_the_reference_within_1e_5(case: str) -> None:
    scene = Scene(case, fine_is_depth=True)
    expected = scene.run(reference.march_rays, torch.float32)
    found = scene.run(fused.march_rays, torch.float32, backend="cpu")
    for name in ("features", "depth", "total"):
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=0)


def small(impl: str, **values: Any) -> tuple[Renderer, Decoder, tuple[Tensor, ...]]:
    """A renderer of 6 + 5 samples, a decoder, and planes, origins, directions and uniforms of 2 x 25 rays."""
    torch.manual_seed(0)
    cfg = RenderingConfig(depth_resolution=6, depth_resolution_importance=5, **values)
    decoder = Decoder(8, hidden=16, out_channels=4)
    with torch.no_grad():
        decoder.net[2].bias[0] = 3
    camera = rays(*split_label(canonical_label().expand(2, -1)), 5)
    return Renderer(cfg, impl), decoder, (torch.randn(2, 3, 8, 9, 9), *camera)


@pytest.mark.parametrize("white_back", [False, True])
@pytest.mark.parametrize("limits", [(2.25, 3.3), (None, None)])
def test_whole_renders_agree(white_back: bool, limits: tuple[float | None, float | None]) -> None:
    values = {"white_back": white_back, "ray_start": limits[0], "ray_end": limits[1]}
    uniforms = random_uniforms(2, 25, 6, 5, rng=torch.Generator().manual_seed(0))
    results = []
    for impl in ("ref", "cpu"):
        renderer, decoder, inputs = small(impl, **values)
        results.append(renderer(inputs[0], decoder, *inputs[1:], uniforms))
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, atol=2e-5, rtol=0)


@pytest.mark.parametrize("impl", ["ref", "cpu"])
def test_depth_alone_is_that_of_the_render(impl: str) -> None:
    renderer, decoder, (planes, *camera) = small(impl)
    uniforms = midpoint_uniforms(2, 25, 6, 5)
    gradients = []
    for call in (renderer, renderer.depth):
        leaf = planes.clone().requires_grad_()
        found = call(leaf, decoder, *camera, uniforms)
        gradients.append(torch.autograd.grad(found.depth.square().sum() + found.weight_sum.sum(), leaf)[0])
    whole, alone = (call(planes, decoder, *camera, uniforms) for call in (renderer, renderer.depth))
    assert torch.equal(whole.depth, alone.depth) and torch.equal(whole.weight_sum, alone.weight_sum)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-5)


def test_only_wanted_gradients_are_made() -> None:
    """A frozen decoder and fixed rays, as in both stages of GOAE: the planes' gradient alone, the same as with all."""
    renderer, decoder, (planes, *camera) = small("cpu")
    uniforms, found = midpoint_uniforms(2, 25, 6, 5), []
    for wanted in (True, False):
        decoder.requires_grad_(wanted).zero_grad()
        leaf, origins = planes.clone().requires_grad_(), camera[0].clone().requires_grad_(wanted)
        renderer(leaf, decoder, origins, camera[1], uniforms).features.square().sum().backward()
        found.append(leaf.grad)
        assert (origins.grad is not None) == wanted
        assert all((p.grad is not None) == wanted for p in decoder.parameters())
    assert torch.equal(found[0], found[1])


def test_runs_are_equal_bit_by_bit() -> None:
    renderer, decoder, (planes, *camera) = small("cpu")
    found = []
    for _ in range(2):
        leaf = planes.clone().requires_grad_()
        out = renderer(leaf, decoder, *camera, midpoint_uniforms(2, 25, 6, 5))
        out.features.square().sum().backward()
        found.append((*out, leaf.grad))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_second_derivative_is_refused_with_the_remedy() -> None:
    renderer, decoder, (planes, *camera) = small("cpu")
    leaf = planes.requires_grad_()
    loss = renderer(leaf, decoder, *camera, midpoint_uniforms(2, 25, 6, 5)).features.square().sum()
    (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="impl='ref'"):
        gradient.sum().backward()


def test_what_the_kernels_cannot_render_goes_to_the_reference_or_is_refused() -> None:
    uniforms = midpoint_uniforms(2, 25, 6, 5)
    for dtype, wrapped in ((torch.float64, False), (torch.float32, True)):
        renderer, decoder, (planes, *camera) = small("auto")
        planes, decoder = planes.to(dtype), decoder.to(dtype)
        decode = partial(decoder.__call__) if wrapped else decoder
        camera = [x.to(planes.dtype) for x in camera]
        numbers = type(uniforms)(*(u.to(planes.dtype) for u in uniforms))
        expected = small("ref")[0](planes, decode, *camera, numbers)
        assert torch.equal(renderer(planes, decode, *camera, numbers).features, expected.features)
        with pytest.raises(ValueError, match="beyond the kernels"):
            small("cpu")[0](planes, decode, *camera, numbers)


def test_an_empty_ray_ends_at_the_largest_depth_and_has_no_gradient_in_it() -> None:
    renderer, decoder, (planes, *camera) = small("cpu")
    with torch.no_grad():
        decoder.net[2].bias[0] = -math.inf
    leaf = planes.requires_grad_()
    found = renderer(leaf, decoder, *camera, midpoint_uniforms(2, 25, 6, 5))
    assert (found.weight_sum == 0).all() and (found.depth == found.depth.max()).all()
    (found.depth.sum() + found.weight_sum.sum()).backward()
    assert leaf.grad.abs().max() < 1e-30


def test_numbers_that_are_none_stay_so() -> None:
    """Diverged planes must not render to something finite."""
    renderer, decoder, (planes, *camera) = small("cpu")
    planes[0, 0] = math.nan
    found = renderer(planes, decoder, *camera, midpoint_uniforms(2, 25, 6, 5))
    assert found.features[0].isnan().any() and found.weight_sum[0].isnan().any()
    assert found.features[1].isfinite().all()


def test_no_fine_samples_whatever_the_uniforms_hold() -> None:
    renderer, decoder, (planes, *camera) = small("cpu")
    renderer.config.depth_resolution_importance = 0
    found = [renderer(planes, decoder, *camera, midpoint_uniforms(2, 25, 6, n)).features for n in (0, 5)]
    assert torch.equal(*found)


def test_planes_that_do_not_fit_the_decoder_are_refused() -> None:
    renderer, decoder, (planes, *camera) = small("cpu")
    with pytest.raises(ValueError, match="planes have 7 channels, but the decoder takes 8"):
        renderer(planes[:, :, :7], decoder, *camera, midpoint_uniforms(2, 25, 6, 5))


def test_limits_span_the_samples() -> None:
    scene = Scene("corrected", fine_is_depth=True)
    found = fused.march_rays(
        scene.planes,
        scene.decoder,
        scene.origins,
        scene.directions,
        scene.depths,
        scene.fine,
        scene.settings,
        backend="cpu",
    )
    assert isinstance(found, Marched)
    everything = torch.cat([scene.depths.squeeze(3), scene.fine], dim=2)
    assert torch.equal(found.limits, torch.stack([everything.amin(2), everything.amax(2)], dim=2))


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", ON_GPU)
def test_cuda_kernels(case: str, dtype: torch.dtype) -> None:
    """Values and gradients of the kernels against the CPU's, with planes of the same rounded numbers."""
    build.resolve("cuda", torch.device("cuda"))
    scene = Scene(case, fine_is_depth=True)
    scene.planes = scene.planes.to(dtype).float()
    expected = scene.run(fused.march_rays, torch.float32, backend="cpu")
    planes = scene.planes.to("cuda", dtype).requires_grad_()
    decoder = scene.decoder.cuda()
    rays = [x.cuda().requires_grad_() for x in (scene.origins, scene.directions)]
    found = fused.march_rays(
        planes, decoder, *rays, scene.depths.cuda(), scene.fine.cuda(), scene.settings, backend="cuda"
    )
    results = [found.features, found.depth.nan_to_num(posinf=0.0), found.total]
    rng = torch.Generator().manual_seed(7)
    sum((x * torch.randn(x.shape, generator=rng).cuda()).sum() for x in results).backward()
    values = [*results, *(x.grad for x in (planes, *rays, *decoder.parameters()))]
    for name, value in zip(NAMES, values, strict=True):
        scale = max(1.0, expected[name].abs().max().item())
        rounding = torch.finfo(dtype).eps if name == "planes" else 0.0  # of the gradient, to the planes' type
        torch.testing.assert_close(value.float().cpu(), expected[name], atol=2e-5 * scale + rounding * scale, rtol=0)


@pytest.mark.cuda
def test_cuda_kernels_repeat_their_bits_where_deterministic_algorithms_are_wanted(deterministic: None) -> None:
    build.resolve("cuda", torch.device("cuda"))
    scene, found = Scene("published", fine_is_depth=False), []
    decoder = scene.decoder.cuda()
    numbers = [x.cuda() for x in (scene.origins, scene.directions, scene.depths, scene.fine)]
    for _ in range(5):
        leaf = scene.planes.cuda().requires_grad_()
        out = fused.march_rays(leaf, decoder, *numbers, scene.settings, backend="cuda")
        found.append(torch.autograd.grad(out.features.square().sum(), [leaf, *decoder.parameters()]))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))
