"""Adaptive feature alignment: (F, residual) -> F* (paper, Sec. 4.2, Eq. 7).

F* = gamma ⊙ F + beta, both modulations computed from F and a CNN's features of the residual image. Three variants:

paper     F_align = Attention(W_Q F, W_K F_dI, W_V F_dI); gamma and beta are convolutions of F_align. Residual I - I_w.
official  as released: two attention blocks give gamma and beta directly. Residual I_w - I.
conv      the ablation without alignment: F_dI pooled to the size of F, beside F, and convolved to gamma and beta.

The paper leaves open the CNN (taken from the released weights), the convolutions' kernel (3) and how training starts:
here `paper` and `conv` start at gamma = 1, beta = 0, that is F* = F. Tokens are normalised over their channels, without
parameters.
"""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from eg3d.ops.choice import chosen
from eg3d.ops.conv3x3 import LANES, conv3x3
from torch import Tensor, nn

from goae.ir_se import ResidualUnit, folded
from goae.models.attention import CrossAttention

RESIDUALS = ("auto", "img_minus_rec", "rec_minus_img")


@dataclass
class AFAConfig:
    """Sizes of feature alignment; the defaults but for `variant` are those of the released weights."""

    variant: str = "paper"  # paper | official | conv
    residual: str = "auto"  # auto (official: rec_minus_img, else img_minus_rec) | img_minus_rec | rec_minus_img
    feature_channels: int = 512  # channels of F
    feature_resolution: int = 32  # side of F: the generator is cut behind its block of this resolution
    image_resolution: int = 512  # side of both images
    token_ratio: int = 2  # side of the residual's features over the side of F
    widths: list[int] = field(default_factory=lambda: [64, 128, 256])  # channels of the CNN's groups of units
    units: list[int] = field(default_factory=lambda: [3, 3, 3])  # residual units per group
    squeeze: int = 16  # channel reduction inside squeeze-and-excitation
    attention_heads: int = 4
    feedforward_dim: int = 1024  # hidden width behind the attention; variant official
    dropout: float = 0.1  # inside the attention; training mode only
    bn_eval: bool = False  # keep BatchNorm's running statistics fixed, and use them, in training mode too

    def __post_init__(self) -> None:
        if self.variant not in MODULATIONS:
            raise ValueError(f"afa.variant={self.variant!r}: expected one of {sorted(MODULATIONS)}")
        if self.residual not in RESIDUALS:
            raise ValueError(f"afa.residual={self.residual!r}: expected one of {list(RESIDUALS)}")
        if len(self.widths) != len(self.units) or not self.widths or min(self.units) < 1:
            raise ValueError(
                f"afa.widths={self.widths} and afa.units={self.units} must name the same groups, each of >= 1 unit"
            )
        if any(width % self.squeeze for width in self.widths):
            raise ValueError(f"afa.squeeze={self.squeeze} must divide afa.widths={self.widths}")
        if self.feature_channels % self.attention_heads:
            raise ValueError(
                f"afa.attention_heads={self.attention_heads} must divide afa.feature_channels={self.feature_channels}"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"afa.dropout={self.dropout}: expected a probability in [0, 1)")
        self._check_strides()

    def _check_strides(self) -> None:
        side = self.token_ratio * self.feature_resolution
        halvings = math.log2(self.image_resolution / side)
        if halvings != int(halvings) or not 0 <= halvings <= len(self.widths):
            raise ValueError(
                f"afa.image_resolution={self.image_resolution} must be afa.token_ratio x afa.feature_resolution = "
                f"{side} times a power of two, with at most one halving for each of afa.widths={self.widths}"
            )

    @property
    def strides(self) -> list[int]:
        """Stride of each group's first unit: as many early groups halve as the token grid needs."""
        halvings = int(math.log2(self.image_resolution // (self.token_ratio * self.feature_resolution)))
        return [2 if group < halvings else 1 for group in range(len(self.widths))]

    @property
    def subtracts_image(self) -> bool:
        """Whether the residual is rendered minus real, as the released weights need it."""
        return self.residual == "rec_minus_img" or (self.residual == "auto" and self.variant == "official")


class AFAOutput(NamedTuple):
    """F* and its modulations, each (B, C, r, r)."""

    features: Tensor
    gamma: Tensor
    beta: Tensor


class EqualizedConv(nn.Module):
    """3 x 3 convolution whose stored weight is scaled by 1 / sqrt(9 * inputs) at run time."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = 1 / math.sqrt(9 * inputs)
        self.impl = chosen()  # of the operators, see `eg3d.ops.choice`

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        return conv3x3(x, self.weight * self.scale, bias=self.bias, impl=self.impl)


class ScaledLeakyReLU(nn.Module):
    """sqrt(2) * LeakyReLU(x) with slope 0.2."""

    def forward(self, x: Tensor) -> Tensor:
        """Element-wise."""
        return F.leaky_relu(x, 0.2) * math.sqrt(2)


def _normalized_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, HW, C) with zero mean and unit deviation over the channels of each position."""
    return F.layer_norm(x.flatten(2).transpose(1, 2), x.shape[1:2])


def _map_of(tokens: Tensor, like: Tensor) -> Tensor:
    """(B, HW, C) -> the (B, C, H, W) shape of `like`."""
    return tokens.transpose(1, 2).reshape(like.shape)


def _identity_modulation(inputs: int, channels: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Conv_gamma and Conv_beta (3 x 3), which start as the constants 1 and 0."""
    convs = nn.Conv2d(inputs, channels, 3, padding=1), nn.Conv2d(inputs, channels, 3, padding=1)
    for conv, constant in zip(convs, (1.0, 0.0), strict=True):
        nn.init.zeros_(conv.weight)
        nn.init.constant_(conv.bias, constant)  # type: ignore[arg-type]
    return convs


class AlignAndConvolve(nn.Module):
    """Variant `paper`: F_align = Attention(Q, K, V), gamma = Conv_gamma(F_align), beta = Conv_beta(F_align) (Eq. 7)."""

    def __init__(self, config: AFAConfig) -> None:
        super().__init__()
        channels = config.feature_channels
        self.attention = nn.MultiheadAttention(
            channels, config.attention_heads, dropout=config.dropout, batch_first=True
        )
        self.conv_gamma, self.conv_beta = _identity_modulation(channels, channels)
        self.impl = chosen()

    def forward(self, features: Tensor, residual_features: Tensor) -> tuple[Tensor, Tensor]:
        """F (B, C, r, r) and F_dI (B, C, t, t) -> gamma and beta (B, C, r, r)."""
        memory = _normalized_tokens(residual_features)
        aligned, _ = self.attention(_normalized_tokens(features), memory, memory, need_weights=False)
        aligned = _map_of(aligned, features)
        gamma, beta = (
            conv3x3(aligned, conv.weight, bias=conv.bias, impl=self.impl) for conv in (self.conv_gamma, self.conv_beta)
        )
        return gamma, beta


class TwoAttentions(nn.Module):
    """Variant `official`: gamma and beta come from a cross-attention block each."""

    def __init__(self, config: AFAConfig) -> None:
        super().__init__()
        self.cross_att_gamma, self.cross_att_beta = (
            CrossAttention(
                config.feature_channels,
                num_heads=config.attention_heads,
                feedforward_dim=config.feedforward_dim,
                dropout=config.dropout,
            )
            for _ in range(2)
        )

    def forward(self, features: Tensor, residual_features: Tensor) -> tuple[Tensor, Tensor]:
        """F (B, C, r, r) and F_dI (B, C, t, t) -> gamma and beta (B, C, r, r)."""
        queries, memory = _normalized_tokens(features), _normalized_tokens(residual_features)
        gamma, beta = self.cross_att_gamma(queries, memory), self.cross_att_beta(queries, memory)
        return _map_of(gamma, features), _map_of(beta, features)


class ConvolveOnly(nn.Module):
    """Variant `conv`: no alignment, so that the residual stays where the input camera saw it."""

    def __init__(self, config: AFAConfig) -> None:
        super().__init__()
        self.conv_gamma, self.conv_beta = _identity_modulation(2 * config.feature_channels, config.feature_channels)
        self.impl = chosen()

    def forward(self, features: Tensor, residual_features: Tensor) -> tuple[Tensor, Tensor]:
        """F (B, C, r, r) and F_dI (B, C, t, t) -> gamma and beta (B, C, r, r)."""
        pooled = F.adaptive_avg_pool2d(residual_features, (features.shape[2], features.shape[3]))
        both = torch.cat([features, pooled], dim=1)
        gamma, beta = (
            conv3x3(both, conv.weight, bias=conv.bias, impl=self.impl) for conv in (self.conv_gamma, self.conv_beta)
        )
        return gamma, beta


MODULATIONS: dict[str, type[nn.Module]] = {"paper": AlignAndConvolve, "official": TwoAttentions, "conv": ConvolveOnly}


class AFA(nn.Module):
    """Adaptive feature alignment. BatchNorm sees the batch it is given: one micro-batch, never a gathered one."""

    def __init__(self, config: AFAConfig) -> None:
        super().__init__()
        self.config = config
        first, last, channels = config.widths[0], config.widths[-1], config.feature_channels
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, first, 3, 1, 1, bias=False), nn.BatchNorm2d(first), nn.PReLU(first)
        )
        self.body = nn.Sequential(*_units(config))
        self.output_layer = nn.Sequential(
            EqualizedConv(last, channels), ScaledLeakyReLU(), EqualizedConv(channels, channels)
        )
        self.modulation = MODULATIONS[config.variant](config)
        self.impl = chosen()

    def train(self, mode: bool = True) -> "AFA":
        """Training mode, but for BatchNorm if `config.bn_eval`."""
        super().train(mode)
        if self.config.bn_eval:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, image: Tensor, image_w: Tensor, features: Tensor) -> AFAOutput:
        """F* = gamma ⊙ F + beta (paper, Eq. 7).

        Args:
            image: real image (B, 3, H, W) in [-1, 1].
            image_w: its W+ reconstruction, same shape, not clamped.
            features: F, (B, C, r, r), not normalised.
        Raises: ValueError if a shape is not the configured one.
        """
        self._check(image, image_w, features)
        residual = image_w - image if self.config.subtracts_image else image - image_w
        residual_features = self.output_layer(self.body(self._first_features(residual)))
        gamma, beta = self.modulation(features, residual_features)
        return AFAOutput(gamma * features + beta, gamma, beta)

    def _first_features(self, residual: Tensor) -> Tensor:
        """`input_layer`; without gradients as one convolution, of as many channels as its kernels need."""
        if torch.is_grad_enabled() or self.training or residual.device.type != "cpu":
            return self.input_layer(residual)
        layers: tuple[Any, ...] = tuple(self.input_layer)
        conv, norm, activation = layers
        factor, bias = folded(norm)
        empty = LANES - residual.shape[1]
        x, weight = F.pad(residual, (0, 0, 0, 0, 0, empty)), F.pad(conv.weight, (0, 0, 0, 0, 0, empty))
        return conv3x3(x, weight, factor=factor, bias=bias, slope=activation.weight, impl=self.impl)

    def _check(self, image: Tensor, image_w: Tensor, features: Tensor) -> None:
        side, cut = self.config.image_resolution, self.config.feature_resolution
        for name, tensor, shape in (
            ("image", image, (3, side, side)),
            ("image_w", image_w, (3, side, side)),
            ("features", features, (self.config.feature_channels, cut, cut)),
        ):
            if tensor.shape[1:] != shape:
                raise ValueError(
                    f"afa: {name} has shape {tuple(tensor.shape)}, expected (B, {', '.join(map(str, shape))}); see "
                    "afa.image_resolution, afa.feature_channels, afa.feature_resolution"
                )


def _units(config: AFAConfig) -> list[ResidualUnit]:
    """The CNN's residual units, group by group; a group's first unit changes width and resolution."""
    units, inputs = [], config.widths[0]
    for width, count, stride in zip(config.widths, config.units, config.strides, strict=True):
        for index in range(count):
            units.append(ResidualUnit(inputs, width, stride=stride if index == 0 else 1, squeeze=config.squeeze))
            inputs = width
    return units
