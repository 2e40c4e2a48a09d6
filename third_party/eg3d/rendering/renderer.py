"""The reference renderer: coarse samples, importance samples, marching (EG3D, Sec. 3.2 and 4).

Every sample is looked up and decoded once: the coarse samples' weights place the fine samples, without gradient, and
both sets are composited with gradient. Only densities and depths are sorted; the weights found for the sorted samples
go back to where the samples stand, so the colours, by far the largest tensors, are neither sorted nor copied.

Rays are worked on in portions: they are independent but for the depth's clamp, whose limits come from all of them.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from eg3d.rendering.marching import (
    clamp_depth,
    composite,
    finish_features,
    interval_weights,
    mean_depth,
    sample_weights,
)
from eg3d.rendering.planes import PUBLISHED_AXES, mean_features, parse_axes
from eg3d.rendering.sampling import Uniforms, box_limits, fill_misses, importance_depths, stratified_depths
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Points looked up and decoded at once. On a CPU these stay in its caches, which saved a quarter of a training step's
# time; elsewhere the number bounds the memory of large renders, about 1 KB a point.
_CPU_POINTS = 2**15
_POINTS = 2**22


@dataclass
class RenderingConfig:
    """Sampling along rays; the defaults are those of the published face model.

    Attributes:
        ray_start, ray_end: limits of the depths, scene units; both None: where each ray enters and leaves the box.
        box_warp: side of the cube that the planes span, scene units.
        depth_resolution: coarse samples per ray.
        depth_resolution_importance: fine samples per ray; 0 for none.
        disparity_space_sampling: coarse samples evenly in 1 / depth; needs numbers for the limits.
        white_back: rays end on white.
        plane_axes: which two coordinates each plane sees, see `eg3d.rendering.planes`.
    """

    ray_start: float | None = 2.25
    ray_end: float | None = 3.3
    box_warp: float = 1.0
    depth_resolution: int = 48
    depth_resolution_importance: int = 48
    disparity_space_sampling: bool = False
    white_back: bool = False
    plane_axes: str = PUBLISHED_AXES

    def __post_init__(self) -> None:
        parse_axes(self.plane_axes)
        if self.box_warp <= 0:
            raise ValueError(f"rendering.box_warp is {self.box_warp}, expected > 0")
        self._check_limits()
        least = 4 if self.depth_resolution_importance else 2
        if self.depth_resolution < least:
            raise ValueError(f"rendering.depth_resolution is {self.depth_resolution}, expected at least {least}")
        if self.depth_resolution_importance < 0:
            raise ValueError(
                f"rendering.depth_resolution_importance is {self.depth_resolution_importance}, expected >= 0"
            )

    def _check_limits(self) -> None:
        start, end = self.ray_start, self.ray_end
        if (start is None) != (end is None):
            raise ValueError(f"rendering.ray_start {start} and ray_end {end}: give two numbers, or None for both")
        if start is None or end is None:
            if self.disparity_space_sampling:
                raise ValueError("rendering.disparity_space_sampling needs numbers for ray_start and ray_end, not None")
        elif not 0 < start < end:
            raise ValueError(f"rendering.ray_start {start} and ray_end {end}: expected 0 < ray_start < ray_end")


class Rays(NamedTuple):
    """What was found along each ray: `features` (B, M, C), `depth` (B, M, 1), `weight_sum` (B, M, 1)."""

    features: Tensor
    depth: Tensor
    weight_sum: Tensor


class Decode(Protocol):
    """Plane features (B, K, C) -> colours (B, K, D) in [0, 1] and raw densities (B, K, 1)."""

    def __call__(self, features: Tensor) -> tuple[Tensor, Tensor]: ...


class Renderer(nn.Module):
    """Planes and rays -> features, depth and weight sum of each ray; owns no parameters and no buffers.

    Args:
        config: sampling along rays.
        points_at_once: size of the portions, in points; it changes speed and memory, not the result. None takes what
            suits the device.
    """

    def __init__(self, config: RenderingConfig, *, points_at_once: int | None = None, recompute: bool = False) -> None:
        """`recompute` evaluates samples again in the backward pass instead of keeping them: less memory, more time."""
        super().__init__()
        self.config = config
        self.points_at_once = points_at_once
        self.recompute = recompute

    def forward(
        self, planes: Tensor, decoder: Decode, ray_origins: Tensor, ray_directions: Tensor, uniforms: Uniforms
    ) -> Rays:
        """Render all rays.

        Args:
            planes: (B, 3, C, H, W).
            ray_origins, ray_directions: (B, M, 3); directions of length 1.
            uniforms: where the samples lie, for the config's numbers of samples.
        Returns: features (B, M, D), 2 F - 1 of the composited colours; depth (B, M, 1), clamped to the range of all
            depths of the batch; weight_sum (B, M, 1) in [0, 1].
        """
        self._check(ray_origins, uniforms)
        depths = self._coarse_depths(ray_origins, ray_directions, uniforms.coarse)
        fine = uniforms.fine.reshape(*depths.shape[:2], -1)
        items, num_rays = self._portion(planes.device, depths)
        groups = zip(*(x.split(items) for x in (planes, ray_origins, ray_directions, depths, fine)), strict=True)
        found = [self._march_rays(group[0], decoder, group[1:], num_rays) for group in groups]
        features, depth, total, limits = (torch.cat(x) for x in zip(*found, strict=True))
        return Rays(finish_features(features, total, self.config.white_back), clamp_depth(depth, limits), total)

    def sample(self, planes: Tensor, decoder: Decode, points: Tensor) -> tuple[Tensor, Tensor]:
        """Colours (B, K, D) and raw densities (B, K, 1) at points (B, K, 3), scene units."""
        features = mean_features(planes, points, axes=self.config.plane_axes, box_warp=self.config.box_warp)
        return decoder(features)

    def _march_rays(self, planes: Tensor, decoder: Decode, per_ray: tuple[Tensor, ...], num_rays: int) -> list[Tensor]:
        """`_march` for some batch items, in portions of `num_rays` rays."""
        portions = zip(*(x.split(num_rays, dim=1) for x in per_ray), strict=True)
        if self.recompute and torch.is_grad_enabled():
            found = [checkpoint(self._march, planes, decoder, *portion, use_reentrant=False) for portion in portions]
        else:
            found = [self._march(planes, decoder, *portion) for portion in portions]
        return [torch.cat(x, dim=1) for x in zip(*found, strict=True)]

    def _march(
        self,
        planes: Tensor,
        decoder: Decode,
        ray_origins: Tensor,
        ray_directions: Tensor,
        depths: Tensor,
        fine_uniforms: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Composited colours (B, M, D), mean depth, weight sum (B, M, 1), smallest and largest depth (B, M, 2)."""
        colors, densities = self._evaluate(planes, decoder, ray_origins, ray_directions, depths)
        if not self.config.depth_resolution_importance:
            weights = interval_weights(densities, depths)
            return composite(colors, sample_weights(weights)), *_summary(weights, depths)
        with torch.no_grad():
            coarse_weights = interval_weights(densities, depths)
            fine_depths = importance_depths(depths, coarse_weights, fine_uniforms.flatten(0, 1))
        fine_colors, fine_densities = self._evaluate(planes, decoder, ray_origins, ray_directions, fine_depths)

        merged, order = merge_depths(depths, fine_depths)
        weights = interval_weights(torch.cat([densities, fine_densities], dim=2).gather(2, order), merged)
        shares = unsort(sample_weights(weights), order)
        coarse, fine = shares.split([depths.shape[2], fine_depths.shape[2]], dim=2)
        return composite(colors, coarse) + composite(fine_colors, fine), *_summary(weights, merged)

    def _evaluate(
        self, planes: Tensor, decoder: Decode, ray_origins: Tensor, ray_directions: Tensor, depths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Colours (B, M, S, D) and raw densities (B, M, S, 1) at depths (B, M, S, 1)."""
        points = ray_origins.unsqueeze(2) + depths * ray_directions.unsqueeze(2)
        colors, densities = self.sample(planes, decoder, points.flatten(1, 2))
        return colors.view(*depths.shape[:3], -1), densities.view(depths.shape)

    def _coarse_depths(self, ray_origins: Tensor, ray_directions: Tensor, uniforms: Tensor) -> Tensor:
        cfg = self.config
        if cfg.ray_start is None or cfg.ray_end is None:
            near, far = fill_misses(*box_limits(ray_origins, ray_directions, cfg.box_warp))
            return stratified_depths(near, far, uniforms)
        return stratified_depths(cfg.ray_start, cfg.ray_end, uniforms, disparity=cfg.disparity_space_sampling)

    def _portion(self, device: torch.device, depths: Tensor) -> tuple[int, int]:
        """Batch items, and rays of each, that are worked on at once."""
        points = self.points_at_once or (_CPU_POINTS if device.type == "cpu" else _POINTS)
        _, num_rays, num_samples, _ = depths.shape
        per_ray = max(num_samples, self.config.depth_resolution_importance)
        return max(1, points // (num_rays * per_ray)), max(1, points // per_ray)

    def _check(self, ray_origins: Tensor, uniforms: Uniforms) -> None:
        batch, num_rays, _ = ray_origins.shape
        coarse = (batch, num_rays, self.config.depth_resolution, 1)
        fine = (batch * num_rays, self.config.depth_resolution_importance)
        if tuple(uniforms.coarse.shape) != coarse or (fine[1] and tuple(uniforms.fine.shape) != fine):
            raise ValueError(
                f"uniforms have shapes {tuple(uniforms.coarse.shape)} and {tuple(uniforms.fine.shape)}, "
                f"expected {coarse} and {fine} from depth_resolution and depth_resolution_importance"
            )


def _summary(weights: Tensor, depths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean depth, weight sum, and range of the depths of each ray."""
    limits = torch.cat(torch.aminmax(depths.detach(), dim=2), dim=2)
    return mean_depth(weights, depths), weights.sum(dim=2), limits


def merge_depths(coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
    """Depths of both sets (B, M, K, 1), ascending, and the order (B, M, K, 1) that sorts coarse followed by fine."""
    return torch.sort(torch.cat([coarse, fine], dim=2), dim=2, stable=True)


def unsort(values: Tensor, order: Tensor) -> Tensor:
    """Undo `x.gather(2, order)`: put the value of each sorted sample back to where the sample stood."""
    return torch.empty_like(values).scatter(2, order, values)
