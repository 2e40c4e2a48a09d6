"""The compiled kernels against the plain definitions: values, first and second derivatives."""

import os
import shutil
from collections.abc import Callable

import pytest
import torch
from eg3d.ops import bias_act, modulated_conv2d, setup_filter, upfirdn2d
from eg3d.ops.bias_act import ACTIVATIONS
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

needs_compiler = pytest.mark.skipif(shutil.which(os.environ.get("CXX", "c++")) is None, reason="no C++ compiler")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
BACKENDS = [
    pytest.param("cpu", marks=needs_compiler),
    pytest.param("cuda", marks=[pytest.mark.cuda, needs_gpu]),
]
every_backend = pytest.mark.parametrize("impl", BACKENDS)

# Rounding of sums of a few tens of products, relative to the largest value.
ROUNDING = {torch.float64: 1e-13, torch.float32: 3e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def randn(*shape: int, seed: int, device: str, dtype: torch.dtype = torch.float32) -> Tensor:
    made = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return made.to(dtype).to(device)


def assert_close(value: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert value.shape == expected.shape
    if value.numel():
        value, expected = value.detach().double(), expected.detach().double()
        assert float((value - expected).abs().max()) <= ROUNDING[dtype] * max(1.0, float(expected.abs().max()))


def derivatives(op: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    """The value, its gradients, and the gradients of a random product of these, also in the gradient fed in."""
    inputs = tuple(t.detach().requires_grad_() for t in inputs)
    y = op(*inputs)
    fed = randn(*y.shape, seed=91, device=str(y.device), dtype=y.dtype).requires_grad_()
    first = torch.autograd.grad(y, inputs, fed, create_graph=True)
    product = sum((g * randn(*g.shape, seed=92, device=str(g.device), dtype=g.dtype)).sum() for g in first)
    wanted = (fed, *inputs)
    second = torch.autograd.grad(product, wanted, allow_unused=True)
    unused = [torch.zeros_like(t) if g is None else g for g, t in zip(second, wanted, strict=True)]
    return [y, *first, *unused]


def compare(op: Callable[..., Tensor], impl: str, *inputs: Tensor) -> None:
    """`op(*inputs, impl=...)` by kernel and by definition."""
    got = derivatives(lambda *t: op(*t, impl=impl), *inputs)
    expected = derivatives(lambda *t: op(*t, impl="ref"), *inputs)
    for value, wanted in zip(got, expected, strict=True):
        assert value.dtype == wanted.dtype
        assert_close(value, wanted, inputs[0].dtype)


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("options", [{}, {"gain": 1.7, "clamp": 0.8}, {"alpha": 0.4, "clamp": 1.5}])
def test_bias_act(impl: str, dtype: torch.dtype, act: str, options: dict) -> None:
    x, b = randn(3, 5, 7, 3, seed=1, device=impl, dtype=dtype) * 3, randn(5, seed=2, device=impl, dtype=dtype)
    compare(lambda x, b, impl: bias_act(x, b, act=act, **options, impl=impl), impl, x, b)
    compare(lambda x, impl: bias_act(x, act=act, **options, impl=impl), impl, x)


@every_backend
@pytest.mark.parametrize("act", ["lrelu", "swish"])
@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_bias_act_along_any_axis_in_any_layout(impl: str, dim: int, act: str) -> None:
    whole = randn(4, 6, 9, 11, seed=1, device=impl)
    layouts = [
        whole,
        whole.to(memory_format=torch.channels_last),
        whole.permute(3, 1, 0, 2),
        whole[:, ::2, 1:, :-1],
        whole[:1].expand(4, -1, -1, -1),
        whole[:, :1],
    ]
    for x in layouts:
        b = randn(x.shape[dim], seed=2, device=impl)
        compare(lambda x, b, impl: bias_act(x, b, dim=dim, act=act, clamp=1.0, impl=impl), impl, x, b)
        y = bias_act(x, b, dim=dim, act=act, clamp=1.0, impl=impl)
        torch.testing.assert_close(y, bias_act(x, b, dim=dim, act=act, clamp=1.0, impl="ref"))


@every_backend
def test_bias_act_of_rows_and_of_nothing(impl: str) -> None:
    compare(
        lambda x, b, impl: bias_act(x, b, act="lrelu", impl=impl),
        impl,
        randn(6, 7, seed=1, device=impl),
        randn(7, seed=2, device=impl),
    )
    x = torch.zeros(0, 3, 4, 4, device=impl, requires_grad=True)
    b = torch.ones(3, device=impl, requires_grad=True)
    y = bias_act(x, b, act="lrelu", impl=impl)
    assert y.shape == x.shape
    assert torch.equal(torch.autograd.grad(y.sum(), b)[0], torch.zeros(3, device=impl))


@every_backend
@pytest.mark.parametrize("clamp", [None, 1.0])
def test_bias_act_passes_nan_on(impl: str, clamp: float | None) -> None:
    x = torch.tensor([[float("nan"), float("inf"), -float("inf"), 1.0] * 4], device=impl)
    y = bias_act(x, act="lrelu", clamp=clamp, impl=impl)
    torch.testing.assert_close(y, bias_act(x, act="lrelu", clamp=clamp, impl="ref"), equal_nan=True)


@every_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("act", ["linear", "lrelu", "swish", "softplus"])
def test_bias_act_in_half_precision(impl: str, dtype: torch.dtype, act: str) -> None:
    """Against the definition in double precision, both from the same rounded inputs, off the edge of the clamp."""
    x, b = randn(2, 5, 7, 3, seed=1, device=impl, dtype=dtype), randn(5, seed=2, device=impl, dtype=dtype)
    got = derivatives(lambda x, b: bias_act(x, b, act=act, clamp=256, impl=impl), x, b)
    wanted = derivatives(lambda x, b: bias_act(x, b, act=act, clamp=256, impl="ref").to(dtype), x.double(), b.double())
    assert got[0].dtype == dtype
    for value, expected in zip(got, wanted, strict=True):
        assert_close(value, expected, dtype)


@every_backend
def test_bias_act_has_two_derivatives_by_finite_differences(impl: str) -> None:
    x = randn(2, 3, 4, seed=1, device=impl, dtype=torch.float64).requires_grad_()
    b = randn(3, seed=2, device=impl, dtype=torch.float64).requires_grad_()
    for act in ACTIVATIONS:
        assert gradcheck(lambda x, b, act=act: bias_act(x, b, act=act, clamp=1.1, impl=impl), (x, b))
        assert gradgradcheck(lambda x, b, act=act: bias_act(x, b, act=act, clamp=1.1, impl=impl), (x, b))


@every_backend
def test_bias_act_refuses_a_third_derivative(impl: str) -> None:
    x = randn(2, 3, seed=1, device=impl).requires_grad_()
    y = bias_act(x, act="tanh", impl=impl).sum()
    first = torch.autograd.grad(y, x, create_graph=True)[0].sum()
    second = torch.autograd.grad(first, x, create_graph=True)[0].sum()
    with pytest.raises(NotImplementedError, match="impl='ref' has all of them"):
        torch.autograd.grad(second, x)


FILTERS = {
    "binomial": setup_filter([1, 3, 3, 1]),
    "asymmetric": torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.0, 1.5, 2.0, -1.0], [2.5, 0.3, -0.7, 1.1]]),
    "separable": torch.linspace(-1, 2, 9),
    "none": None,
}
RESAMPLINGS = [
    {},
    {"padding": 1, "gain": 4},
    {"up": 2, "padding": (2, 1, 2, 1), "gain": 4},
    {"down": 2, "padding": (1, 1, 1, 1)},
    {"up": 2, "down": 2, "padding": 3, "gain": 1.5, "flip_filter": True},
    {"up": (2, 1), "down": (1, 2), "padding": (2, 1, 3, 2)},
    {"up": (3, 2), "down": (2, 3), "padding": 9, "flip_filter": True},
    {"up": 3, "down": 6, "padding": (9, 4, 7, 11)},
    {"padding": (-1, 2, 1, -2)},
    {"up": 2, "padding": (-3, 1, 2, -5)},
    {"padding": (12, 0, 0, 14)},
]


def fir(name: str, device: str) -> Tensor | None:
    f = FILTERS[name]
    return None if f is None else f.to(device)


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("options", RESAMPLINGS, ids=str)
def test_upfirdn2d(impl: str, dtype: torch.dtype, name: str, options: dict) -> None:
    x, f = randn(2, 3, 13, 11, seed=1, device=impl, dtype=dtype), fir(name, impl)
    compare(lambda x, impl: upfirdn2d(x, f, **options, impl=impl), impl, x)


@every_backend
@pytest.mark.parametrize("options", RESAMPLINGS[:6], ids=str)
def test_upfirdn2d_of_any_layout(impl: str, options: dict) -> None:
    whole, f = randn(5, 6, 13, 15, seed=1, device=impl), fir("asymmetric", impl)
    last = whole.to(memory_format=torch.channels_last)
    turned = whole.permute(1, 0, 3, 2)
    for x in (last, turned, whole[:, ::2, 1:, :-1], last[1:, :, ::2], whole[:1].expand(5, -1, -1, -1), whole[:0]):
        compare(lambda x, impl: upfirdn2d(x, f, **options, impl=impl), impl, x)
        torch.testing.assert_close(upfirdn2d(x, f, **options, impl=impl), upfirdn2d(x, f, **options, impl="ref"))
    turned_filter = FILTERS["asymmetric"].t().contiguous().to(impl).t()
    torch.testing.assert_close(
        upfirdn2d(whole, turned_filter, **options, impl=impl), upfirdn2d(whole, f, **options, impl="ref")
    )


@every_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["binomial", "separable"])
def test_upfirdn2d_in_half_precision(impl: str, dtype: torch.dtype, name: str) -> None:
    x, f = randn(2, 3, 13, 11, seed=1, device=impl, dtype=dtype), fir(name, impl)
    for options in RESAMPLINGS[:5]:
        got = derivatives(lambda x, options=options: upfirdn2d(x, f, **options, impl=impl), x)
        wanted = derivatives(lambda x, options=options: upfirdn2d(x, f, **options, impl="ref").to(dtype), x.double())
        assert got[0].dtype == dtype
        for value, expected in zip(got, wanted, strict=True):
            assert_close(value, expected, dtype)


@every_backend
def test_upfirdn2d_has_two_derivatives_by_finite_differences(impl: str) -> None:
    x = randn(1, 2, 5, 4, seed=1, device=impl, dtype=torch.float64).requires_grad_()

    def op(x: Tensor) -> Tensor:
        f = fir("asymmetric", impl)
        return upfirdn2d(x, f, up=(2, 3), down=(3, 2), padding=(2, 1, 3, -1), gain=2, impl=impl).square()

    assert gradcheck(op, (x,))
    assert gradgradcheck(op, (x,))


@every_backend
def test_upfirdn2d_on_more_work_than_one_thread_gets(impl: str) -> None:
    x, f = randn(2, 24, 97, 131, seed=1, device=impl), fir("binomial", impl)
    for options in RESAMPLINGS[:5]:
        assert_close(upfirdn2d(x, f, **options, impl=impl), upfirdn2d(x, f, **options, impl="ref"), torch.float32)
    b = randn(24, seed=2, device=impl)
    assert_close(bias_act(x, b, act="lrelu", impl=impl), bias_act(x, b, act="lrelu", impl="ref"), torch.float32)


@every_backend
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("up", [1, 2])
def test_a_synthesis_layer(impl: str, up: int, fused: bool) -> None:
    """The operators together, as the networks use them; the order of derivatives that path penalties take."""
    f = fir("binomial", impl)

    def layer(x: Tensor, w: Tensor, s: Tensor, b: Tensor, impl: str) -> Tensor:
        y = modulated_conv2d(x, w, s, up=up, padding=1, resample_filter=f, flip_weight=up == 1, fused=fused, impl=impl)
        return bias_act(y, b, act="lrelu", clamp=256, impl=impl)

    shapes = [(2, 4, 5, 7), (6, 4, 3, 3), (2, 4), (6,)]
    compare(layer, impl, *(randn(*s, seed=i, device=impl, dtype=torch.float64) for i, s in enumerate(shapes)))
