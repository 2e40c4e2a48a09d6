"""Supervised warm start of a generator on a data set whose generating factors are known (the mini world's heads).

Not part of EG3D's recipe: the standardised factors stand in for z, the mapping network gets the canonical pose, and
the generator is fitted to each sample's own image from its own camera. It gives a generator with a head's shape and a
face in minutes, which adversarial training can sharpen.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from eg3d.cameras import canonical_label
from eg3d.generator import TriPlaneGenerator
from eg3d.transfer import send
from torch import Tensor, nn
from torch.nn import functional as F

from goae.losses.reconstruction import mean_squared, perceptual
from goae.training.loop import FitConfig
from goae.training.optim import OptimizerConfig, build_optimizer
from goae.training.phases import Batch, Draw, Phase
from goae.training.preview import shown_depth


@dataclass
class WarmStartConfig:
    """What the warm start minimises and for how long."""

    fit: FitConfig = field(default_factory=lambda: FitConfig(steps=4_000, batch_size=16, ema=0.998, monitor="mse"))
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig("adam", lr=4e-3, betas=[0.9, 0.99]))
    l2: float = 1.0
    l1: float = 0.3
    raw: float = 1.0  # L2 between the raw render and the image at its resolution
    lpips: float = 0.8
    lpips_resolution: int = 128  # images are enlarged to this size for the perceptual network
    parts: float = 0.0  # L2 in which every part and the background count alike, whatever their size (eyes, glasses)
    depth: float = 0.0  # L1 between the rendered depth and the true one, where the head is
    mapping_gain: float = 100.0  # how much faster the mapping layers learn: undoes their multiplier of 0.01
    lr_decay_steps: int = 0  # the learning rate falls linearly to a tenth over the last so many steps; 0: constant


class SupervisedLosses:
    """The generator against the samples it is told the factors of: `weights`, and by calling it the terms."""

    def __init__(
        self,
        generator: TriPlaneGenerator,
        lpips: Callable[[Tensor, Tensor], Tensor] | None,
        config: WarmStartConfig,
    ) -> None:
        if config.lpips and lpips is None:
            raise ValueError("warm_start.lpips is not 0 but perception.lpips is none: name a network, or set it to 0")
        self.generator, self.lpips, self.config = generator, lpips, config
        self.weights = {name: getattr(config, name) for name in ("l2", "l1", "raw", "lpips", "parts", "depth")}

    def __call__(self, batch: Batch, draw: Draw, *, update_w_avg: bool = False) -> dict[str, Tensor]:
        """Unweighted terms of images, their labels, factors, and for the last two terms depth and parts."""
        image, config = batch["image"], self.config
        spare = draw.generator("spare entries of z")
        ws = codes(self.generator, batch["factors"], spare=spare, update_w_avg=update_w_avg)
        view = self.generator.synthesis(ws, batch["c"], uniforms=draw.generator("render", image.device))
        terms = {"l2": mean_squared(view.image, image)}
        if config.l1:
            terms["l1"] = (view.image - image).abs().mean()
        if config.raw:
            small = F.interpolate(image, view.image_raw.shape[-2:], mode="bilinear", antialias=True)
            terms["raw"] = mean_squared(view.image_raw, small)
        if config.lpips and self.lpips is not None:
            size = (config.lpips_resolution, config.lpips_resolution)
            pair = [F.interpolate(x, size, mode="bilinear", align_corners=False) for x in (view.image, image)]
            terms["lpips"] = perceptual(pair[0], pair[1], self.lpips)
        if config.parts:
            terms["parts"] = part_error(view.image, image, batch["parts"])
        if config.depth:
            terms["depth"] = depth_error(view.image_depth, batch["depth"], batch["parts"])
        return terms


class WarmStartStage:
    """One phase: the generator's supervised losses."""

    name = "warm_start"
    main = "generator"
    preview_columns = 4
    complete = True

    def __init__(
        self,
        generator: TriPlaneGenerator,
        lpips: Callable[[Tensor, Tensor], Tensor] | None,
        config: WarmStartConfig,
    ) -> None:
        self.generator, self.config = generator.requires_grad_(True), config
        self.supervised = SupervisedLosses(generator, lpips, config)
        self.modules: dict[str, nn.Module] = {"generator": generator}
        mapping = list(generator.backbone.mapping.parameters())
        rest = [p for name, p in generator.named_parameters() if not name.startswith("backbone.mapping.")]
        self.gains = (1.0, config.mapping_gain)
        self.optimizer = build_optimizer(config.optimizer, [{"params": rest}, {"params": mapping}])
        self.phases = [Phase("g", [generator], self.optimizer, self.supervised.weights, self._losses)]

    def begin(self, step: int) -> None:
        """Train mode, and the learning rate of `step`."""
        self.generator.train()
        fit, decay = self.config.fit, self.config.lr_decay_steps
        share = min(1.0, (fit.steps - step) / decay) if decay else 1.0
        for group, gain in zip(self.optimizer.param_groups, self.gains, strict=True):
            group["lr"] = self.config.optimizer.lr * gain * (0.1 + 0.9 * share)

    def preview(self, batch: Batch) -> Tensor:
        """True image, render from its camera, front view, depth of the front view."""
        return warm_start_preview(self.generator, batch)

    def slot_state(self) -> dict[int, Any]:
        """Nothing is remembered between steps."""
        return {}

    def load_slot_state(self, state: dict[int, Any]) -> None:
        """Nothing to take back."""

    def _losses(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        return self.supervised(batch, draw, update_w_avg=True)


def codes(
    generator: TriPlaneGenerator,
    factors: Tensor,
    *,
    spare: torch.Generator | None = None,
    update_w_avg: bool = False,
) -> Tensor:
    """Standardised factors (B, k) under the canonical pose -> ws (B, num_ws, w_dim).

    The first k entries of z are the factors; the others are noise drawn from `spare`, so that the generator learns to
    pass over them, or zeros without it.

    Raises: ValueError if z has fewer entries than there are factors.
    """
    if factors.shape[1] > generator.config.z_dim:
        raise ValueError(
            f"the data have {factors.shape[1]} factors, but generator.z_dim is {generator.config.z_dim}; expected at "
            f"least as many"
        )
    rest = torch.zeros(len(factors), generator.config.z_dim - factors.shape[1])
    if spare is not None:
        rest = torch.randn(rest.shape, generator=spare)
    z = torch.cat([factors, send(rest, factors)], 1)
    c = send(canonical_label(), factors).expand(len(factors), -1)
    return generator.mapping(z, c, update_w_avg=update_w_avg)


def depth_error(depth: Tensor, true_depth: Tensor, parts: Tensor) -> Tensor:
    """Mean absolute difference along the ray (scene units) inside the true head; all (B, 1, r, r) or larger."""
    size = depth.shape[-2:]
    true_depth = F.interpolate(true_depth, size, mode="nearest")
    inside = F.interpolate((parts > 0).float(), size, mode="nearest")
    return ((depth - true_depth).abs() * inside).sum() / inside.sum().clamp_min(1)


def part_error(image: Tensor, target: Tensor, parts: Tensor) -> Tensor:
    """Mean over the parts that are there, background included, of the mean squared error in their pixels; a scalar.

    Args:
        image, target: (B, 3, H, H) in [-1, 1].
        parts: (B, 1, H, H), the label of every pixel as a whole number from 0.
    """
    member = F.one_hot(parts.flatten().long()).to(image)  # (pixels, labels)
    error, count = (image - target).square().mean(1).flatten() @ member, member.sum(0)
    return (error[count > 0] / count[count > 0]).mean()


@torch.no_grad()
def warm_start_preview(generator: TriPlaneGenerator, batch: Batch) -> Tensor:
    """Rows of four: true image, render from its camera, front view, depth of the front view."""
    mode = generator.training
    generator.eval()
    ws = codes(generator, batch["factors"])
    c0 = canonical_label().to(ws).expand(len(ws), -1)
    own, front = generator.synthesis(ws, batch["c"]), generator.synthesis(ws, c0)
    generator.train(mode)
    pictures = [batch["image"], own.image, front.image, shown_depth(generator, front.image_depth)]
    return torch.stack(pictures, 1).flatten(0, 1)
