"""3x3 convolution between two scalings of the channels, the second with a leaky ReLU behind it, as one operator.

Float images on a CPU are convolved by minimal filtering, as in `eg3d.ops.modulated_layer`, whose derivatives serve here
too. What they leave to the definition: strides and shifts, if gradients are wanted.
"""

import torch
from eg3d.ops import build
from eg3d.ops.modulated_layer import Layer, Settings
from torch import Tensor
from torch.nn import functional as F

LANES = 16  # channels that the kernels need a multiple of, on any CPU


def conv3x3(
    x: Tensor,
    weight: Tensor,
    *,
    stride: int = 1,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    factor: Tensor | None = None,
    bias: Tensor | None = None,
    slope: float | Tensor | None = None,
    gain: float = 1.0,
    impl: str = "auto",
) -> Tensor:
    """y = gain prelu(factor conv(W, scale x + shift) + bias), padded by zeros to keep the size.

    Args:
        x: (B, I, H, W).
        weight: (O, I, 3, 3), correlated.
        stride: 1 or 2.
        scale, shift: (I,), before the convolution; None for 1 and 0.
        factor, bias: (O,), behind it; None for 1 and 0.
        slope: of the leaky ReLU below zero: a number that is not negative, or (O,); None for 1.
        impl: see `eg3d.ops.build.resolve`.
    Returns: (B, O, H / stride, W / stride), dtype of x; channels last where our kernels made it.
    """
    options = scale, shift, factor, bias, slope if isinstance(slope, Tensor) else None
    if _kernel_fits(x, weight, stride, options) and build.resolve(impl, x.device, "conv3x3") == "cpu":
        if not _records(x, weight, *options):
            return _by_kernel(x, weight, stride, scale, shift, factor, bias, slope, gain)
        if stride == 1 and shift is None:
            return _recorded(x, weight, scale, factor, bias, slope, gain)
    x = x if scale is None else x * _channels(scale)
    x = x if shift is None else x + _channels(shift)
    y = F.conv2d(x, weight, bias if factor is None else None, stride=stride, padding=1)
    y = y if factor is None else y * _channels(factor)
    y = y if factor is None or bias is None else y + _channels(bias)
    y = _bent(y, slope)
    return y if gain == 1 else y * gain


def _bent(y: Tensor, slope: float | Tensor | None) -> Tensor:
    if slope is None:
        return y
    return F.prelu(y, slope) if isinstance(slope, Tensor) else F.leaky_relu(y, slope)


def _channels(t: Tensor) -> Tensor:
    return t[:, None, None]


def _kernel_fits(x: Tensor, weight: Tensor, stride: int, options: tuple[Tensor | None, ...]) -> bool:
    given = [t for t in (x, weight, *options) if t is not None]
    floats = all(t.dtype == torch.float32 for t in given)
    shapes = x.ndim == 4 and weight.shape[1:] == (x.shape[1], 3, 3)
    channels = shapes and x.shape[1] % LANES == weight.shape[0] % LANES == 0
    halves = stride == 1 or (options[1] is None and x.shape[2] % 2 == x.shape[3] % 2 == 0)
    return floats and channels and halves and not torch.is_autocast_enabled("cpu")


def _records(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _recorded(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    factor: Tensor | None,
    bias: Tensor | None,
    slope: float | Tensor | None,
    gain: float,
) -> Tensor:
    """Differentiable any number of times; a slope of each channel, or of learned factors, acts behind the kernels."""
    num, num_in, num_out = x.shape[0], x.shape[1], weight.shape[0]
    s = x.new_ones(num, num_in) if scale is None else scale.expand(num, -1)
    d = x.new_ones(num, num_out) if factor is None else factor.expand(num, -1)
    b = x.new_zeros(num_out) if bias is None else bias
    x = x.contiguous(memory_format=torch.channels_last)
    if isinstance(slope, float) and not d.requires_grad:
        return Layer.apply(x, weight, s, d, None, b, Settings(None, (), gain, -1.0, slope))
    y = _bent(Layer.apply(x, weight, s, d, None, b, Settings(None, (), 1.0, -1.0, slope=1.0)), slope)
    return y if gain == 1 else y * gain


def _by_kernel(
    x: Tensor,
    weight: Tensor,
    stride: int,
    scale: Tensor | None,
    shift: Tensor | None,
    factor: Tensor | None,
    bias: Tensor | None,
    slope: float | Tensor | None,
    gain: float,
) -> Tensor:
    scale, factor = (None if t is None else t.expand(x.shape[0], -1) for t in (scale, factor))
    if stride == 1:
        op = build.kernel("cpu", "conv3x3")
        slope = weight.new_full((weight.shape[0],), slope) if isinstance(slope, float) else slope
        return op(x, weight, False, scale, shift, factor, None, bias, slope, gain, -1.0)
    y, _ = build.kernel("cpu", "conv3x3_down")(x, weight, False, True, scale, factor, None)
    y = y if bias is None else y.add_(_channels(bias))
    y = _bent(y, slope)
    return y if gain == 1 else y.mul_(gain)
