"""The reference: plain PyTorch, by tensors of all samples (EG3D, Sec. 3.2 and 4). It defines what `fused.py` computes.

Every sample is looked up and decoded once: the coarse samples' weights place the fine samples, without gradient, and
both sets are composited with gradient. Only densities and depths are sorted; the weights found for the sorted samples
go back to where the samples stand, so the colours, by far the largest tensors, are neither sorted nor copied.

Rays are worked on in portions, which bound the memory; rays are independent, so portions do not change the result.
"""

from typing import Protocol

import torch
from eg3d.rendering.marching import Marched, Settings, composite, interval_weights, mean_depth, sample_weights
from eg3d.rendering.planes import mean_features
from eg3d.rendering.sampling import importance_depths
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Points looked up and decoded at once. On a CPU these stay in its caches, which saved a quarter of a training step's
# time; elsewhere the number bounds the memory of large renders, about 1 KB a point.
_CPU_POINTS = 2**15
_POINTS = 2**22


class Decode(Protocol):
    """Plane features (B, K, C) -> colours (B, K, D) in [0, 1] and raw densities (B, K, 1)."""

    def __call__(self, features: Tensor) -> tuple[Tensor, Tensor]: ...


def march_rays(
    planes: Tensor,
    decoder: Decode,
    ray_origins: Tensor,
    ray_directions: Tensor,
    depths: Tensor,
    fine: Tensor,
    settings: Settings,
    *,
    points_at_once: int | None = None,
    recompute: bool = False,
) -> Marched:
    """Look up, decode and composite the samples of all rays.

    Args:
        planes: (B, 3, C, H, W).
        ray_origins, ray_directions: (B, M, 3).
        depths: (B, M, S, 1), coarse.
        fine: (B, M, S2) uniforms of importance samples, or their depths.
        points_at_once: size of the portions; None takes what suits the device.
        recompute: evaluate samples again in the backward pass instead of keeping them: less memory, more time.
    """
    points = points_at_once or (_CPU_POINTS if planes.device.type == "cpu" else _POINTS)
    per_ray = max(depths.shape[2], fine.shape[2])
    items, rays = max(1, points // (depths.shape[1] * per_ray)), max(1, points // per_ray)
    found = []
    for group in zip(*(x.split(items) for x in (planes, ray_origins, ray_directions, depths, fine)), strict=True):
        portions = list(zip(*(x.split(rays, dim=1) for x in group[1:]), strict=True))
        if recompute and torch.is_grad_enabled():
            done = [checkpoint(_march, group[0], decoder, *p, settings=settings, use_reentrant=False) for p in portions]
        else:
            done = [_march(group[0], decoder, *portion, settings=settings) for portion in portions]
        found.append([torch.cat(x, dim=1) for x in zip(*done, strict=True)])
    return Marched(*(torch.cat(x) for x in zip(*found, strict=True)))


def _march(
    planes: Tensor,
    decoder: Decode,
    ray_origins: Tensor,
    ray_directions: Tensor,
    depths: Tensor,
    fine: Tensor,
    *,
    settings: Settings,
) -> Marched:
    """`march_rays` in one piece."""
    colors, densities = _evaluate(planes, decoder, ray_origins, ray_directions, depths, settings)
    if not fine.shape[2]:
        weights = interval_weights(densities, depths)
        return _sums(weights, depths, composite(colors, sample_weights(weights)), settings)
    fine = fine.unsqueeze(3) if settings.fine_is_depth else _importance(depths, densities, fine)
    fine_colors, fine_densities = _evaluate(planes, decoder, ray_origins, ray_directions, fine, settings)
    merged, order = merge_depths(depths, fine)
    weights = interval_weights(torch.cat([densities, fine_densities], dim=2).gather(2, order), merged)
    coarse_shares, fine_shares = unsort(sample_weights(weights), order).split([depths.shape[2], fine.shape[2]], dim=2)
    return _sums(weights, merged, composite(colors, coarse_shares) + composite(fine_colors, fine_shares), settings)


@torch.no_grad()
def _importance(depths: Tensor, densities: Tensor, uniforms: Tensor) -> Tensor:
    """Fine depths (B, M, S2, 1) from uniforms (B, M, S2) and the weights of the coarse samples."""
    return importance_depths(depths, interval_weights(densities, depths), uniforms.flatten(0, 1))


def _evaluate(
    planes: Tensor, decoder: Decode, ray_origins: Tensor, ray_directions: Tensor, depths: Tensor, settings: Settings
) -> tuple[Tensor, Tensor]:
    """Colours (B, M, S, D) and raw densities (B, M, S, 1) at depths (B, M, S, 1)."""
    points = (ray_origins.unsqueeze(2) + depths * ray_directions.unsqueeze(2)).flatten(1, 2)
    colors, densities = decoder(mean_features(planes, points, axes=settings.axes, box_warp=settings.box_warp))
    return colors.view(*depths.shape[:3], -1), densities.view(depths.shape)


def _sums(weights: Tensor, depths: Tensor, features: Tensor, settings: Settings) -> Marched:
    limits = torch.cat(torch.aminmax(depths.detach(), dim=2), dim=2)
    features = features if settings.with_features else features[:, :, :0]
    return Marched(features, mean_depth(weights, depths), weights.sum(dim=2), limits)


def merge_depths(coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
    """Depths of both sets (B, M, K, 1), ascending, and the order (B, M, K, 1) that sorts coarse followed by fine."""
    return torch.sort(torch.cat([coarse, fine], dim=2), dim=2, stable=True)


def unsort(values: Tensor, order: Tensor) -> Tensor:
    """Undo `x.gather(2, order)`: put the value of each sorted sample back to where the sample stood."""
    return torch.empty_like(values).scatter(2, order, values)
