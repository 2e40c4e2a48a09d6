"""What the pose given to the mapping network does to geometry (paper, Sec. 3 and Fig. 3): one z under several poses.

The pose conditions the mapping alone; every head is then rendered from the same cameras. The paper expects that only
the canonical pose keeps head and background apart and views of one head alike.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from eg3d.cameras import canonical_label
from eg3d.generator import TriPlaneGenerator
from torch import Tensor

from goae.camera.level import level_label
from goae.losses.depth import background_mask

CONDITIONS = {"left": -45.0, "front": 0.0, "right": 45.0}  # degrees of yaw that the mapping is told
Embed = Callable[[Tensor], Tensor]
Segment = Callable[[Tensor, Tensor], Tensor]


@dataclass
class ConditionsConfig:
    """How the conditions are compared."""

    num_z: int = 200
    yaws: list[float] = field(default_factory=lambda: [-45.0, -22.5, 0.0, 22.5, 45.0])  # degrees, of the cameras
    erode: int = 1  # pixels of the depth map by which head and background are shrunk, against silhouettes
    batch_size: int = 10
    seed: int = 0  # of z

    def __post_init__(self) -> None:
        if self.num_z < 2 or self.batch_size < 1 or self.erode < 0:
            raise ValueError(
                f"conditions.num_z {self.num_z}, batch_size {self.batch_size}, erode {self.erode}; expected at least "
                f"2, 1 and 0"
            )
        if 0.0 not in self.yaws or len(set(self.yaws)) < 2:
            raise ValueError(f"conditions.yaws is {self.yaws}; expected 0 and others")


class Heads(NamedTuple):
    """The same heads from V cameras: planes (B, 3, C, P, P), images (V, B, 3, H, W), depths (V, B, 1, R, R)."""

    planes: Tensor
    images: Tensor
    depths: Tensor


class Measured(NamedTuple):
    """Numbers of each head: depth_gap (B,) in scene units, not-a-number without head or background; identity (B,)."""

    depth_gap: Tensor
    identity: Tensor


def latents(generator: TriPlaneGenerator, config: ConditionsConfig) -> Iterator[Tensor]:
    """Batches of the z that all conditions share; they depend on the seed alone."""
    rng = torch.Generator().manual_seed(config.seed)
    z = torch.randn(config.num_z, generator.config.z_dim, generator=rng)
    return iter(z.to(generator.w_avg.device).split(config.batch_size))


def label_at(yaw: float, generator: TriPlaneGenerator) -> Tensor:
    """The label (1, 25) of a level camera at `yaw` degrees, with the generator's radius and pivot."""
    front = canonical_label(generator.config.avg_camera_radius)
    return level_label(generator, yaw, front.to(generator.w_avg.device))


@torch.no_grad()
def heads_under(generator: TriPlaneGenerator, z: Tensor, condition: float, yaws: list[float]) -> Heads:
    """Heads of z (B, z_dim) whose mapping is told a pose at `condition` degrees, from cameras at `yaws` degrees."""
    ws = generator.mapping(z, label_at(condition, generator).expand(len(z), -1))
    planes = generator.planes(generator.features(ws, generator.config.plane_resolution), ws)
    images, depths = [], []
    for yaw in yaws:
        found = generator.render(planes, label_at(yaw, generator).expand(len(z), -1))
        images.append(generator.superresolve(found.image_raw, found.feature_image, ws))
        depths.append(found.image_depth)
    return Heads(planes, torch.stack(images), torch.stack(depths))


@torch.no_grad()
def measure_heads(heads: Heads, yaws: list[float], *, embed: Embed, segment: Segment, erode: int) -> Measured:
    """Depth gap in the front view, and mean cosine of identity between the front view and the others.

    Args:
        embed: images to unit vectors (B, D).
        segment: (image, depth) of front views to a mask (B, 1, H, W), 1 is background.
    """
    front = yaws.index(0.0)
    image, depth = heads.images[front].clamp(-1, 1), heads.depths[front]
    gap = depth_gap(depth, segment(image, depth), erode)
    own = embed(image)
    others = [(own * embed(view.clamp(-1, 1))).sum(1) for i, view in enumerate(heads.images) if i != front]
    return Measured(gap.cpu(), torch.stack(others).mean(0).cpu())


def depth_gap(depth: Tensor, background: Tensor, erode: int = 0) -> Tensor:
    """Mean depth of the background less that of the head, (B,) in scene units; not-a-number where one is missing.

    Args:
        depth: (B, 1, R, R), along the ray.
        background: (B, 1, H, W), 1 is background; the head is what is not.
        erode: pixels of the depth map by which both are shrunk.
    """
    size = depth.shape[-1]
    behind, head = (background_mask(mask, size, erode) for mask in (background, 1 - background))
    means = [(depth * mask).flatten(1).sum(1) / mask.flatten(1).sum(1) for mask in (behind, head)]
    return means[0] - means[1]
