"""Convolution of one pixel with channels last: a product of matrices that leaves the image where it is."""

from typing import Any

import torch
from torch import Tensor

FEW = 16  # outputs up to which transposing them is cheaper than reading the image across


def modulated_pixels(x: Tensor, weight: Tensor) -> Tensor:
    """y[n, o] = sum_i weight[n, o, i] x[n, i] at every pixel; differentiable any number of times.

    Args:
        x: (B, I, H, W), channels last.
        weight: (B, O, I), a matrix for each sample.
    Returns: (B, O, H, W), contiguous.
    """
    y = _PixelProduct.apply(x.permute(0, 2, 3, 1).flatten(1, 2), weight)
    return y.unflatten(2, x.shape[2:])


class _PixelProduct(torch.autograd.Function):
    """(B, P, I) and (B, O, I) -> (B, O, P), with gradients in the layout of their inputs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        if weight.shape[1] <= FEW:
            return torch.matmul(x, weight.mT).mT.contiguous()
        return torch.bmm(weight, x.mT)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        dx = torch.bmm(dy.mT, weight) if ctx.needs_input_grad[0] else None
        return dx, torch.bmm(dy, x) if ctx.needs_input_grad[1] else None
