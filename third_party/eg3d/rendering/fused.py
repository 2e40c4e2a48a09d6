"""The renderer as one operator: the maths of `reference.py`, ray by ray, in the kernels of `eg3d.ops`.

A ray's samples are looked up, decoded and composited before the next ray begins, so nothing is stored per sample and
channel; the backward pass finds the samples again. Gradients are of first order.
"""

from typing import Any

import torch
from eg3d.nn.decoder import Decoder
from eg3d.ops import build
from eg3d.rendering.marching import Marched, Settings
from eg3d.rendering.planes import HALF, parse_axes
from torch import Tensor
from torch.nn.functional import pad

# Planes that the kernels take, by device.
DTYPES = {"cpu": (torch.float32,), "cuda": (torch.float32, torch.float16, torch.bfloat16)}
_WIDTH = 32  # channels are filled up to whole vectors; on CUDA a single one, of channels and of colours


def serves(planes: Tensor, decoder: object) -> bool:
    """Whether there is a kernel for planes (B, 3, C, H, W) of this type and device, and for this decoder."""
    if type(decoder) is not Decoder or planes.dtype not in DTYPES.get(planes.device.type, ()):
        return False
    return planes.device.type == "cpu" or max(planes.shape[2], decoder.out_channels) <= _WIDTH


def march_rays(
    planes: Tensor,
    decoder: Decoder,
    ray_origins: Tensor,
    ray_directions: Tensor,
    depths: Tensor,
    fine: Tensor,
    settings: Settings,
    *,
    backend: str,
) -> Marched:
    """Look up, decode and composite the samples of all rays.

    Args:
        planes: (B, 3, C, H, W), such that `serves` holds.
        ray_origins, ray_directions: (B, M, 3).
        depths: (B, M, S, 1), coarse; without gradient.
        fine: (B, M, S2) uniforms of importance samples, or their depths.
        backend: "cpu" or "cuda", as `eg3d.ops.build.resolve` gives it.
    Returns: differentiable once in planes, decoder, origins and directions; a second time raises RuntimeError.
    Raises: ValueError if planes and decoder have different channels.
    """
    w1, b1, w2, b2 = decoder.weights()
    if w1.shape[1] != planes.shape[2]:
        raise ValueError(f"planes have {planes.shape[2]} channels, but the decoder takes {w1.shape[1]}")
    rays = (ray_origins, ray_directions, depths.squeeze(3), fine)
    numbers = [x.float().contiguous() for x in (*rays, pad(w1, (0, _filled(w1.shape[1]) - w1.shape[1])), b1, w2, b2)]
    return Marched(*_Render.apply(planes, *numbers, settings, backend))


def _filled(channels: int) -> int:
    """Channels that the kernels see."""
    return -(-channels // _WIDTH) * _WIDTH


def _interleave(planes: Tensor, backend: str) -> Tensor:
    """(B, 3, C, H, W) -> (B, 3, H, W, filled channels): what a point needs lies together."""
    last, width = planes.permute(0, 1, 3, 4, 2), _filled(planes.shape[2])
    if width == planes.shape[2] and last.is_contiguous():
        return last
    if backend == "cpu":
        return build.kernel(backend, "interleave")(planes.contiguous(), width)
    return pad(last, (0, width - planes.shape[2])).contiguous()


def _separate(planes: Tensor, channels: int, backend: str) -> Tensor:
    """(B, 3, H, W, filled channels) -> (B, 3, C, H, W)."""
    if backend == "cpu":
        return build.kernel(backend, "separate")(planes, channels)
    return planes[..., :channels].permute(0, 1, 4, 2, 3)


def _arguments(settings: Settings) -> tuple[list[int], float, bool]:
    """In the kernels' order: the axes of the three planes, from scene units to [-1, 1], the kind of fine numbers."""
    return [axis for pair in parse_axes(settings.axes) for axis in pair], 2 / settings.box_warp, settings.fine_is_depth


class _Render(torch.autograd.Function):
    """Planes (B, 3, C, H, W), origins, directions, coarse, fine, w1, b1, w2, b2 -> the members of `Marched`."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        planes, *numbers, settings, backend = arguments
        texels = _interleave(planes.to(HALF) if settings.half_planes else planes, backend)
        ctx.save_for_backward(texels, planes, *numbers)  # texels: made once for both passes
        ctx.settings, ctx.backend = settings, backend
        ctx.set_materialize_grads(False)
        render = build.kernel(backend, "render")
        results = render(texels, *numbers, *_arguments(settings), settings.with_features)
        ctx.mark_non_differentiable(results[3])
        return results

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        found = _Gradient.apply(ctx.settings, ctx.backend, ctx.needs_input_grad[:9], *gradients[:3], *ctx.saved_tensors)
        planes, origins, directions, *decoder = found
        return planes, origins, directions, None, None, *decoder, None, None


class _Gradient(torch.autograd.Function):
    """Gradients of a render in its planes, origins, directions, w1, b1, w2, b2; None for those not needed."""

    @staticmethod
    def forward(
        ctx: Any, settings: Settings, backend: str, needs: tuple[bool, ...], *tensors: Any
    ) -> tuple[Tensor | None, ...]:
        d_features, d_depth, d_total, texels, planes, *numbers = tensors
        coarse = numbers[2]
        d_depth, d_total = (
            coarse.new_zeros(*coarse.shape[:2], 1) if d is None else d.contiguous() for d in (d_depth, d_total)
        )
        d_features = d_features.contiguous() if d_features is not None and settings.with_features else None
        of = needs[0], any(needs[1:3]), any(needs[5:])
        backward = build.kernel(backend, "render_backward")
        d_planes, *found = backward(texels, *numbers, *_arguments(settings), d_features, d_depth, d_total, *of)
        if of[0]:
            d_planes = _separate(d_planes, planes.shape[2], backend).to(planes.dtype)
        wanted = (needs[0], *needs[1:3], *needs[5:])
        return tuple(g if want else None for g, want in zip((d_planes, *found), wanted, strict=True))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> None:
        raise RuntimeError(
            "The fused renderer has first derivatives only. Build the generator (or Renderer) with impl='ref' to "
            "differentiate a render twice."
        )
