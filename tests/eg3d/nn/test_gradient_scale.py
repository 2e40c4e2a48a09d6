"""Scaled gradients: the same numbers, in half precision too, and in the super-resolution without LPIPS above all."""

from collections.abc import Callable

import pytest
import torch
from eg3d.nn import backbone
from eg3d.nn.backbone import Features
from eg3d.nn.gradient_scale import GradientScale
from eg3d.nn.superresolution import SuperResolution
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cosine_similarity, interpolate

PUBLISHED = 3 * 3 * 512**2  # values of three images, over which a mean squared error averages


def region(x: Tensor, scale: GradientScale | None = None) -> Tensor:
    return (x if scale is None else scale.enter(x)).sin().square()


@pytest.mark.parametrize("size", [1e-24, 1.0, 1e24])
def test_the_gradient_is_the_same_number(size: float) -> None:
    x = torch.randn(5, requires_grad=True)
    scale, outer = GradientScale(), size * torch.randn(5)
    (scaled,) = torch.autograd.grad(scale.leave(region(x, scale)), x, outer)
    (plain,) = torch.autograd.grad(region(x), x, outer)
    assert torch.equal(scaled, plain)
    assert 2.0**-5 <= float((outer * scale.factor).abs().max()) < 2.0**-4


@pytest.mark.parametrize("value", [0.0, float("inf"), float("nan")])
def test_what_has_no_size_passes(value: float) -> None:
    x, scale = torch.ones(2, requires_grad=True), GradientScale()
    (grad,) = torch.autograd.grad(scale.leave(scale.enter(x)), x, torch.full((2,), value))
    assert torch.equal(grad.nan_to_num(nan=7.0), torch.full((2,), value).nan_to_num(nan=7.0))


def test_second_derivatives() -> None:
    def run(x: Tensor) -> Tensor:
        scale = GradientScale()
        return scale.leave(region(x, scale))

    x = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, x) and torch.autograd.gradgradcheck(run, x)

    def with_penalty(net: Callable[[Tensor], Tensor]) -> Tensor:
        """The gradient of a sum in which first and second derivatives meet."""
        y = 1e-3 * net(x).sum()
        (first,) = torch.autograd.grad(y, x, create_graph=True)
        (found,) = torch.autograd.grad(y + first.square().sum(), x)
        return found

    assert torch.allclose(with_penalty(run), with_penalty(region), rtol=1e-12)


@pytest.fixture
def half_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks in half precision run so here, as they do on CUDA."""
    monkeypatch.setattr(backbone, "HALF_DEVICES", ("cpu",))


class Case:
    """A tiny module in half precision, the same in float32, and inputs."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.half, self.full = (
            SuperResolution(
                "8XDC", channels=8, w_dim=12, input_resolution=16, hidden_channels=(16, 8), half=half, impl="ref"
            )
            for half in (True, False)
        )
        self.full.load_state_dict(self.half.state_dict())
        self.x = interpolate(torch.randn(2, 8, 4, 4), scale_factor=4.0, mode="bilinear")
        self.ws = torch.randn(2, 5, 12)
        self.outer = 2 * 0.1 * torch.randn(2, 3, 64, 64) / PUBLISHED  # of L2 alone, residuals of about 0.1

    def gradients(self, net: Callable[..., Tensor], outer: Tensor, *parameters: Tensor) -> list[Tensor]:
        """Those of the feature image and of the parameters."""
        x = self.x.clone().requires_grad_()
        return list(torch.autograd.grad(net(self.x[:, :3], x, self.ws), [x, *parameters], outer))


def unscaled(net: SuperResolution) -> Callable[..., Tensor]:
    """The blocks as they are."""

    def run(rgb: Tensor, x: Tensor, ws: Tensor) -> Tensor:
        rows, features = ws[:, -1:].repeat(1, 3, 1), Features(x, rgb)
        for block in (net.block0, net.block1):
            features = block(features, rows, noise_mode="none")
        return features.skip

    return run


def assert_near(found: Tensor, expected: Tensor, cosine: float = 0.999) -> None:
    """Direction and length."""
    assert direction(found, expected) > cosine
    assert float(found.norm() / expected.norm()) == pytest.approx(1, abs=0.02)


def direction(a: Tensor, b: Tensor) -> float:
    assert a.isfinite().all() and b.isfinite().all()
    return float(cosine_similarity(a.flatten().double(), b.flatten().double(), dim=0))


@pytest.mark.usefixtures("half_on_cpu")
def test_l2_alone_keeps_its_direction() -> None:
    case = Case()
    (expected,) = case.gradients(case.full, case.outer)
    (found,) = case.gradients(case.half, case.outer)
    (without,) = case.gradients(unscaled(case.half), case.outer)
    assert_near(found, expected)
    assert direction(without, expected) < 0.97


@pytest.mark.usefixtures("half_on_cpu")
def test_trained_weights_get_their_own_gradient() -> None:
    case = Case()
    used = [n for n, _ in case.full.named_parameters() if not n.endswith("noise_strength")]
    half, full = ([net.get_parameter(n) for n in used] for net in (case.half, case.full))
    found, expected = case.gradients(case.half, case.outer, *half), case.gradients(case.full, case.outer, *full)
    for a, b in zip(found, expected, strict=True):
        assert_near(a, b)


@pytest.mark.usefixtures("half_on_cpu")
def test_weights_that_stand_in_get_theirs() -> None:
    """As pivotal tuning has them, by `functional_call`."""
    case = Case()
    case.half.requires_grad_(False)
    name = "block1.conv1.weight"
    other = case.half.get_parameter(name).detach().clone().requires_grad_()

    def tuned(*inputs: Tensor) -> Tensor:
        found = functional_call(case.half, {name: other}, inputs)
        assert isinstance(found, Tensor)
        return found

    (_, found) = case.gradients(tuned, case.outer, other)
    (_, expected) = case.gradients(case.full, case.outer, case.full.get_parameter(name))
    assert_near(found, expected)


@pytest.mark.usefixtures("half_on_cpu")
@pytest.mark.parametrize("factor", [1e4, 1e12])
def test_large_gradients_do_not_overflow(factor: float) -> None:
    case = Case()
    for outer in (case.outer, torch.ones_like(case.outer)):
        weights = [net.block0.conv0.affine.weight for net in (case.half, case.full)]
        found, expected = (
            case.gradients(net, factor * outer, w) for net, w in zip((case.half, case.full), weights, strict=True)
        )
        for a, b in zip(found, expected, strict=True):
            assert_near(a, b)


@pytest.mark.cuda
def test_l2_alone_keeps_its_direction_on_cuda() -> None:
    """The published size, 512² images in batches of three."""
    torch.manual_seed(0)
    half, full = (SuperResolution("8XDC", half=half).cuda().requires_grad_(False) for half in (True, False))
    full.load_state_dict(half.state_dict())
    x = interpolate(torch.randn(3, 32, 16, 16), scale_factor=8.0, mode="bilinear").cuda()
    ws = torch.randn(3, 14, 512, device="cuda")
    outer = 2 * 0.1 * torch.randn(3, 3, 512, 512, device="cuda") / PUBLISHED

    def gradient(net: Callable[..., Tensor]) -> Tensor:
        seen = x.clone().requires_grad_()
        (found,) = torch.autograd.grad(net(x[:, :3], seen, ws), seen, outer)
        return found

    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = gradient(full)
        assert_near(gradient(half), expected)
        assert direction(gradient(unscaled(half)), expected) < 0.97


@pytest.mark.usefixtures("half_on_cpu")
def test_channels_last_changes_rounding_alone() -> None:
    case, seen = Case(), []
    case.half.eval().requires_grad_(False)  # as training has the frozen generator
    (expected,) = case.gradients(case.half, case.outer)
    inputs = (case.x[:, :3], case.x, case.ws)
    exact, apart = case.full(*inputs), case.half(*inputs)
    case.half.channels_last = True
    for block in (case.half.block0, case.half.block1):
        block.register_forward_hook(lambda _, args, out: seen.append((is_together(args[0].x), is_together(out.x))))
    together, exact, apart = case.half(*inputs).detach(), exact.detach(), apart.detach()
    assert not torch.equal(together, apart)
    assert float((together - exact).norm()) < 2 * float((apart - exact).norm())
    (found,) = case.gradients(case.half, case.outer)
    assert_near(found, expected)
    assert seen == [(True, True)] * 4


def is_together(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
