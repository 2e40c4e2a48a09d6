"""Convolution with up- or downsampling, and the modulated convolution of the synthesis layers.

The definition is one sum over zero-padded samples: all padding is applied at the start, then the image is upsampled
(FIR), convolved without padding, and downsampled (FIR). Since these steps commute, each case below takes the cheapest
order. The convolutions are PyTorch's own; only the FIR steps have kernels.
"""

import math

import torch
from eg3d.ops import build
from eg3d.ops.pixel_product import modulated_pixels
from eg3d.ops.upfirdn2d import Padding, filter_size, four_pads, upfirdn2d
from torch import Tensor
from torch.nn import functional as F


def conv2d_resample(
    x: Tensor,
    w: Tensor,
    f: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    groups: int = 1,
    flip_weight: bool = True,
    impl: str = "auto",
) -> Tensor:
    """Convolve with optional FIR upsampling before and FIR downsampling after.

    Args:
        x: (B, I, H, W).
        w: (O, I / groups, k_y, k_x), dtype of x.
        f: FIR filter of `setup_filter` for the resampling; None changes nothing.
        padding: of the upsampled image, for the convolution; that for the filter is added here;
            int, (x, y) or (x0, x1, y0, y1).
        flip_weight: True correlates, as `torch.nn.functional.conv2d` does; False convolves.
        impl: of the FIR steps, see `eg3d.ops.build.resolve`.
    Returns: (B, O, H', W'), (H * up / down, W * up / down) when padding is k // 2 and sizes divide.
    """
    pads = _resample_pads(four_pads(padding), filter_size(f), up, down)
    if up > 1:
        x = _upsampling_conv2d(x, w, f, up, pads, groups, flip_weight, impl)
        return upfirdn2d(x, f, down=down, impl=impl) if down > 1 else x
    if down > 1 and w.shape[2:] == (1, 1):
        x = upfirdn2d(x, f, down=down, padding=pads, impl=impl)
        return _conv2d(x, w, groups=groups, flip_weight=flip_weight)
    if down > 1:
        x = upfirdn2d(x, f, padding=pads, impl=impl)
    elif pads[0] == pads[1] >= 0 and pads[2] == pads[3] >= 0:
        return _conv2d(x, w, padding=(pads[2], pads[0]), groups=groups, flip_weight=flip_weight)
    else:
        x = F.pad(x, pads)
    return _conv2d(x, w, stride=down, groups=groups, flip_weight=flip_weight)


def _resample_pads(
    pads: tuple[int, int, int, int], taps: tuple[int, int], up: int, down: int
) -> tuple[int, int, int, int]:
    """The padding of the convolution plus what keeps the filters centred."""
    x0, x1, y0, y1 = pads
    tx, ty = taps
    if up > 1:
        x0, x1 = x0 + (tx + up - 1) // 2, x1 + (tx - up) // 2
        y0, y1 = y0 + (ty + up - 1) // 2, y1 + (ty - up) // 2
    if down > 1:
        x0, x1 = x0 + (tx - down + 1) // 2, x1 + (tx - down) // 2
        y0, y1 = y0 + (ty - down + 1) // 2, y1 + (ty - down) // 2
    return x0, x1, y0, y1


def _conv2d(
    x: Tensor, w: Tensor, *, stride: int = 1, padding: tuple[int, int] = (0, 0), groups: int, flip_weight: bool
) -> Tensor:
    return F.conv2d(x, w if flip_weight else w.flip([2, 3]), stride=stride, padding=padding, groups=groups)


def _upsampling_conv2d(
    x: Tensor,
    w: Tensor,
    f: Tensor | None,
    up: int,
    pads: tuple[int, int, int, int],
    groups: int,
    flip_weight: bool,
    impl: str,
) -> Tensor:
    """Convolve the zero-inserted image, by a transposed convolution, then filter.

    The transposed convolution scatters w as it is stored, which is a convolution. Its output has the k - 1 samples
    on each side that padding by k - 1 gives, and lacks the up - 1 zeros after the last sample.
    """
    num_out, num_in, ky, kx = w.shape
    if min(pads) < 0:  # cropping comes before everything
        x = upfirdn2d(x, f, up=up, padding=pads, gain=up**2, impl=impl)
        return _conv2d(x, w, groups=groups, flip_weight=flip_weight)
    if (ky, kx) == (1, 1):
        x = _conv2d(x, w, groups=groups, flip_weight=flip_weight)
        return upfirdn2d(x, f, up=up, padding=pads, gain=up**2, impl=impl)
    w = w.flip([2, 3]) if flip_weight else w
    w = w.reshape(groups, num_out // groups, num_in, ky, kx).transpose(1, 2)
    x = F.conv_transpose2d(x, w.reshape(groups * num_in, num_out // groups, ky, kx), stride=up, groups=groups)
    x0, x1, y0, y1 = pads
    pads = (x0 - (kx - 1), x1 - (kx - 1) + up - 1, y0 - (ky - 1), y1 - (ky - 1) + up - 1)
    return upfirdn2d(x, f, padding=pads, gain=up**2, impl=impl)


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    noise: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    resample_filter: Tensor | None = None,
    demodulate: bool = True,
    flip_weight: bool = True,
    fused: bool = True,
    impl: str = "auto",
) -> Tensor:
    """Convolve sample n with W s[n] d[n], where d[n, o] = (sum_i,a,b (W[o, i, a, b] s[n, i])^2 + 1e-8)^(-1/2).

    Half-precision input makes W and s unit size before d is computed, so that nothing overflows; it only changes what
    the 1e-8 is relative to. W s d is computed in the dtype of the weight and cast to that of x.

    Args:
        x: (B, I, H, W).
        weight: (O, I, k, k).
        styles: (B, I).
        noise: added to the result, broadcastable to it, e.g. (B, 1, H', W'); None adds nothing.
        resample_filter: FIR filter for up or down.
        demodulate: False drops d.
        fused: scale the weights and convolve in groups of one sample; otherwise scale the image before and after the
            convolution. They agree to rounding.
        up, down, padding, flip_weight, impl: as in `conv2d_resample`.
    Returns: (B, O, H', W'), dtype of x.
    Raises: ValueError if the shapes disagree.
    """
    if styles.shape != x.shape[:2] or weight.ndim != 4 or weight.shape[1] != x.shape[1]:
        raise ValueError(
            f"x {tuple(x.shape)}, weight {tuple(weight.shape)} and styles {tuple(styles.shape)} disagree, "
            "expected (B, I, H, W), (O, I, k, k) and (B, I)"
        )
    if x.dtype == torch.float16 and demodulate:
        weight, styles = _normalized(weight, styles)
    d = demodulation(weight, styles) if demodulate else None
    if (up, down, padding, weight.shape[2:]) == (1, 1, 0, (1, 1)) and _pixels_are_together(x, impl):
        y = modulated_pixels(x, _scaled(weight, styles, d)[:, :, :, 0, 0].to(x.dtype))
        return y if noise is None else y + noise.to(y.dtype)
    convolve = _fused if fused else _unfused
    y = convolve(x, weight, styles, d, resample_filter, up, down, padding, flip_weight, impl)
    return y if noise is None else y + noise.to(y.dtype)


def _normalized(weight: Tensor, styles: Tensor) -> tuple[Tensor, Tensor]:
    largest = weight.abs().amax(dim=(1, 2, 3), keepdim=True)
    return weight / (math.sqrt(weight[0].numel()) * largest), styles / styles.abs().amax(dim=1, keepdim=True)


def _pixels_are_together(x: Tensor, impl: str) -> bool:
    """On a CPU; cuDNN takes images as they are."""
    together = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return together and build.resolve(impl, x.device) == "cpu"


def _scaled(weight: Tensor, styles: Tensor, d: Tensor | None) -> Tensor:
    """W s d, (B, O, I, k, k)."""
    w = weight * styles[:, None, :, None, None]
    return w if d is None else w * d[:, :, None, None, None]


def demodulation(weight: Tensor, styles: Tensor) -> Tensor:
    """(B, O), by a product of squares, which does not hold the B x O x I x k x k weights."""
    return (styles.square() @ weight.square().sum(dim=(2, 3)).t() + 1e-8).rsqrt()


def _fused(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    d: Tensor | None,
    f: Tensor | None,
    up: int,
    down: int,
    padding: Padding,
    flip_weight: bool,
    impl: str,
) -> Tensor:
    num = x.shape[0]
    w = _scaled(weight, styles, d)
    x = x.reshape(1, -1, *x.shape[2:])
    w = w.flatten(0, 1).to(x.dtype)
    y = conv2d_resample(x, w, f, up, down, padding, groups=num, flip_weight=flip_weight, impl=impl)
    return y.reshape(num, -1, *y.shape[2:])


def _unfused(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    d: Tensor | None,
    f: Tensor | None,
    up: int,
    down: int,
    padding: Padding,
    flip_weight: bool,
    impl: str,
) -> Tensor:
    x = x * styles.to(x.dtype)[:, :, None, None]
    y = conv2d_resample(x, weight.to(x.dtype), f, up, down, padding, flip_weight=flip_weight, impl=impl)
    return y if d is None else y * d.to(y.dtype)[:, :, None, None]
