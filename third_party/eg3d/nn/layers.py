"""Layers of the generator and the discriminator (EG3D on StyleGAN2): equalised learning rate, modulation, toRGB.

Weights are stored with unit variance, times 1 / lr_multiplier, and scaled when they are used. Parameter names are those
of the published tensors.
"""

import math
from collections.abc import Sequence

import torch
from eg3d.ops import bias_act, conv2d_resample, modulated_conv2d, modulated_layer, setup_filter
from eg3d.ops.bias_act import ACTIVATIONS
from eg3d.ops.choice import chosen
from eg3d.ops.modulated_layer import scaled_layer
from eg3d.transfer import send
from torch import Tensor, nn

NOISE_MODES = ("const", "random", "none")
FILTER = (1, 3, 3, 1)


def normalize_second_moment(x: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x (mean_j x_j^2 + eps)^(-1/2), the mean taken over `dim`."""
    return x * (x.square().mean(dim=dim, keepdim=True) + eps).rsqrt()


class FullyConnected(nn.Module):
    """y = act(x (W lr / sqrt(in))^T + b lr), with W ~ N(0, 1) / lr at the start.

    Args:
        activation: a name in `eg3d.ops.bias_act.ACTIVATIONS`; its default gain applies.
        lr_multiplier: lr, how fast W and b learn relative to the optimiser's rate.
        bias_init: every entry of b at the start.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        activation: str = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.activation = _known_activation(activation)
        self.lr_multiplier = lr_multiplier
        self.impl = chosen(impl)
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init))) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features), dtype of x."""
        w, b = self.scaled()
        w, b = w.to(x.dtype), None if b is None else b.to(x.dtype)
        if self.activation == "linear":
            return nn.functional.linear(x, w, b)
        return bias_act(nn.functional.linear(x, w), b, dim=-1, act=self.activation, impl=self.impl)

    def scaled(self) -> tuple[Tensor, Tensor | None]:
        """W lr / sqrt(in) and b lr, as they are multiplied."""
        w = self.weight * (self.lr_multiplier / math.sqrt(self.in_features))
        return w, None if self.bias is None else self.bias * self.lr_multiplier

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"{self.in_features}, {self.out_features}, {self.activation}, lr_multiplier={self.lr_multiplier}"


class Conv2d(nn.Module):
    """Convolution with equalised weights, W / sqrt(in k^2), FIR resampling, bias and activation.

    Args:
        up, down: resampling factors; layers that upsample convolve, the others correlate.
        conv_clamp: limit of |y|; None does not limit.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        activation: str = "linear",
        up: int = 1,
        down: int = 1,
        conv_clamp: float | None = None,
        resample_filter: Sequence[float] = FILTER,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        self.activation = _known_activation(activation)
        self.up = up
        self.down = down
        self.conv_clamp = conv_clamp
        self.impl = chosen(impl)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_buffer("resample_filter", setup_filter(resample_filter))

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """(B, in, H, W) -> (B, out, H up / down, W up / down); `gain` scales the result and its limit."""
        _, in_channels, kernel_size, _ = self.weight.shape
        scale = 1 / math.sqrt(in_channels * kernel_size**2)
        if self.activation == "lrelu" and self.up == self.down == 1 and self.bias is not None:
            return scaled_layer(x, self.weight, self.bias, scale, gain=gain, clamp=self.conv_clamp, impl=self.impl)
        y = conv2d_resample(
            x,
            (self.weight * scale).to(x.dtype),
            self.resample_filter,
            up=self.up,
            down=self.down,
            padding=kernel_size // 2,
            flip_weight=self.up == 1,
            impl=self.impl,
        )
        return activate(y, self.bias, self.activation, gain, self.conv_clamp, self.impl)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"{tuple(self.weight.shape)}, {self.activation}, up={self.up}, down={self.down}, clamp={self.conv_clamp}"


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU: one layer of the synthesis network at `resolution`.

    Args:
        resolution: of the output; it is the size of the noise image.
        up: 2 doubles the input's resolution by a transposed convolution and a FIR filter.
        conv_clamp: limit of |y|; None does not limit.
    """

    resample_filter: Tensor
    noise_const: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        resolution: int,
        up: int = 1,
        conv_clamp: float | None = None,
        kernel_size: int = 3,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.up = up
        self.conv_clamp = conv_clamp
        self.impl = chosen(impl)
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0, impl=impl)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("resample_filter", setup_filter(FILTER))

    def forward(
        self,
        x: Tensor,
        w: Tensor,
        *,
        noise_mode: str = "const",
        rng: torch.Generator | None = None,
        gain: float = 1.0,
    ) -> Tensor:
        """(B, in, resolution / up, same), (B, w_dim) -> (B, out, resolution, resolution), dtype of x.

        Training convolves scaled images, inference scaled weights, as the released code does; they agree to rounding.

        Args:
            noise_mode: "const" adds the stored image, "random" a fresh one from `rng`, "none" nothing.
        Raises: ValueError for another size of x or an unknown noise mode.
        """
        size = self.resolution // self.up
        if x.shape[2:] != (size, size):
            raise ValueError(f"x has shape {tuple(x.shape)}, expected size {size} for a layer of {self.resolution}")
        return modulated_layer(
            x,
            self.weight,
            self.affine(w),
            self.bias,
            noise=self.noise(x, noise_mode, rng),
            up=self.up,
            resample_filter=self.resample_filter,
            gain=gain,
            clamp=self.conv_clamp,
            fused=_scales_weights(x, self.training),
            impl=self.impl,
        )

    def noise(self, x: Tensor, noise_mode: str, rng: torch.Generator | None) -> Tensor | None:
        """The noise image times its strength: (r, r), or (B, 1, r, r) when random."""
        if noise_mode not in NOISE_MODES:
            raise ValueError(f"noise_mode is {noise_mode!r}, expected one of {', '.join(NOISE_MODES)}")
        if noise_mode == "none":
            return None
        if noise_mode == "const":
            return self.noise_const * self.noise_strength
        device = x.device if rng is None else rng.device
        fresh = torch.randn((x.shape[0], 1, self.resolution, self.resolution), generator=rng, device=device)
        return send(fresh, x.device) * self.noise_strength

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"{tuple(self.weight.shape)}, resolution={self.resolution}, up={self.up}, clamp={self.conv_clamp}"


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to image channels, without demodulation, noise or activation.

    Styles are affine(w) / sqrt(in).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        conv_clamp: float | None = None,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        self.conv_clamp = conv_clamp
        self.impl = chosen(impl)
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0, impl=impl)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(B, in, H, W), (B, w_dim) -> (B, out, H, W) float32."""
        styles = self.affine(w) / math.sqrt(self.weight.shape[1])
        y = modulated_conv2d(
            x, self.weight, styles, demodulate=False, fused=_scales_weights(x, self.training), impl=self.impl
        )
        return bias_act(y, self.bias, clamp=self.conv_clamp, impl=self.impl).float()

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"{tuple(self.weight.shape)}, clamp={self.conv_clamp}"


def _scales_weights(x: Tensor, training: bool) -> bool:
    """Check whether a layer scales weights: in inference, unless that would separate the channels of half precision."""
    together = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return not (training or (together and x.dtype == torch.float16))


class MinibatchStd(nn.Module):
    """Append the standard deviation over groups of the batch as constant channels.

    Members of a group stand N / group_size apart in the batch.

    Args:
        group_size: samples per group, at most the whole batch; None takes the whole batch.
        num_channels: channels appended, each the mean over its share of the input's channels.
    """

    def __init__(self, group_size: int | None, num_channels: int = 1) -> None:
        super().__init__()
        self.group_size = group_size
        self.num_channels = num_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C + num_channels, H, W).

        Raises: ValueError if groups do not divide the batch, or num_channels the channels.
        """
        num, channels, height, width = x.shape
        group = num if self.group_size is None else min(self.group_size, num)
        if num % group or channels % self.num_channels:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, expected a batch that divides by the group size {group} "
                f"and channels that divide by {self.num_channels}"
            )
        y = x.reshape(group, num // group, self.num_channels, channels // self.num_channels, height, width)
        variance = (y - y.mean(dim=0)).square().mean(dim=0)
        std = (variance + 1e-8).sqrt().mean(dim=(2, 3, 4))
        std = std.repeat(group, 1)[:, :, None, None].expand(-1, -1, height, width)
        return torch.cat([x, std], dim=1)


def activate(x: Tensor, b: Tensor | None, act: str, gain: float, clamp: float | None, impl: str) -> Tensor:
    """Bias, activation and clamp, with the activation's own gain and the limit both multiplied by `gain`."""
    limit = None if clamp is None else clamp * gain
    return bias_act(x, b, act=act, gain=ACTIVATIONS[act].gain * gain, clamp=limit, impl=impl)


def _known_activation(name: str) -> str:
    if name not in ACTIVATIONS:
        raise ValueError(f"activation is {name!r}, expected one of {', '.join(ACTIVATIONS)}")
    return name
