"""FIR resampling: zero-insertion, padding, filtering and decimation of images.

Per axis, with T taps, factors `up` and `down` and padding (p0, p1), a length L becomes
floor((L * up + p0 + p1 - T) / down) + 1. Everything here is differentiable twice. The plain torch definition,
`_reference`, says what the kernels compute.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from eg3d.ops import build
from torch import Tensor
from torch.nn import functional as F

# One number for both axes, or (x, y); paddings also (x before, x after, y before, y after).
Factor = int | Sequence[int]
Padding = int | Sequence[int]


def setup_filter(
    f: Any,
    device: torch.device | str | None = None,
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1,
    separable: bool | None = None,
) -> Tensor:
    """A float32 filter for `upfirdn2d` from a list of taps.

    Args:
        f: taps, (T,) or (T_y, T_x), as numbers or tensor; a number; None is the filter that changes nothing.
        normalize: divide by the sum.
        flip_filter: turn the filter around in each axis.
        gain: factor of the whole, in two dimensions.
        separable: keep (T,) as one filter for each axis; otherwise it becomes its outer product. None: from 8 taps on.
    Returns: (T_y, T_x), or (T,) where separable.
    Raises: ValueError if f has more than two axes, or no taps.
    """
    f = torch.as_tensor(1 if f is None else f, dtype=torch.float32)
    if f.ndim > 2 or f.numel() == 0:
        raise ValueError(f"f has shape {tuple(f.shape)}, expected (), (T,) or (T_y, T_x)")
    if f.ndim == 0:
        f = f[None]
    if separable is None:
        separable = f.ndim == 1 and f.numel() >= 8
    if f.ndim == 1 and not separable:
        f = f.outer(f)
    if normalize:
        f = f / f.sum()
    if flip_filter:
        f = f.flip(list(range(f.ndim)))
    return (f * gain ** (f.ndim / 2)).to(device=device)


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: Factor = 1,
    down: Factor = 1,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "auto",
) -> Tensor:
    """Insert zeros, pad with zeros, filter, keep every `down`-th sample; each channel by itself.

    Args:
        x: (B, C, H, W), floating point.
        f: (T_y, T_x), or (T,) for a separable one; float32; None changes nothing. Constant: it receives no gradient.
        up: sample m goes to index m * up, and up - 1 zeros follow the last one; int or (x, y).
        down: keep indices 0, down, 2 down, ...; int or (x, y).
        padding: around the result of zero-insertion; negative ones crop; int, (x, y) or (x0, x1, y0, y1).
        flip_filter: correlate; the default convolves.
        gain: factor of the result.
        impl: see `eg3d.ops.build.resolve`.
    Returns: (B, C, H', W'), dtype of x.
    Raises: ValueError if arguments do not fit each other, or nothing is left of the image.
    """
    f = _checked_filter(x, f)
    up_xy, down_xy, pads = _pair(up, "up"), _pair(down, "down"), four_pads(padding)
    _check_size(x, f, up_xy, pads)
    backend = build.resolve(impl, x.device, "upfirdn2d")
    if backend == "ref":
        return _reference(x, f, up_xy, down_xy, pads, flip_filter, gain)
    return _by_kernel(backend, x, f, up_xy, down_xy, pads, flip_filter, gain)


def filter2d(
    x: Tensor, f: Tensor | None, padding: Padding = 0, flip_filter: bool = False, gain: float = 1, impl: str = "auto"
) -> Tensor:
    """Filter with the output the size of the input, plus `padding`; zeros outside the image."""
    (tx, ty), p = filter_size(f), four_pads(padding)
    pads = [p[0] + tx // 2, p[1] + (tx - 1) // 2, p[2] + ty // 2, p[3] + (ty - 1) // 2]
    return upfirdn2d(x, f, padding=pads, flip_filter=flip_filter, gain=gain, impl=impl)


def upsample2d(
    x: Tensor,
    f: Tensor | None,
    up: Factor = 2,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "auto",
) -> Tensor:
    """Upsample to H * up, W * up, plus `padding`, keeping the mean; zeros outside the image."""
    (ux, uy), (tx, ty), p = _pair(up, "up"), filter_size(f), four_pads(padding)
    pads = [p[0] + (tx + ux - 1) // 2, p[1] + (tx - ux) // 2, p[2] + (ty + uy - 1) // 2, p[3] + (ty - uy) // 2]
    return upfirdn2d(x, f, up=(ux, uy), padding=pads, flip_filter=flip_filter, gain=gain * ux * uy, impl=impl)


def downsample2d(
    x: Tensor,
    f: Tensor | None,
    down: Factor = 2,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "auto",
) -> Tensor:
    """Downsample to H / down, W / down, the input counted with `padding`; zeros outside the image."""
    (dx, dy), (tx, ty), p = _pair(down, "down"), filter_size(f), four_pads(padding)
    pads = [p[0] + (tx - dx + 1) // 2, p[1] + (tx - dx) // 2, p[2] + (ty - dy + 1) // 2, p[3] + (ty - dy) // 2]
    return upfirdn2d(x, f, down=(dx, dy), padding=pads, flip_filter=flip_filter, gain=gain, impl=impl)


def filter_size(f: Tensor | None) -> tuple[int, int]:
    """Number of taps along x and y; (1, 1) for None."""
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def _reference(
    x: Tensor,
    f: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    pads: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
) -> Tensor:
    num, channels, height, width = x.shape
    (ux, uy), (dx, dy) = up, down
    x = x.reshape(num, channels, height, 1, width, 1)
    x = F.pad(x, [0, ux - 1, 0, 0, 0, uy - 1]).reshape(num, channels, height * uy, width * ux)
    x = F.pad(x, pads)
    f = f.to(torch.promote_types(f.dtype, x.dtype)) * gain ** (f.ndim / 2)
    f = (f if flip_filter else f.flip(list(range(f.ndim)))).to(x.dtype)
    if f.ndim == 2:
        return F.conv2d(x, f.expand(channels, 1, *f.shape), stride=(dy, dx), groups=channels)
    x = F.conv2d(x, f[None, :].expand(channels, 1, 1, -1), stride=(1, dx), groups=channels)
    return F.conv2d(x, f[:, None].expand(channels, 1, -1, 1), stride=(dy, 1), groups=channels)


def _by_kernel(
    backend: str,
    x: Tensor,
    f: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    pads: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
) -> Tensor:
    if f.ndim == 1:  # along x, then along y
        x = _by_kernel(backend, x, f[None, :], (up[0], 1), (down[0], 1), (*pads[:2], 0, 0), flip_filter, gain**0.5)
        return _by_kernel(backend, x, f[:, None], (1, up[1]), (1, down[1]), (0, 0, *pads[2:]), flip_filter, gain**0.5)
    width = (x.shape[3] * up[0] + pads[0] + pads[1] - f.shape[1]) // down[0] + 1
    height = (x.shape[2] * up[1] + pads[2] + pads[3] - f.shape[0]) // down[1] + 1
    settings = _Settings(backend, up, down, (pads[0], pads[2]), (width, height), flip_filter, float(gain))
    return _Resampling.apply(x, f.float(), settings)


class _Settings(NamedTuple):
    """What the kernel is told besides its tensors; pairs are (x, y)."""

    backend: str
    up: tuple[int, int]
    down: tuple[int, int]
    pad: tuple[int, int]  # before the image; what follows it is given by the size
    size: tuple[int, int]  # of the output
    flip: bool
    gain: float

    def transposed(self, x: Tensor, f: Tensor) -> "_Settings":
        """The adjoint operator, from gradients of the output to those of x: factors and filter turn around.

        Output o meets sample m at tap k when o * down - pad + k = m * up; seen from m, with the taps turned around,
        m * up - (T - 1 - pad) + (T - 1 - k) = o * down.
        """
        pad = (f.shape[1] - 1 - self.pad[0], f.shape[0] - 1 - self.pad[1])
        return _Settings(self.backend, self.down, self.up, pad, (x.shape[3], x.shape[2]), not self.flip, self.gain)


class _Resampling(torch.autograd.Function):
    """A linear operator, so that its gradient is one of the same kind."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Tensor, settings: _Settings) -> Tensor:
        ctx.save_for_backward(f)
        ctx.settings = settings.transposed(x, f)
        return build.kernel(settings.backend, "upfirdn2d")(x, f, *settings[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Resampling.apply(grad, ctx.saved_tensors[0], ctx.settings), None, None


def _checked_filter(x: Tensor, f: Tensor | None) -> Tensor:
    if x.ndim != 4:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (B, C, H, W)")
    if f is None:
        return torch.ones(1, 1, dtype=torch.float32, device=x.device)
    if f.ndim not in (1, 2) or f.numel() == 0 or f.requires_grad:
        raise ValueError(f"f has shape {tuple(f.shape)}, expected a constant filter of (T_y, T_x) or (T,)")
    return f


def _check_size(x: Tensor, f: Tensor, up: tuple[int, int], pads: tuple[int, int, int, int]) -> None:
    taps = filter_size(f)
    width = x.shape[3] * up[0] + pads[0] + pads[1]
    height = x.shape[2] * up[1] + pads[2] + pads[3]
    if width < taps[0] or height < taps[1]:
        raise ValueError(f"the padded image is {width} x {height}, smaller than the filter, {taps[0]} x {taps[1]}")


def _pair(factor: Factor, name: str) -> tuple[int, int]:
    x, y = (factor, factor) if isinstance(factor, int) else factor
    if x < 1 or y < 1:
        raise ValueError(f"{name} is {factor}, expected one or two whole numbers >= 1")
    return x, y


def four_pads(padding: Padding) -> tuple[int, int, int, int]:
    if isinstance(padding, int):
        return padding, padding, padding, padding
    if len(padding) == 2:
        return padding[0], padding[0], padding[1], padding[1]
    if len(padding) != 4:
        raise ValueError(f"padding is {padding}, expected 1, 2 or 4 whole numbers")
    return padding[0], padding[1], padding[2], padding[3]
