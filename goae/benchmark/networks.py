"""The networks of a configuration, plain and as the library runs them, with random inputs of the right sizes."""

from dataclasses import replace
from functools import cached_property

import torch
from eg3d.cameras import canonical_label, join_label, pose_from_angles, split_label
from eg3d.generator import TriPlaneGenerator
from torch import Tensor

from goae import build
from goae.benchmark.original import plain_generator, plain_goae
from goae.config import TrainConfig
from goae.models.goae import GOAE, preset
from goae.models.occlusion import COARSE, jumps

YAW, PITCH = 0.4, 0.1  # of the novel view, radians
AT_JUMPS = 0.14  # share of the mask's dense rays that heads need at jumps of depth, see docs/performance.md


class Networks:
    """One implementation, made when first asked for; both have the same weights."""

    def __init__(self, config: TrainConfig, device: torch.device, *, plain: bool) -> None:
        self.config, self.device, self.plain = config, device, plain

    @cached_property
    def generator(self) -> TriPlaneGenerator:
        """Frozen, in evaluation mode."""
        generator = build.build_generator(self.config)
        return (plain_generator(generator) if self.plain else generator).to(self.device)

    @cached_property
    def training_generator(self) -> TriPlaneGenerator:
        """The same with the samples per ray of training."""
        generator = build.for_training(self.config, build.build_generator(self.config))
        return (plain_generator(generator) if self.plain else generator).to(self.device)

    @cached_property
    def goae(self) -> GOAE:
        """Everything, in evaluation mode."""
        return self._goae(self.generator)

    @cached_property
    def training_goae(self) -> GOAE:
        """Everything around `training_generator`."""
        return self._goae(self.training_generator)

    def _goae(self, generator: TriPlaneGenerator) -> GOAE:
        goae = build.build_goae(self.config, generator).to(self.device).eval()
        return plain_goae(goae) if self.plain else goae


class Scene:
    """Both implementations of a configuration, and inputs for a batch of B images."""

    def __init__(self, config: TrainConfig, device: torch.device, batch_size: int) -> None:
        self.config, self.device, self.batch_size = config, device, batch_size
        self.ref, self.ours = (Networks(config, device, plain=plain) for plain in (True, False))

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape), the same numbers for the same shape."""
        rng = torch.Generator().manual_seed(self.config.seed)
        return torch.randn(self.batch_size, *shape, generator=rng).to(self.device)

    @property
    def image(self) -> Tensor:
        """(B, 3, H, H) in [-1, 1]."""
        side = self.config.generator.image_resolution
        return torch.tanh(self.normal(3, side, side))

    @property
    def planes(self) -> Tensor:
        """(B, 3, C, P, P)."""
        generator = self.config.generator
        return self.normal(3, generator.plane_channels, generator.plane_resolution, generator.plane_resolution)

    @property
    def ws(self) -> Tensor:
        """(B, num_ws, w_dim)."""
        return self.normal(self.ours.generator.num_ws, self.config.generator.w_dim)

    @property
    def c(self) -> Tensor:
        """(B, 25): the front camera."""
        return front_cameras(self.config, self.batch_size).to(self.device)

    @property
    def novel_c(self) -> Tensor:
        """(B, 25): a camera at the side."""
        radius = self.config.generator.avg_camera_radius
        _, intrinsics = split_label(canonical_label(radius))
        return self._expanded(join_label(pose_from_angles(YAW, PITCH, radius=radius), intrinsics))

    def _expanded(self, c: Tensor) -> Tensor:
        return c.view(1, -1).expand(self.batch_size, -1).to(self.device)


def front_cameras(config: TrainConfig, size: int) -> Tensor:
    """Labels (size, 25) of the front camera."""
    return canonical_label(config.generator.avg_camera_radius).view(1, -1).expand(size, -1)


def by_paper(config: TrainConfig) -> TrainConfig:
    """The same sizes by the preset of the paper."""
    return replace(config, afa=replace(config.afa, variant="paper"), goae=preset("paper"))


@torch.no_grad()
def place_jumps(scene: Scene) -> None:
    """Set `mix.depth_jump` so that `AT_JUMPS` of the rays are rendered as such: random networks have no silhouettes."""
    goae, c = scene.ours.goae, scene.c
    planes = goae.refine_planes(scene.image, goae.invert_w(scene.image, c)).planes
    mix, size = goae.config.mix, planes.shape[-1]
    resolution = mix.depth_resolution_for(size)
    coarse = goae.generator.render_depth(planes, c, resolution=resolution // COARSE)
    low, high = 0.0, float(coarse.max() - coarse.min())
    for _ in range(30):
        middle = (low + high) / 2
        too_many = float(jumps(coarse, resolution, middle).float().mean()) > AT_JUMPS
        low, high = (middle, high) if too_many else (low, middle)
    jump = high * size / goae.generator.config.rendering.box_warp
    for networks in (scene.ref, scene.ours):
        networks.goae.config = replace(goae.config, mix=replace(mix, depth_jump=jump))
