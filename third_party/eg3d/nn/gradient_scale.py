"""Keep small gradients alive in half precision.

The gradient of a mean squared error over 512² pixels is about 1e-7, below the normal numbers of float16 (from 6e-5) and
near the smallest one (6e-8): it loses its direction on the way through a half-precision region. The regions here
therefore see it multiplied by a power of two, chosen anew in each backward pass, which is divided out again in float32
where the gradient leaves. The released code has no such scaling.
"""

from typing import Any

import torch
from torch import Tensor

EXPONENT = -4  # of the largest entry at the exit, 2^-5 to 2^-4: even its sum over 512² equal pixels stays below 65504


class GradientScale:
    """One forward pass through a region: every tensor that requires a gradient comes in by `enter`.

    Weights are such tensors, too: `torch.func.functional_call` puts what `enter` returns in their places. Once a
    gradient is to be differentiated itself (`create_graph`), nothing is scaled any more: derivatives of second order
    come into the region elsewhere than by its exit.
    """

    def __init__(self) -> None:
        self.factor: Tensor | None = None  # of the backward pass in progress
        self.differentiated = False

    def enter(self, x: Tensor) -> Tensor:
        """x itself; divides its gradient by the factor. x is float32."""
        return _Enter.apply(x, self)

    def leave(self, y: Tensor) -> Tensor:
        """y itself, the region's only result, float32; chooses the factor and multiplies the gradient by it."""
        return _Leave.apply(y, self)


class _Enter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: GradientScale) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad / ctx.scale.factor, None


class _Leave(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, scale: GradientScale) -> Tensor:
        ctx.scale = scale
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        scale = ctx.scale
        scale.differentiated |= torch.is_grad_enabled()
        scale.factor = grad.new_ones(()) if scale.differentiated else _power_of_two(grad)
        return grad * scale.factor, None


def _power_of_two(grad: Tensor) -> Tensor:
    """The factor that brings the largest |entry| to about 2^EXPONENT, 2^-104 to 2^96; NaN if an entry is NaN."""
    largest = grad.abs().amax().clamp(2.0**-100, 2.0**100)
    return 2.0**EXPONENT * torch.frexp(largest).mantissa / largest  # exact
