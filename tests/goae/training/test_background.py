"""L_BG against a background planted too near: what pulls it back, and what cannot."""

import pytest
import torch
from eg3d.cameras import canonical_label
from eg3d.generator import TriPlaneGenerator
from tiny import tiny_generator
from torch import Tensor

from goae.extractors.parsing import background_by_depth
from goae.models.sampling import with_samples
from goae.training.background import BackgroundConfig, BackgroundDepth
from goae.training.canonical import Background, CanonicalStats

D_AVG = 3.1
RULE = 3.0  # threshold of the rule by depth, between head and D_avg


@pytest.fixture(scope="module")
def generator() -> TriPlaneGenerator:
    """Enough samples to tell depths; all is empty where channel 0 of the planes is negative, and opaque beyond."""
    generator = with_samples(tiny_generator(), 24)
    first, last = generator.decoder.net[0], generator.decoder.net[2]
    with torch.no_grad():
        first.weight.zero_()
        first.bias.zero_()
        first.weight[0, 0] = 40 * first.in_features**0.5
        last.weight[0].zero_()
        last.weight[0, 0] = 20 * last.in_features**0.5
        last.bias[0] = -20.0  # softplus(0) of the hidden unit gives 13.9
    return generator


def planted(generator: TriPlaneGenerator, depth: float) -> Tensor:
    """Planes of a wall at this distance from the canonical camera.

    Channel 0 holds r² - depth² of a point's distance r: x² + y² in the first plane, (2.7 - z)² in the second.
    """
    side = generator.config.plane_resolution
    at = (torch.arange(side) + 0.5) / side - 0.5
    planes = torch.zeros(1, 3, generator.config.plane_channels, side, side)
    planes[0, 0, 0] = at[:, None] ** 2 + at**2
    planes[0, 1, 0] = ((generator.config.avg_camera_radius - at) ** 2)[:, None] - depth**2
    return planes


def by_place(image: Tensor, depth: Tensor) -> Tensor:
    """A mask that no depth enters: all but the middle of the picture."""
    mask = torch.ones_like(image[:, :1])
    edge = image.shape[-1] // 4
    mask[..., edge:-edge, edge:-edge] = 0
    return mask


def by_depth(image: Tensor, depth: Tensor) -> Tensor:
    return background_by_depth(depth, RULE)


def term(generator: TriPlaneGenerator, segment: Background) -> BackgroundDepth:
    stats = CanonicalStats(torch.tensor(D_AVG), torch.full((1, 1, 16, 16), D_AVG), generator.w_avg, 1, "", "")
    return BackgroundDepth(generator, segment, stats, BackgroundConfig())


def depths(generator: TriPlaneGenerator, planes: Tensor) -> Tensor:
    """Of the background's pixels in the front view."""
    with torch.no_grad():
        depth = generator.render(planes, canonical_label()).image_depth
    return depth[by_place(depth, depth).bool()]


def codes(generator: TriPlaneGenerator) -> Tensor:
    return generator.w_avg.expand(1, generator.num_ws, -1)


@pytest.mark.parametrize("depth", [2.6, 2.7, 2.8, 2.9, 2.95])
def test_a_mask_apart_from_depth_pulls_a_near_background_back(generator: TriPlaneGenerator, depth: float) -> None:
    loss, planes = term(generator, by_place), planted(generator, depth).requires_grad_()
    before = depths(generator, planes)
    assert before.max() < RULE and abs(float(before.mean()) - depth) < 0.05
    optimizer = torch.optim.Adam([planes], lr=0.05)
    for _ in range(20):
        found = loss(planes, codes(generator), None)
        assert found["bg"] > 0 and found["bg_share"] > 0.5
        optimizer.zero_grad()
        found["bg"].backward()
        optimizer.step()
    after = depths(generator, planes)
    assert after.mean() > before.mean()
    assert (after - D_AVG).abs().mean() < 0.5 * (before - D_AVG).abs().mean()


@pytest.mark.parametrize("depth", [2.6, 2.7, 2.8, 2.9, 2.95])
def test_the_rule_by_depth_leaves_a_near_background_alone(generator: TriPlaneGenerator, depth: float) -> None:
    """Which is why no recipe has it for a default: loss and gradient are exactly 0, and the log shows an empty mask."""
    planes = planted(generator, depth).requires_grad_()
    found = term(generator, by_depth)(planes, codes(generator), None)
    found["bg"].backward()
    assert planes.grad is not None and not planes.grad.any()
    assert found["bg"].item() == found["bg_share"].item() == 0.0
