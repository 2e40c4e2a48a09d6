"""Bias and activation: y = clamp(gain * act(x + b), -clamp, clamp).

Everything here is differentiable twice. The plain torch definition, `_reference`, says what the kernels compute.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from eg3d.ops import build
from torch import Tensor
from torch.nn import functional as F


class Activation(NamedTuple):
    """An activation function (x, alpha) -> y with its default parameters."""

    function: Callable[[Tensor, float], Tensor]
    alpha: float
    gain: float


ACTIVATIONS = {
    "linear": Activation(lambda x, alpha: x, 0.0, 1.0),
    "relu": Activation(lambda x, alpha: F.relu(x), 0.0, math.sqrt(2)),
    "lrelu": Activation(lambda x, alpha: F.leaky_relu(x, alpha), 0.2, math.sqrt(2)),
    "tanh": Activation(lambda x, alpha: torch.tanh(x), 0.0, 1.0),
    "sigmoid": Activation(lambda x, alpha: torch.sigmoid(x), 0.0, 1.0),
    "elu": Activation(lambda x, alpha: F.elu(x), 0.0, 1.0),
    "selu": Activation(lambda x, alpha: F.selu(x), 0.0, 1.0),
    "softplus": Activation(lambda x, alpha: F.softplus(x), 0.0, 1.0),
    "swish": Activation(lambda x, alpha: torch.sigmoid(x) * x, 0.0, math.sqrt(2)),
}
STRAIGHT = ("linear", "relu", "lrelu")  # their second derivative is zero


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """y = clamp(gain * act(x + b), -clamp, clamp), in this order; every stage but the activation is optional.

    Args:
        x: any shape, floating point.
        b: (x.shape[dim],), cast to the dtype of x; None adds nothing.
        act: a name in `ACTIVATIONS`.
        alpha: slope of "lrelu" below zero, unused by the others; None is the activation's own.
        gain: None is the activation's own (sqrt 2 for relu, lrelu and swish, otherwise 1).
        clamp: limit of |y|, not negative; None does not limit.
        impl: see `eg3d.ops.build.resolve`.
    Returns: the shape and dtype of x.
    Raises: ValueError for an unknown activation, a bias that does not fit, or a negative clamp.
    """
    if act not in ACTIVATIONS:
        raise ValueError(f"act is {act!r}, expected one of {', '.join(ACTIVATIONS)}")
    if b is not None and (b.ndim != 1 or b.shape[0] != x.shape[dim]):
        raise ValueError(f"b has shape {tuple(b.shape)}, expected ({x.shape[dim]},), the size of x along dim {dim}")
    if clamp is not None and clamp < 0:
        raise ValueError(f"clamp is {clamp}, expected a limit >= 0 or None")
    alpha = ACTIVATIONS[act].alpha if alpha is None else float(alpha)
    gain = ACTIVATIONS[act].gain if gain is None else float(gain)
    backend = build.resolve(impl, x.device, "bias_act")
    if backend == "ref":
        return _reference(x, b, dim, act, alpha, gain, clamp)
    settings = _Settings(backend, dim % x.ndim, act, alpha, gain, -1.0 if clamp is None else float(clamp))
    return _Value.apply(x, None if b is None else b.to(x.dtype), settings)


def _reference(
    x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float | None
) -> Tensor:
    if b is not None:
        x = x + b.to(x.dtype).reshape([-1 if i == dim % x.ndim else 1 for i in range(x.ndim)])
    x = ACTIVATIONS[act].function(x, alpha)
    if gain != 1:
        x = x * gain
    if clamp is not None:
        x = x.clamp(-clamp, clamp)
    return x


class _Settings(NamedTuple):
    """What a kernel is told besides its tensors."""

    backend: str
    dim: int
    act: str
    alpha: float
    gain: float
    clamp: float  # negative: no limit

    def kernel(self, x: Tensor, b: Tensor | None, t: Tensor | None, order: int) -> Tensor:
        """The value for order 0; for orders 1 and 2 t times that derivative in x, which is 0 where y is clamped."""
        act = list(ACTIVATIONS).index(self.act)
        op = build.kernel(self.backend, "bias_act")
        return op(x, b, t, self.dim, act, order, self.alpha, self.gain, self.clamp)

    def to_bias(self, grad: Tensor) -> Tensor:
        return grad.sum([i for i in range(grad.ndim) if i != self.dim])


class _Value(torch.autograd.Function):
    """y = clamp(gain * act(x + b))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, b: Tensor | None, settings: _Settings) -> Tensor:
        ctx.save_for_backward(x, b)
        ctx.settings = settings
        return settings.kernel(x, b, None, 0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        dx = _Derivative.apply(grad, *ctx.saved_tensors, 1, ctx.settings)
        return dx, ctx.settings.to_bias(dx) if ctx.needs_input_grad[1] else None, None


class _Derivative(torch.autograd.Function):
    """t * d^order y / dx^order; its own derivative in x is that of the next order."""

    @staticmethod
    def forward(ctx: Any, t: Tensor, x: Tensor, b: Tensor | None, order: int, settings: _Settings) -> Tensor:
        if order > 2:
            raise NotImplementedError("The kernels of bias_act have two derivatives; impl='ref' has all of them")
        ctx.save_for_backward(t, x, b)
        ctx.order, ctx.settings = order, settings
        return settings.kernel(x, b, t, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        t, x, b = ctx.saved_tensors
        needs_t, needs_x, needs_b = ctx.needs_input_grad[:3]
        dt = dx = None
        if needs_t:
            dt = _Derivative.apply(grad, x, b, ctx.order, ctx.settings)
        if needs_x or needs_b:
            if ctx.settings.act in STRAIGHT:
                dx = torch.zeros_like(x)
            else:
                dx = _Derivative.apply(grad * t, x, b, ctx.order + 1, ctx.settings)
        return dt, dx, ctx.settings.to_bias(dx) if needs_b and dx is not None else None, None, None
