"""The decoder: a small network from tri-plane features to colours and density (EG3D, Sec. 3.2)."""

from typing import Any

import torch
from eg3d.nn.layers import FullyConnected
from torch import Tensor, nn

_WIDEN = 0.001  # colours reach slightly beyond [0, 1], so that the sigmoid need not saturate (Mip-NeRF)


class _Softplus(torch.autograd.Function):
    """log(1 + e^x) as max(x, 0) - log sigmoid |x|, without log1p, which takes most of a decoder's time on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0).sub_(x.abs().sigmoid_().log_())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * torch.sigmoid(x)


class Softplus(nn.Module):
    """log(1 + e^x), exact to rounding of 1; double-differentiable."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, dtype of x."""
        return _Softplus.apply(x) if x.device.type == "cpu" else nn.functional.softplus(x)


class Decoder(nn.Module):
    """Fully connected, softplus, fully connected; the view's direction is not looked at.

    Args:
        channels: of the planes.
        hidden: width between the two layers.
        out_channels: colour and feature channels, beside the density.
        lr_multiplier: learning-rate multiplier of both layers (`decoder_lr_mul`).
    """

    def __init__(self, channels: int, hidden: int = 64, out_channels: int = 32, lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.net = nn.Sequential(
            FullyConnected(channels, hidden, lr_multiplier=lr_multiplier),
            Softplus(),
            FullyConnected(hidden, 1 + out_channels, lr_multiplier=lr_multiplier),
        )

    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Matrix (hidden, channels) and bias of the first layer, (1 + out_channels, hidden) and bias of the second.

        As they are multiplied, with the equalised learning rate's scales in them; the density comes first.
        """
        first, last = self.net[0], self.net[2]
        assert isinstance(first, FullyConnected) and isinstance(last, FullyConnected)
        (w1, b1), (w2, b2) = first.scaled(), last.scaled()
        assert b1 is not None and b2 is not None
        return w1, b1, w2, b2

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (..., channels) -> colours (..., out_channels) in (-0.001, 1.001), raw density (..., 1).

        The density has no activation here; marching applies softplus(sigma - 1) to averages of it.
        """
        x = self.net(features)
        sigma, rgb = x.split([1, x.shape[-1] - 1], dim=-1)
        return torch.sigmoid(rgb) * (1 + 2 * _WIDEN) - _WIDEN, sigma
