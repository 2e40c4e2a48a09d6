"""Where along a ray the scene is evaluated: stratified coarse depths, then importance samples (EG3D, Sec. 3.2; NeRF).

Every random number is an input, `Uniforms`, so that a render is deterministic unless its caller draws. Where the
published code is odd it is followed, since its networks were trained so: coarse samples start on a grid that includes
the far end and are jittered forward, hence the last may lie one step beyond it; importance bins are shifted by half a
step (see `importance_depths`); rays that miss the box end at the largest *near* limit.
"""

from typing import NamedTuple

import torch
from eg3d.transfer import send
from torch import Tensor
from torch.nn.functional import avg_pool1d, max_pool1d


class Uniforms(NamedTuple):
    """Numbers in [0, 1) that place the samples.

    `coarse` (B, M, S, 1) are offsets in the bins of stratified samples, `fine` (B * M, S2) enter the inverse CDF.
    """

    coarse: Tensor
    fine: Tensor


def half_uniforms(
    batch: int, num_rays: int, num_coarse: int, num_fine: int, *, device: torch.device | str | None = None
) -> Uniforms:
    """All numbers 0.5; the fine samples of a ray then fall on one depth."""
    return Uniforms(
        torch.full((batch, num_rays, num_coarse, 1), 0.5, device=device),
        torch.full((batch * num_rays, num_fine), 0.5, device=device),
    )


def midpoint_uniforms(
    batch: int, num_rays: int, num_coarse: int, num_fine: int, *, device: torch.device | str | None = None
) -> Uniforms:
    """Coarse offsets 0.5, fine numbers (i + 0.5) / S2 on each ray: the deterministic render."""
    fine = (torch.arange(num_fine, dtype=torch.float32, device=device) + 0.5) / max(num_fine, 1)
    coarse = torch.full((1, 1, 1, 1), 0.5, device=device).expand(batch, num_rays, num_coarse, 1)
    return Uniforms(coarse, fine.expand(batch * num_rays, num_fine))


def random_uniforms(
    batch: int,
    num_rays: int,
    num_coarse: int,
    num_fine: int,
    *,
    rng: torch.Generator,
    samples_first: bool = False,
    device: torch.device | str | None = None,
) -> Uniforms:
    """Drawn from `rng`, on its device, in the published order: coarse, then fine.

    `samples_first` draws the coarse numbers in memory order (S, B, M, 1), as the published code does where each ray has
    limits of its own.
    """
    if samples_first:
        coarse = torch.rand((num_coarse, batch, num_rays, 1), generator=rng, device=rng.device).permute(1, 2, 0, 3)
    else:
        coarse = torch.rand((batch, num_rays, num_coarse, 1), generator=rng, device=rng.device)
    fine = torch.rand((batch * num_rays, num_fine), generator=rng, device=rng.device)
    return Uniforms(*(x if device is None else send(x, torch.device(device)) for x in (coarse, fine)))


@torch.no_grad()
def box_limits(ray_origins: Tensor, ray_directions: Tensor, side: float) -> tuple[Tensor, Tensor]:
    """Depths (B, M, 1) at which rays enter and leave the cube of `side` around the origin; -1 and -2 for a miss."""
    inverse = 1 / ray_directions
    first, second = (-side / 2 - ray_origins) * inverse, (side / 2 - ray_origins) * inverse
    # 0 * inf: the ray runs inside a face of the cube, which limits nothing along this axis.
    enter = torch.minimum(first, second).nan_to_num(-torch.inf, torch.inf, -torch.inf).amax(dim=-1, keepdim=True)
    leave = torch.maximum(first, second).nan_to_num(torch.inf, torch.inf, -torch.inf).amin(dim=-1, keepdim=True)
    miss = enter > leave
    return enter.masked_fill(miss, -1.0), leave.masked_fill(miss, -2.0)


def fill_misses(near: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
    """Give rays that miss the box the smallest and the largest *near* limit of those that hit; none hits: unchanged."""
    hit = far > near
    kept = hit | ~hit.any()
    smallest, largest = (torch.where(hit, near, none) for none in (torch.inf, -torch.inf))
    return torch.where(kept, near, smallest.amin()), torch.where(kept, far, largest.amax())


def stratified_depths(
    near: float | Tensor, far: float | Tensor, uniforms: Tensor, *, disparity: bool = False
) -> Tensor:
    """Coarse depths t_k = n + (k + u_k) (f - n) / (S - 1), k = 0 ... S - 1; evenly in 1 / t with `disparity`.

    Args:
        near, far: limits, scene units; numbers, or (B, M, 1) for limits of each ray.
        uniforms: (B, M, S, 1) in [0, 1), S > 1.
    Returns: (B, M, S, 1), ascending along a ray.
    """
    steps = uniforms.shape[2] - 1
    if steps < 1:
        raise ValueError(
            f"stratified sampling needs at least 2 samples per ray, but got {steps + 1} (depth_resolution)"
        )
    share = (torch.arange(steps + 1, dtype=uniforms.dtype, device=uniforms.device)[:, None] + uniforms) / steps
    near, far = (limit.unsqueeze(2) if isinstance(limit, Tensor) else limit for limit in (near, far))
    if disparity:
        return 1 / ((1 - share) / near + share / far)
    return near + share * (far - near)


@torch.no_grad()
def importance_depths(depths: Tensor, weights: Tensor, uniforms: Tensor) -> Tensor:
    """Fine depths, drawn where the coarse weights are large; without gradient.

    The weights are smoothed (maximum of neighbours, then their average, then + 0.01) and lose their first and last
    entry, while all S - 1 middles of the coarse depths serve as bin limits. The S - 3 probabilities left therefore
    belong to intervals shifted by one, half a step towards the camera, as in the published code.

    Args:
        depths: (B, M, S, 1), ascending; weights: (B, M, S - 1, 1), one per interval, S > 3.
        uniforms: (B * M, S2) in [0, 1).
    Returns: (B, M, S2, 1), in the order of the uniforms.
    """
    batch, num_rays, num_samples, _ = depths.shape
    if num_samples < 4:
        raise ValueError(
            f"importance sampling needs at least 4 coarse samples, but got {num_samples} (depth_resolution)"
        )
    t = depths.reshape(batch * num_rays, num_samples)
    w = weights.reshape(batch * num_rays, 1, num_samples - 1)
    smooth = avg_pool1d(max_pool1d(w, 2, stride=1, padding=1), 2, stride=1).squeeze(1) + 0.01
    middles = (t[:, :-1] + t[:, 1:]) / 2
    return sample_pdf(middles, smooth[:, 1:-1], uniforms).reshape(batch, num_rays, -1, 1)


def sample_pdf(bins: Tensor, weights: Tensor, uniforms: Tensor) -> Tensor:
    """Invert the piecewise linear CDF of `weights` over `bins`.

    Args:
        bins: (R, n + 1) or more limits, ascending; limits beyond n + 1 are not reached. weights: (R, n), >= 0.
        uniforms: (R, S2) in [0, 1].
    Returns: positions (R, S2).
    """
    weights = weights + 1e-5
    cdf = torch.cumsum(weights / weights.sum(dim=1, keepdim=True), dim=1)
    cdf = torch.cat([torch.zeros_like(cdf[:, :1]), cdf], dim=1)
    above = torch.searchsorted(cdf, uniforms.contiguous(), right=True)
    low, high = (above - 1).clamp(min=0), above.clamp(max=weights.shape[1])
    cdf_low, cdf_high = cdf.gather(1, low), cdf.gather(1, high)
    bin_low, bin_high = bins.gather(1, low), bins.gather(1, high)
    width = cdf_high - cdf_low
    width = torch.where(width < 1e-5, torch.ones_like(width), width)
    return bin_low + (uniforms - cdf_low) / width * (bin_high - bin_low)
