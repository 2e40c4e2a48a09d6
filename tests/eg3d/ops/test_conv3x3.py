"""The 3x3 convolution by our kernels against its definition in float64, and what the kernels leave to it."""

import os
import shutil
from typing import Any

import pytest
import torch
from eg3d.ops.conv3x3 import conv3x3
from torch import Tensor

pytestmark = pytest.mark.skipif(shutil.which(os.environ.get("CXX", "c++")) is None, reason="no C++ compiler")


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def options(num_in: int, num_out: int, with_shift: bool) -> dict[str, Tensor]:
    made = {"scale": randn(num_in, seed=3), "factor": randn(num_out, seed=4), "bias": randn(num_out, seed=5)}
    made["slope"] = randn(num_out, seed=6)
    return made | ({"shift": randn(num_in, seed=7)} if with_shift else {})


@pytest.mark.parametrize(
    ("shape", "num_out", "stride"),
    [((1, 16, 17, 10), 32, 1), ((3, 32, 8, 12), 16, 1), ((2, 16, 8, 22), 32, 2), ((1, 48, 16, 16), 16, 2)],
)
@pytest.mark.parametrize("plain", [False, True])
def test_equals_the_definition_in_float64(shape: tuple[int, ...], num_out: int, stride: int, plain: bool) -> None:
    x, weight = randn(*shape, seed=1), randn(num_out, shape[1], 3, 3, seed=2)
    given = {} if plain else options(shape[1], num_out, with_shift=stride == 1)
    y = conv3x3(x, weight, stride=stride, **given, gain=1.4, impl="cpu")
    doubles = {name: t.double() for name, t in given.items()}
    expected = conv3x3(x.double(), weight.double(), stride=stride, **doubles, gain=1.4, impl="ref")
    assert y.dtype == torch.float32 and y.is_contiguous(memory_format=torch.channels_last)
    assert (y - expected).abs().max() < 1e-5 * expected.abs().max()


RECORDED: list[dict[str, Any]] = [
    {"names": ()},
    {"names": ("bias",), "slope": 0.0},
    {"names": ("scale", "factor", "bias", "slope")},
    {"names": ("scale", "factor", "bias"), "slope": 0.0, "frozen": ("factor",)},
]


@pytest.mark.parametrize("case", RECORDED)
@pytest.mark.parametrize(("shape", "num_out"), [((3, 16, 13, 22), 32), ((1, 48, 8, 5), 16)])
def test_gradients_equal_those_of_the_definition_in_float64(
    shape: tuple[int, ...], num_out: int, case: dict[str, Any]
) -> None:
    x, weight = randn(*shape, seed=1), randn(num_out, shape[1], 3, 3, seed=2)
    chosen = {n: t for n, t in options(shape[1], num_out, with_shift=False).items() if n in case["names"]}
    fixed = {"slope": case["slope"]} if "slope" in case else {}
    frozen = case.get("frozen", ())
    dy = away_from_the_corner(randn(shape[0], num_out, *shape[2:], seed=8), x, weight, chosen | fixed)
    found = []
    for dtype, impl in ((torch.float32, "cpu"), (torch.float64, "ref")):
        given = {n: t.to(dtype, copy=True).requires_grad_(n not in frozen) for n, t in chosen.items()}
        image, filters = (t.to(dtype, copy=True).requires_grad_() for t in (x, weight))
        y = conv3x3(image, filters, **given, **fixed, gain=1.4, impl=impl)
        wanted = [image, filters, *(t for t in given.values() if t.requires_grad)]
        first = torch.autograd.grad(y, wanted, dy.to(dtype), create_graph=True)
        product = sum((g * randn(*g.shape, seed=9).to(dtype)).sum() for g in first)
        found.append([y, *first, *torch.autograd.grad(product, [image, filters])])
    for value, expected in zip(*found, strict=True):
        assert (value - expected).abs().max() < 1e-5 * expected.abs().max()


def away_from_the_corner(dy: Tensor, x: Tensor, weight: Tensor, given: dict[str, Any]) -> Tensor:
    """Zero where the slope jumps: rounding decides there which slope it is."""
    doubles = {n: t.double() if isinstance(t, Tensor) else 1.0 for n, t in given.items() if n != "slope"}
    return dy * (conv3x3(x.double(), weight.double(), **doubles, impl="ref").abs() > 1e-3)


def test_a_shift_a_stride_and_other_sizes_come_from_the_definition() -> None:
    x, weight = randn(1, 16, 8, 8, seed=1).requires_grad_(), randn(16, 16, 3, 3, seed=2)
    for given in ({"shift": randn(16, seed=3)}, {"stride": 2}):
        found = [torch.autograd.grad(conv3x3(x, weight, **given, impl=impl).sum(), x)[0] for impl in ("cpu", "ref")]
        assert torch.equal(*found) and found[0].abs().sum() > 0
    odd = randn(1, 3, 5, 5, seed=1), randn(7, 3, 3, 3, seed=2)
    assert torch.equal(conv3x3(*odd, stride=2, impl="cpu"), conv3x3(*odd, stride=2, impl="ref"))
