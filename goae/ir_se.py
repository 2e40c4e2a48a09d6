"""Residual units with squeeze-and-excitation, the IR-SE of ArcFace, by the names of its public checkpoint."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from eg3d.ops.choice import chosen
from eg3d.ops.conv3x3 import conv3x3
from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """x * sigmoid(W2 ReLU(W1 mean(x))), per channel."""

    def __init__(self, channels: int, squeeze: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // squeeze, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // squeeze, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return x * self.gate(x)

    def gate(self, x: Tensor) -> Tensor:
        """The factors of the channels, (B, C, 1, 1)."""
        pooled = x.mean(dim=(2, 3), keepdim=True)
        return torch.sigmoid(self.fc2(torch.relu(self.fc1(pooled))))


def folded(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Factor and summand of the channels that a BatchNorm with fixed statistics amounts to."""
    assert norm.running_mean is not None and norm.running_var is not None
    factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return factor, norm.bias - norm.running_mean * factor


class ResidualUnit(nn.Module):
    """BN - Conv3 - PReLU - Conv3 (strided) - BN - SE, added to the subsampled or projected input.

    Evaluation without gradients folds each BatchNorm into the convolution beside it.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, squeeze: int) -> None:
        super().__init__()
        self.stride = stride
        self.impl = chosen()  # of the operators, see `eg3d.ops.choice`
        self.shortcut_layer: nn.Module
        if inputs == outputs:
            self.shortcut_layer = nn.MaxPool2d(1, stride)
        else:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            SqueezeExcitation(outputs, squeeze),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        layers: tuple[Any, ...] = tuple(self.res_layer)
        norm_in, conv_in, activation, conv_out, norm_out, excitation = layers
        if torch.is_grad_enabled() or self.training or x.device.type != "cpu":
            y = activation(conv3x3(norm_in(x), conv_in.weight, impl=self.impl))
            y = norm_out(conv3x3(y, conv_out.weight, stride=self.stride, impl=self.impl))
            return self.shortcut_layer(x) + excitation(y)
        (scale, shift), (factor, bias) = folded(norm_in), folded(norm_out)
        y = conv3x3(x, conv_in.weight, scale=scale, shift=shift, slope=activation.weight, impl=self.impl)
        y = conv3x3(y, conv_out.weight, stride=self.stride, factor=factor, bias=bias, impl=self.impl)
        return torch.addcmul(self._shortcut(x), y, excitation.gate(y))

    def _shortcut(self, x: Tensor) -> Tensor:
        """The subsampled or projected input, by a product of pixels."""
        x = x[:, :, :: self.stride, :: self.stride]
        if isinstance(self.shortcut_layer, nn.MaxPool2d):
            return x
        layers: tuple[Any, ...] = tuple(self.shortcut_layer.children())
        conv, norm = layers
        factor, bias = folded(norm)
        pixels = F.linear(x.permute(0, 2, 3, 1).flatten(0, 2), conv.weight[:, :, 0, 0] * factor[:, None], bias)
        return pixels.unflatten(0, (len(x), *x.shape[2:])).permute(0, 3, 1, 2)


class Trunk(nn.Module):
    """The network up to its last map: a stem, then groups of units of which every first one halves the resolution.

    Args:
        in_channels: of the input, 3 for images.
        widths, units: channels and number of units, group by group; ArcFace's IR-SE50 has (64, 128, 256, 512) and
            (3, 4, 14, 3).
        squeeze: channel reduction inside squeeze-and-excitation.
    """

    def __init__(self, in_channels: int, widths: Sequence[int], units: Sequence[int], squeeze: int) -> None:
        super().__init__()
        first = widths[0]
        self.input_layer = nn.Sequential(
            nn.Conv2d(in_channels, first, 3, 1, 1, bias=False), nn.BatchNorm2d(first), nn.PReLU(first)
        )
        body, inputs = [], first
        for width, count in zip(widths, units, strict=True):
            for index in range(count):
                body.append(ResidualUnit(inputs, width, stride=1 if index else 2, squeeze=squeeze))
                inputs = width
        self.body = nn.Sequential(*body)
        self.ends = list(accumulate(units))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, in_channels, H, W) -> the map behind each group, (B, widths[g], H / 2^(g + 1), W / 2^(g + 1))."""
        x, maps = self.input_layer(x), []
        for number, unit in enumerate(self.body, 1):
            x = unit(x)
            if number in self.ends:
                maps.append(x)
        return maps
