"""The synthesis layer by our kernels against its definition: values, first and second derivatives.

Minimal filtering of four outputs rounds about twice as coarsely as a sum of products does. Errors are relative
to the largest value, against the definition in float64.
"""

import os
import shutil

import pytest
import torch
from eg3d.ops import modulated_layer, setup_filter
from eg3d.ops.modulated_layer import scaled_layer
from torch import Tensor

pytestmark = pytest.mark.skipif(shutil.which(os.environ.get("CXX", "c++")) is None, reason="no C++ compiler")
ERROR = 1e-5
LIMIT = 0.7 * 1.5  # gain times clamp
BINOMIAL = setup_filter([1, 3, 3, 1])
CASES = [  # batch, inputs, outputs, height, width, up
    (1, 32, 48, 32, 32, 1),
    (3, 16, 32, 13, 22, 1),
    (1, 48, 32, 24, 24, 2),
    (2, 32, 16, 9, 14, 2),
    (2, 64, 64, 4, 8, 1),
]


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(batch: int, num_in: int, num_out: int, height: int, width: int, up: int, noise: str) -> list[Tensor | None]:
    sizes = {"none": None, "shared": (height * up, width * up), "each": (batch, 1, height * up, width * up)}
    size = sizes[noise]
    x, weight = randn(batch, num_in, height, width, seed=1), randn(num_out, num_in, 3, 3, seed=2)
    styles, bias = randn(batch, num_in, seed=3) + 1, randn(num_out, seed=4)
    return [x, weight, styles, bias, None if size is None else randn(*size, seed=5)]


def layer(tensors: list[Tensor | None], up: int, impl: str) -> Tensor:
    x, weight, styles, bias, noise = tensors
    f = None if up == 1 else BINOMIAL
    return modulated_layer(
        x, weight, styles, bias, noise, up=up, resample_filter=f, gain=0.7, clamp=1.5, fused=False, impl=impl
    )


def prepared(tensors: list[Tensor | None], dtype: torch.dtype) -> list[Tensor | None]:
    return [None if t is None else t.to(dtype, copy=True).requires_grad_() for t in tensors]


def away_from_corners(dy: Tensor, tensors: list[Tensor | None], up: int) -> Tensor:
    """Zero where the layer's slope jumps: rounding decides there which slope it is."""
    y = layer([None if t is None else t.double() for t in tensors], up, "ref").abs()
    return dy * ((y > 1e-4) & ((y - LIMIT).abs() > 1e-4))


def error(value: Tensor, expected: Tensor) -> float:
    assert value.shape == expected.shape
    return float(((value.double() - expected).abs().max() / expected.abs().max()).detach())


@pytest.mark.parametrize("noise", ["none", "shared", "each"])
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradients_equal_the_definition_in_float64(case: tuple[int, ...], noise: str) -> None:
    tensors, up = inputs(*case, noise), case[-1]
    got, expected = [], []
    for results, dtype, impl in ((got, torch.float32, "cpu"), (expected, torch.float64, "ref")):
        given = prepared(tensors, dtype)
        y = layer(given, up, impl)
        fed = away_from_corners(randn(*y.shape, seed=6), tensors, up).to(dtype)
        wanted = [t for t in given if t is not None]
        results += [y, *torch.autograd.grad(y, wanted, fed)]
    assert got[0].dtype == torch.float32
    assert max(error(value, true) for value, true in zip(got, expected, strict=True)) < ERROR


@pytest.mark.parametrize("case", [CASES[1], CASES[3]])
def test_second_derivatives_equal_those_of_the_definition(case: tuple[int, ...]) -> None:
    tensors, up = inputs(*case, "shared"), case[-1]
    found = []
    for dtype, impl in ((torch.float32, "cpu"), (torch.float64, "ref")):
        given = prepared(tensors, dtype)
        y = layer(given, up, impl)
        fed = away_from_corners(randn(*y.shape, seed=6), tensors, up).to(dtype).requires_grad_()
        first = torch.autograd.grad(y, given, fed, create_graph=True)
        product = sum((g * randn(*g.shape, seed=7).to(dtype)).sum() for g in first)
        found.append(torch.autograd.grad(product, [fed, *given[:3]]))
    assert max(error(value, true) for value, true in zip(*found, strict=True)) < ERROR


def test_without_modulation_it_is_a_scaled_convolution() -> None:
    x, weight, _, bias, _ = inputs(*CASES[1], "none")
    found = []
    for dtype, impl in ((torch.float32, "cpu"), (torch.float64, "ref")):
        given = [t.to(dtype, copy=True).requires_grad_() for t in (x, weight, bias)]
        y = scaled_layer(*given, 0.1, gain=0.7, impl=impl)
        found.append([y, *torch.autograd.grad(y.square().sum(), given)])
    assert max(error(value, true) for value, true in zip(*found, strict=True)) < ERROR


def test_only_what_is_needed_has_a_gradient() -> None:
    x, weight, styles, bias, _ = inputs(*CASES[0], "none")
    styles.requires_grad_()
    y = layer([x, weight, styles, bias, None], 1, "cpu")
    y.sum().backward()
    assert styles.grad.abs().sum() > 0 and weight.grad is None and x.grad is None


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_any_layout_of_the_input_is_taken(layout: torch.memory_format) -> None:
    tensors = inputs(*CASES[1], "none")
    plain = layer(tensors, 1, "cpu")
    tensors[0] = tensors[0].contiguous(memory_format=layout)
    y = layer(tensors, 1, "cpu")
    assert torch.equal(y, plain) and y.is_contiguous(memory_format=torch.channels_last)


def test_what_the_kernels_do_not_take_follows_the_definition() -> None:
    """Odd numbers of channels, other filters and other dtypes."""
    tensors = inputs(2, 7, 5, 8, 8, 2, "none")
    assert torch.allclose(layer(tensors, 2, "cpu"), layer(tensors, 2, "ref"), atol=1e-5)
    x, weight, styles, bias, _ = inputs(*CASES[3], "none")
    skewed = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    options = {"up": 2, "resample_filter": skewed, "fused": False}
    y = modulated_layer(x, weight, styles, bias, **options, impl="cpu")
    torch.testing.assert_close(y, modulated_layer(x, weight, styles, bias, **options, impl="ref"), atol=1e-4, rtol=1e-4)
    doubles = [t.double() for t in (x, weight, styles, bias)]
    y = modulated_layer(*doubles, **options, impl="cpu")
    torch.testing.assert_close(y, modulated_layer(*doubles, **options, impl="ref"))
