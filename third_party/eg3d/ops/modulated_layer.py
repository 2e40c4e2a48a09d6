"""A layer of the synthesis network as one operator: modulated 3x3 convolution, noise, bias, leaky ReLU, limit.

The plain definition, `_reference`, is a chain of the other operators. Kernels exist for float images on a CPU. They
keep the channels of a pixel beside each other, convolve by minimal filtering (Winograd), scale images rather than
weights, and save nothing but input and output: what the layer's derivatives need is found again from the output, since
a leaky ReLU can be undone. Derivatives of second order are those of the definition.
"""

import math
from typing import Any, NamedTuple

import torch
from eg3d.ops import build
from eg3d.ops.bias_act import bias_act
from eg3d.ops.conv2d_resample import conv2d_resample, demodulation, modulated_conv2d
from torch import Tensor
from torch.nn.grad import conv2d_weight

SLOPE = 0.2  # of the leaky ReLU below zero
LANES = 16  # channels that the kernels need a multiple of, on any CPU


def modulated_layer(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    bias: Tensor,
    noise: Tensor | None = None,
    up: int = 1,
    resample_filter: Tensor | None = None,
    gain: float = 1.0,
    clamp: float | None = None,
    fused: bool = True,
    impl: str = "auto",
) -> Tensor:
    """y = clamp(gain sqrt(2) lrelu(conv(x; W, s) + noise + b)), conv as in `modulated_conv2d`, padded to keep the size.

    Args:
        x: (B, I, H, W).
        weight: (O, I, k, k) with odd k; correlated if `up` is 1, convolved otherwise.
        styles: (B, I).
        bias: (O,).
        noise: broadcastable to the result; None adds nothing.
        up: 2 doubles the resolution, by zero-insertion and `resample_filter`.
        clamp: limit of |y|, None does not limit; `gain` scales it, too.
        fused: of the definition, see `modulated_conv2d`.
        impl: see `eg3d.ops.build.resolve`.
    Returns: (B, O, H up, W up), dtype of x; channels last where our kernels made it.
    """
    backend = build.resolve(impl, x.device, "modulated_layer")
    limit = None if clamp is None else clamp * gain
    fits = backend == "cpu" and _kernel_fits(x, weight, styles, noise, up)
    taps = (_taps(resample_filter) if up == 2 else ()) if fits else None  # reads the filter, for which a GPU would wait
    if taps is None:
        return _reference(x, weight, styles, bias, noise, up, resample_filter, gain * math.sqrt(2), limit, fused, impl)
    settings = Settings(resample_filter, tuple(taps), gain * math.sqrt(2), -1.0 if limit is None else limit)
    return Layer.apply(x, weight, styles, demodulation(weight, styles), noise, bias, settings)


def scaled_layer(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: float,
    gain: float = 1.0,
    clamp: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """y = clamp(gain sqrt(2) lrelu(conv(x; scale W) + b)): the layer without modulation, correlating, at one size.

    Arguments and result as in `modulated_layer`.
    """
    limit = None if clamp is None else clamp * gain
    styles = x.new_ones(x.shape[:2])
    if build.resolve(impl, x.device, "modulated_layer") == "cpu" and _kernel_fits(x, weight, styles, None, up=1):
        settings = Settings(None, (), gain * math.sqrt(2), -1.0 if limit is None else limit)
        return Layer.apply(x, weight, styles, x.new_full((len(x), len(weight)), scale), None, bias, settings)
    y = conv2d_resample(x, (weight * scale).to(x.dtype), padding=weight.shape[2] // 2, impl=impl)
    return bias_act(y, bias, act="lrelu", alpha=SLOPE, gain=gain * math.sqrt(2), clamp=limit, impl=impl)


def _reference(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    up: int,
    f: Tensor | None,
    gain: float,
    limit: float | None,
    fused: bool,
    impl: str,
) -> Tensor:
    options: dict[str, Any] = {
        "up": up,
        "padding": weight.shape[2] // 2,
        "flip_weight": up == 1,
        "fused": fused,
        "impl": impl,
    }
    y = modulated_conv2d(x, weight, styles, noise, resample_filter=f, **options)
    return bias_act(y, bias, act="lrelu", alpha=SLOPE, gain=gain, clamp=limit, impl=impl)


def _kernel_fits(x: Tensor, weight: Tensor, styles: Tensor, noise: Tensor | None, up: int) -> bool:
    if x.ndim != 4 or weight.ndim != 4 or styles.shape != x.shape[:2] or weight.shape[1:] != (x.shape[1], 3, 3):
        return False
    size = (x.shape[2] * up, x.shape[3] * up)
    if torch.is_autocast_enabled(x.device.type):
        return False
    known_noise = noise is None or noise.shape in (size, (x.shape[0], 1, *size))
    channels = weight.shape[0] % LANES == weight.shape[1] % LANES == 0
    return known_noise and channels and up in (1, 2) and x.dtype == weight.dtype == torch.float32


def _taps(f: Tensor | None) -> list[float] | None:
    """The four taps whose outer product is f, or None."""
    if f is None or f.shape != (4, 4):
        return None
    rows = f.tolist()
    total = sum(map(sum, rows))
    if total <= 0:
        return None
    taps = [sum(row) / math.sqrt(total) for row in rows]
    product = [[a * b for b in taps] for a in taps]
    near = all(
        abs(p - q) < 1e-6 * total
        for row, other in zip(product, rows, strict=True)
        for p, q in zip(row, other, strict=True)
    )
    return taps if near else None


class Settings(NamedTuple):
    """What the operator is told besides its differentiable tensors."""

    f: Tensor | None  # the filter of `up` = 2,
    taps: tuple[float, ...]  # and what it is the outer product of
    gain: float
    limit: float  # negative: none
    slope: float = SLOPE  # below zero; with 0 there is no derivative in the demodulation

    @property
    def up(self) -> int:
        return 2 if self.taps else 1

    @property
    def is_linear(self) -> bool:
        return self.slope == self.gain == 1 and self.limit < 0


def _value(
    settings: Settings, x: Tensor, weight: Tensor, s: Tensor, d: Tensor, noise: Tensor | None, bias: Tensor
) -> Tensor:
    """The layer as a function of its demodulation, too, differentiable any number of times."""
    up = settings.up
    x = x * s[:, :, None, None]
    y = conv2d_resample(x, weight, settings.f, up=up, padding=1, flip_weight=up == 1, impl="ref")
    y = y * d[:, :, None, None]
    y = y if noise is None else y + noise
    limit = None if settings.limit < 0 else settings.limit
    return bias_act(y, bias, act="lrelu", alpha=settings.slope, gain=settings.gain, clamp=limit, impl="ref")


class Layer(torch.autograd.Function):
    """`_value` by kernels; with u = d conv(s x) + noise + b, and du = dy * du/dy found from y alone."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        s: Tensor,
        d: Tensor,
        noise: Tensor | None,
        bias: Tensor,
        settings: Settings,
    ) -> Tensor:
        epilogue = (d, noise, bias, torch.full_like(bias, settings.slope), settings.gain, settings.limit)
        if settings.up == 1:
            y = _kernel("conv3x3")(x, weight, False, s, None, *epilogue)
        else:
            z = _kernel("conv3x3_up")(x, weight, False, s)
            size = (2 * x.shape[2], 2 * x.shape[3])
            y = _kernel("filter_image")(z, [2 * tap for tap in reversed(settings.taps)], 1, size, *epilogue)
        keeps_y = not settings.is_linear or ctx.needs_input_grad[3]
        ctx.save_for_backward(x, weight, s, d, noise, bias, y if keeps_y else None)
        ctx.settings = settings
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, y = ctx.saved_tensors
        needed = ctx.needs_input_grad[:6]
        if torch.is_grad_enabled():
            return (*_differentiable_gradients(inputs, needed, dy, ctx.settings), None)
        return (*_gradients(inputs, needed, y, dy, ctx.settings), None)


def _differentiable_gradients(
    inputs: list[Any], needed: tuple[bool, ...], dy: Tensor, settings: Settings
) -> list[Tensor | None]:
    """The gradients by those of `_value`: as functions of the inputs, for derivatives of second order."""
    apart: list[Any] = [None if t is None else t.view_as(t) for t in inputs]  # d is a function of s and of the weight
    wanted = [t for t, need in zip(apart, needed, strict=True) if need]
    found = iter(torch.autograd.grad(_value(settings, *apart), wanted, dy, create_graph=True))
    return [next(found) if need else None for need in needed]


def _gradients(
    inputs: list[Any], needed: tuple[bool, ...], y: Tensor | None, dy: Tensor, settings: Settings
) -> list[Tensor | None]:
    """The gradients by kernels."""
    x, weight, s, d, noise, bias = inputs
    needs_x, needs_weight, needs_s, _, needs_noise, _ = needed
    du, dbias, dd = _behind(y, dy, d, noise, bias, needed, settings)
    dx = ds = dweight = None
    inner = du  # gradient of the convolution before the filter
    if settings.up == 2:
        size = (2 * x.shape[2] + 1, 2 * x.shape[3] + 1)
        taps = [2 * tap for tap in settings.taps]
        inner = _kernel("filter_image")(du, taps, 2, size, None, None, None, None, 1.0, -1.0)
    if needs_x or needs_s:
        like = x if needs_s else None
        if settings.up == 1:
            dx, ds = _kernel("conv3x3_gradient")(inner, weight.transpose(0, 1), True, d, s, like)
        else:
            dx, ds = _kernel("conv3x3_down")(inner, weight.transpose(0, 1), False, False, d, s, like)
    if needs_weight and settings.up == 1:
        dweight = _kernel("conv3x3_weights")(x, inner, s, d)
    elif needs_weight:
        flat = weight.transpose(0, 1)
        scaled, dz = x * s[:, :, None, None], inner * d[:, :, None, None]
        dweight = conv2d_weight(dz, flat.shape, scaled, stride=2).transpose(0, 1)
    dnoise = du.sum_to_size(noise.shape if noise.ndim == 4 else (1, 1, *noise.shape)) if needs_noise else None
    return [
        dx if needs_x else None,
        dweight,
        ds if needs_s else None,
        dd,
        None if dnoise is None else dnoise.reshape(noise.shape),
        dbias,
    ]


def _behind(
    y: Tensor | None,
    dy: Tensor,
    d: Tensor,
    noise: Tensor | None,
    bias: Tensor,
    needed: tuple[bool, ...],
    settings: Settings,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of u, bias and demodulation."""
    needs_d, needs_bias = needed[3], needed[5]
    if y is None:
        du = dy.contiguous(memory_format=torch.channels_last)
        return du, du.sum(dim=(0, 2, 3)) if needs_bias else None, None
    slope = torch.full_like(bias, settings.slope)
    du, sums, products = _kernel("epilogue_gradient")(dy, y, noise, bias, slope, settings.gain, settings.limit)
    return du, sums.sum(dim=0) if needs_bias else None, products / d if needs_d else None


def _kernel(name: str) -> Any:
    return build.kernel("cpu", name)
