"""Bias and activation: y = clamp(gain * act(x + b), -clamp, clamp).

Everything here is differentiable twice. The plain torch definition, `_reference`, says what the kernels compute.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from eg3d.ops import build


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
    build.resolve(impl, x.device)
    return _reference(x, b, dim, act, alpha, gain, clamp)


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
