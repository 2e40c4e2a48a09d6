"""Inversion by optimising the code of each image, in W or W+; with 450 steps in W, the pivot of PTI (paper, App. B).

The schedule is that of StyleGAN2's projector (Karras et al., 2020, App. D): Adam from the average code, the learning
rate rising linearly and falling by half a cosine. Neither the code nor the network's stored noise is perturbed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from eg3d.generator import TriPlaneGenerator
from eg3d.rendering.sampling import Uniforms, random_uniforms
from torch import Tensor
from torch.nn.functional import interpolate

from goae.baselines.inputs import check_input
from goae.models.latent_inverter import View
from goae.models.sampling import with_samples

Distance = Callable[[Tensor, Tensor], Tensor]
Progress = Callable[[int, Tensor], object]
SPACES = ("w", "w_plus")


@dataclass
class OptimizationConfig:
    """How a code is found."""

    steps: int = 500
    lr: float = 0.1  # largest learning rate (StyleGAN2's projector; PTI's pivot has 5e-3)
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    rampup: float = 0.05  # share of the steps in which the learning rate rises from 0
    rampdown: float = 0.25  # share of the steps in which it falls to 0
    l2: float = 1.0  # of the mean squared error
    lpips: float = 0.8  # of the perceptual distance; 0 skips its network
    lpips_resolution: int = 0  # images are resized to it for the perceptual network; 0: their own
    samples: int = 0  # coarse and fine samples per ray while optimising; 0: the generator's own numbers
    seed: int = 0  # of where the samples lie while optimising

    def __post_init__(self) -> None:
        if self.steps < 0 or self.samples < 0 or self.lpips_resolution < 0:
            raise ValueError(
                f"optimization.steps {self.steps}, samples {self.samples} and lpips_resolution "
                f"{self.lpips_resolution}; expected none below 0"
            )
        if self.lr <= 0 or len(self.betas) != 2:
            raise ValueError(f"optimization.lr {self.lr}, betas {self.betas}; expected lr > 0 and two betas")
        if not (0 <= self.rampup <= 1 and 0 <= self.rampdown <= 1):
            raise ValueError(f"optimization.rampup {self.rampup}, rampdown {self.rampdown}; expected shares in [0, 1]")
        if min(self.l2, self.lpips) < 0 or not (self.l2 or self.lpips):
            raise ValueError(f"optimization.l2 {self.l2}, lpips {self.lpips}; expected a weight above 0, none below")


class Optimized(NamedTuple):
    """An inversion: ws (B, num_ws, w_dim), equal rows in W; planes (B, 3, C, P, P)."""

    ws: Tensor
    planes: Tensor


class LatentOptimization:
    """One code per image, found by gradient descent; the same two calls as `Inverter`.

    Images of a batch do not influence each other: each has its own code and its own place in the sum of losses, and
    all are rendered with the same samples. So an inversion depends on its image, camera and configuration alone.
    """

    def __init__(
        self,
        generator: TriPlaneGenerator,
        config: OptimizationConfig,
        *,
        space: str,
        lpips: Distance | None,
        progress: Progress = lambda step, losses: None,
    ) -> None:
        """`lpips` maps two batches of images to (B,); `progress` hears the steps done and the last losses (B,).

        Raises: ValueError for another space than w and w_plus, or a weight without its network.
        """
        if space not in SPACES:
            raise ValueError(f"space is {space!r}; expected one of {', '.join(SPACES)}")
        if config.lpips and lpips is None:
            raise ValueError(
                "optimization.lpips is not 0, but no perceptual network was given; give one, or set it to 0"
            )
        self.generator = generator.eval().requires_grad_(False)
        self.config, self.space, self.lpips, self.progress = config, space, lpips, progress
        self.draft = with_samples(generator, config.samples) if config.samples else generator

    def invert(self, image: Tensor, c: Tensor) -> Optimized:
        """Fit the render from cameras c (B, 25) to images (B, 3, H, H) in [-1, 1] of the generator's size.

        Raises: ValueError for other images or labels; FloatingPointError if a loss is not finite.
        """
        return self.restore(self.optimize(*check_input(image, c, self.generator)))

    @torch.no_grad()
    def restore(self, ws: Tensor) -> Optimized:
        """The inversion of stored codes (B, num_ws, w_dim)."""
        ws = ws.to(self.generator.w_avg)
        features = self.generator.features(ws, self.generator.config.plane_resolution)
        return Optimized(ws, self.generator.planes(features, ws))

    @torch.no_grad()
    def render(self, inversion: Optimized, c: Tensor) -> View:
        """Render from cameras (B, 25), with all of the generator's samples."""
        found = self.generator.render(inversion.planes, c.to(inversion.planes.device))
        image = self.generator.superresolve(found.image_raw, found.feature_image, inversion.ws)
        return View(image, found.image_raw, found.image_depth)

    @torch.enable_grad()
    def optimize(self, image: Tensor, c: Tensor) -> Tensor:
        """The codes (B, num_ws, w_dim) alone; `invert` adds their planes."""
        config, num_ws = self.config, self.generator.num_ws
        rows = 1 if self.space == "w" else num_ws
        code = self.generator.w_avg.expand(len(image), rows, -1).clone().requires_grad_(True)
        optimizer = torch.optim.Adam([code], lr=config.lr, betas=(config.betas[0], config.betas[1]))
        rng = torch.Generator().manual_seed(config.seed)
        for step in range(config.steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config)
            ws = code.expand(-1, num_ws, -1)
            view = self.draft.synthesis(ws, c, uniforms=self._uniforms(len(image), rng))
            losses = self._losses(view.image, image)
            if not torch.isfinite(losses).all():
                raise FloatingPointError(f"the loss is {losses.tolist()} at step {step}; lower optimization.lr")
            optimizer.zero_grad()
            losses.sum().backward()
            optimizer.step()
            self.progress(step + 1, losses.detach())
        return code.detach().expand(-1, num_ws, -1).contiguous()

    def _losses(self, image: Tensor, target: Tensor) -> Tensor:
        """(B,) weighted sums."""
        losses = self.config.l2 * (image - target).square().flatten(1).mean(1)
        if self.config.lpips and self.lpips is not None:
            size = self.config.lpips_resolution
            losses = losses + self.config.lpips * self.lpips(sized(image, size), sized(target, size))
        return losses

    def _uniforms(self, batch: int, rng: torch.Generator) -> Uniforms:
        """Random places of the samples, the same ones for every image of the batch."""
        sizes, rendering = self.draft.config, self.draft.config.rendering
        rays = sizes.neural_rendering_resolution**2
        drawn = random_uniforms(
            1,
            rays,
            rendering.depth_resolution,
            rendering.depth_resolution_importance,
            rng=rng,
            samples_first=rendering.ray_start is None,
            device=self.draft.w_avg.device,
        )
        return Uniforms(drawn.coarse.expand(batch, -1, -1, -1), drawn.fine.repeat(batch, 1))


def sized(image: Tensor, size: int) -> Tensor:
    """Images (B, 3, H, H) as a perceptual network gets them: resized to `size`, or as they are for 0."""
    if size in (0, image.shape[-1]):
        return image
    return interpolate(image, (size, size), mode="bilinear", align_corners=False, antialias=True)


def learning_rate(step: int, config: OptimizationConfig) -> float:
    """lr * min(1, t / rampup) * (1 - cos(pi min(1, (1 - t) / rampdown))) / 2 with t = step / steps."""
    t = step / config.steps
    fall = min(1.0, (1 - t) / config.rampdown) if config.rampdown else 1.0
    rise = min(1.0, t / config.rampup) if config.rampup else 1.0
    return config.lr * rise * 0.5 * (1 - math.cos(math.pi * fall))
