"""The renderer's modes, and the choice between them by their times."""

import shutil
import time
from collections.abc import Callable

import pytest
import torch
from eg3d.cameras import canonical_label
from eg3d.generator import TriPlaneGenerator
from eg3d.ops import build
from eg3d.rendering import reference
from eg3d.rendering.planes import round_planes
from eg3d.rendering.timing import MODES, fastest, offered, render_calls, using_mode
from tiny import tiny_generator
from torch import Tensor

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
CPU = torch.device("cpu")


def scene(device: str = "cpu") -> tuple[TriPlaneGenerator, Tensor, Tensor]:
    generator = tiny_generator().to(device)
    size, rng = generator.config.plane_resolution, torch.Generator().manual_seed(0)
    planes = torch.randn(2, 3, generator.config.plane_channels, size, size, generator=rng)
    return generator, planes.to(device), canonical_label().expand(2, -1).to(device)


def render(mode: str, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """The feature image, and the planes' gradient."""
    generator, planes, c = scene(device)
    with using_mode(generator, mode):
        image = generator.render(planes.requires_grad_(), c).feature_image
    return image.detach(), torch.autograd.grad(image.square().sum(), planes)[0]


def test_plain_is_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    build.resolve("cpu", CPU, "render")  # a first use calls the reference, too
    calls = []
    march = reference.march_rays
    monkeypatch.setattr(reference, "march_rays", lambda *a, **k: calls.append("plain") or march(*a, **k))
    fused, plain = render("fused"), render("plain")
    assert calls == ["plain"]
    for ours, expected in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, expected, atol=2e-5 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_half_planes_are_within_their_tolerance(device: str) -> None:
    """Rounding to 11 bits, 2.4e-4 of a number at most, moves images and gradients by 1e-3 of the largest, not more."""
    (image, gradient), (rounded, its_gradient) = render("fused", device), render("half", device)
    assert its_gradient.dtype == torch.float32
    for ours, expected in ((rounded, image), (its_gradient, gradient)):
        error = float((ours - expected).abs().max() / expected.abs().max())
        assert 1e-7 < error < 2e-3
    planes = torch.tensor([1e-4, 3.14159, 1000.3], requires_grad=True)
    kept = round_planes(planes)
    assert kept.tolist() == planes.half().float().tolist()
    assert torch.autograd.grad((1e-9 * kept).sum(), planes)[0].tolist() == pytest.approx([1e-9] * 3)


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Callable[[], None]]:
    """Calls that take so many seconds of a clock that stands otherwise."""
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    return lambda seconds: lambda: clock.__setitem__(0, clock[0] + seconds)


def test_a_later_mode_has_to_be_clearly_faster(waiting: Callable[[float], Callable[[], None]]) -> None:
    assert fastest({"fused": waiting(0.004), "plain": waiting(0.0037)}, CPU)[0] == "fused"
    name, seconds = fastest({"fused": waiting(0.02), "plain": waiting(0.03), "half": waiting(0.004)}, CPU)
    assert name == "half" and list(seconds) == ["fused", "plain", "half"]


def test_a_mode_without_enough_memory_is_not_chosen(waiting: Callable[[float], Callable[[], None]]) -> None:
    def full() -> None:
        raise torch.OutOfMemoryError

    name, seconds = fastest({"fused": full, "plain": waiting(0.001)}, CPU)
    assert name == "plain" and seconds["fused"] == float("inf")


def test_two_real_renderers() -> None:
    generator, planes, c = scene()
    name, seconds = fastest(render_calls(generator, planes, c, MODES[:2]), CPU, repeats=2)
    assert name == ("plain" if seconds["plain"] < 0.9 * seconds["fused"] else "fused")
    assert all(0 < s < 10 for s in seconds.values())
    assert generator.renderer.mode == "fused" and planes.grad is None


def test_a_cpu_offers_no_choice() -> None:
    assert offered(tiny_generator(), CPU) == ("fused",)
