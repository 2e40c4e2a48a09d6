"""Volume rendering along sorted samples, with midpoint ("mip") quadrature (EG3D, Sec. 3.2; NeRF, Eq. 3).

K samples give K - 1 intervals. Colours, raw densities and depths of an interval are the averages of its two ends, the
densities before their activation softplus(sigma - 1). There is no infinite last interval.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus


class March(NamedTuple):
    """`features` (B, M, C) in about [-1, 1]; `depth` (B, M, 1), scene units; `weights` (B, M, K - 1, 1)."""

    features: Tensor
    depth: Tensor
    weights: Tensor


class Settings(NamedTuple):
    """How the samples of a ray are found and what is made of them, for `reference.march_rays` and `fused.march_rays`.

    axes, box_warp: see `planes.mean_features`. fine_is_depth: the fine numbers are depths, not uniforms.
    with_features: False leaves the colours out, which are half of the work.
    half_planes: float32 planes are looked up in half precision, their gradient is float32; of the fused one on CUDA.
    """

    axes: str
    box_warp: float
    fine_is_depth: bool = False
    with_features: bool = True
    half_planes: bool = False


class Marched(NamedTuple):
    """Sums along each ray, before background, clamp and scale (`finish_features`, `clamp_depth`).

    `features` (B, M, D), of no channels where they are left out; `depth` (B, M, 1), inf without weight; `total`
    (B, M, 1), sum of the weights; `limits` (B, M, 2), smallest and largest depth of the ray's samples.
    """

    features: Tensor
    depth: Tensor
    total: Tensor
    limits: Tensor


def march(colors: Tensor, densities: Tensor, depths: Tensor, *, white_back: bool = False) -> March:
    """Render samples that are sorted along each ray.

    Args:
        colors: (B, M, K, C) in [0, 1]; densities: (B, M, K, 1), raw; depths: (B, M, K, 1), ascending.
        white_back: rays end on white in place of black, in all C channels.
    """
    weights = interval_weights(densities, depths)
    features = composite(colors, sample_weights(weights))
    total = weights.sum(dim=2)
    return March(
        finish_features(features, total, white_back), clamp_depth(mean_depth(weights, depths), depths), weights
    )


def interval_weights(densities: Tensor, depths: Tensor) -> Tensor:
    """w_k = alpha_k prod_{j<k} (1 - alpha_j + 1e-10), alpha = 1 - exp(-softplus(sigma - 1) delta): (B, M, K - 1, 1)."""
    deltas = depths[:, :, 1:] - depths[:, :, :-1]
    middle = (densities[:, :, :-1] + densities[:, :, 1:]) / 2
    passed = torch.exp(-softplus(middle - 1) * deltas)
    transmittance = torch.cumprod(pad(passed[:, :, :-1] + 1e-10, (0, 0, 1, 0), value=1.0), dim=2)
    return (1 - passed) * transmittance


def sample_weights(weights: Tensor) -> Tensor:
    """The share of each sample, half of each interval beside it: (B, M, K - 1, 1) -> (B, M, K, 1).

    Sums over intervals of averaged end points equal sums over samples with these, without building the averages.
    """
    return (pad(weights, (0, 0, 1, 0)) + pad(weights, (0, 0, 0, 1))) / 2


def composite(colors: Tensor, shares: Tensor) -> Tensor:
    """Sum over the samples: colors (B, M, K, C), shares (B, M, K, 1) -> (B, M, C)."""
    return (shares.transpose(2, 3) @ colors).squeeze(2)


def mean_depth(weights: Tensor, depths: Tensor) -> Tensor:
    """Mean depth (B, M, 1) of the intervals under their weights; +inf for a ray without weight."""
    middle = (depths[:, :, :-1] + depths[:, :, 1:]) / 2
    total = weights.sum(dim=2)
    seen = total > 0
    depth = (weights * middle).sum(dim=2) / torch.where(seen, total, 1.0)  # no 0 / 0: its gradient would be NaN
    return torch.where(seen, depth, torch.inf)


def clamp_depth(depth: Tensor, depths: Tensor) -> Tensor:
    """Clamp to the range of `depths`, which are all depths of the batch: empty rays take the largest of them."""
    low, high = torch.aminmax(depths.detach())
    return depth.clamp(low, high)


def finish_features(features: Tensor, total: Tensor, white_back: bool) -> Tensor:
    """2 F - 1 in all channels, after 1 - W is added for a white background; features (B, M, C), total (B, M, 1)."""
    if white_back:
        features = features + (1 - total)
    return 2 * features - 1
