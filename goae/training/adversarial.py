"""EG3D's adversarial training of a generator (EG3D, Sec. 4 and 5), alone or after a supervised warm start.

The recipe is in `eg3d.losses`: per step the generator, every few steps the density regularisation, then the dual
discriminator and every few steps its R1. Latents and labels are drawn anew for each, labels uniformly from those of the
data set and apart from the real images.

The bridge from a warm start is not EG3D's. The discriminator learns first, beside the frozen generator; then the
adversarial loss fades in beside the supervised ones; then these fade out.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from eg3d import losses
from eg3d.cameras import canonical_label
from eg3d.discriminator import DualDiscriminator
from eg3d.generator import Synthesis, TriPlaneGenerator
from eg3d.transfer import send
from torch import Tensor, nn

from goae.camera.level import level_label
from goae.data.cameras import sample_labels
from goae.losses.adversarial import fake_logistic, real_logistic
from goae.training.loop import FitConfig
from goae.training.optim import OptimizerConfig, build_optimizer
from goae.training.phases import Batch, Draw, Phase
from goae.training.preview import shown_depth
from goae.training.prior import SupervisedLosses

YAWS = (-45.0, 0.0, 45.0)  # degrees, of the previews
MINIBATCH_GROUP = 4  # images whose deviation the discriminator sees
DENSITY_POINTS = 1000  # per scene, of the released code
DENSITY_OFFSET = 0.004  # deviation of the offsets, scene units


@dataclass
class DiscriminatorConfig:
    """Sizes of the dual discriminator; the defaults are those of the released 512² models."""

    channel_base: int = 32768  # the block at r has min(channel_base // r, channel_max) channels
    channel_max: int = 512
    mapping_layers: int = 8  # of the label
    num_fp16_res: int = 4  # blocks in half precision on CUDA


@dataclass
class BridgeConfig:
    """The way from a warm start; all zero: adversarial from the first step, with no supervised loss at all."""

    discriminator_steps: int = 0  # the discriminator alone, the generator frozen
    fade_steps: int = 0  # after them: the adversarial loss rises from 0 to its weight beside the supervised losses
    release_steps: int = 0  # after them: the supervised losses fall from their weights to the floor
    supervised_floor: float = 0.0  # share of their weights that stays
    adversarial_ceiling: float = 1.0  # share of its weight that the adversarial loss rises to

    def __post_init__(self) -> None:
        if min(self.discriminator_steps, self.fade_steps, self.release_steps) < 0:
            raise ValueError(f"adversarial.bridge has a negative number of steps: {self}")
        if not 0 <= self.supervised_floor <= 1:
            raise ValueError(f"bridge.supervised_floor is {self.supervised_floor}; expected a share from 0 to 1")
        if not 0 < self.adversarial_ceiling <= 1:
            raise ValueError(f"bridge.adversarial_ceiling is {self.adversarial_ceiling}; expected a share up to 1")

    @property
    def supervised(self) -> bool:
        """Whether supervised losses are taken at any step."""
        return bool(self.fade_steps or self.release_steps or self.supervised_floor)

    def shares(self, step: int) -> tuple[float, float]:
        """Of the adversarial and of the supervised weights at `step`, each in [0, 1]."""
        faded = step - self.discriminator_steps
        released = faded - self.fade_steps
        gone = progress(released, self.release_steps) if self.supervised else 1.0
        risen = self.adversarial_ceiling * progress(faded, self.fade_steps)
        return risen, 1 - (1 - self.supervised_floor) * gone


@dataclass
class AdversarialConfig:
    """The recipe; the defaults are those of EG3D's faces at 512² with raw images of 64²."""

    fit: FitConfig = field(
        default_factory=lambda: FitConfig(
            steps=781_250, batch_size=32, micro_batch=4, ema_kimg=10.0, ema_ramp=0.05, monitor="fd"
        )
    )
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    schedule: losses.Schedule = field(default_factory=losses.Schedule)
    bridge: BridgeConfig = field(default_factory=BridgeConfig)
    generator_lr: float = 0.0025  # before the correction for lazy regularisation, as the next two
    discriminator_lr: float = 0.002
    betas: list[float] = field(default_factory=lambda: [0.0, 0.99])
    gamma: float = 1.0  # of R1; 0: off
    density: float = 0.25  # weight of the density regularisation; 0: off
    noise_mode: str = "random"  # of the backbone while training: random | const | none

    def __post_init__(self) -> None:
        if self.fit.micro % min(MINIBATCH_GROUP, self.fit.micro):
            raise ValueError(
                f"adversarial.fit.micro_batch is {self.fit.micro}; expected a multiple of {MINIBATCH_GROUP}, whose "
                f"deviation the discriminator sees, or fewer"
            )


class AdversarialStage:
    """Per step: the generator (and lazily its densities), then the discriminator (and lazily R1)."""

    name = "adversarial"
    main = "generator"
    preview_columns = 2 * len(YAWS)
    complete = True

    def __init__(
        self,
        generator: TriPlaneGenerator,
        discriminator: DualDiscriminator,
        labels: Tensor,
        supervised: SupervisedLosses | None,
        config: AdversarialConfig,
    ) -> None:
        """`labels` (N, 25): of the data set, from which those of generated images are drawn."""
        self.generator, self.discriminator = generator.requires_grad_(True), discriminator
        self.labels, self.supervised, self.config = labels, supervised, config
        self.modules: dict[str, nn.Module] = {"generator": generator, "discriminator": discriminator}
        self.now = config.schedule.at(0)
        self.weights: dict[str, float] = {}
        self.phases = self._phases()

    def begin(self, step: int) -> None:
        """Train mode, EG3D's schedules, and the weights of the generator's losses at `step`."""
        self.generator.train()
        self.discriminator.train()
        self.now = self.config.schedule.at(step * self.config.fit.batch_size)
        adversarial, supervised = self.config.bridge.shares(step)
        self.weights["adv"] = adversarial
        if self.supervised:
            self.weights |= {name: supervised * weight for name, weight in self.supervised.weights.items()}

    def preview(self, batch: Batch) -> Tensor:
        """A row for each image of the batch: a scene, the same at every step, from three yaws, with depth."""
        rng = torch.Generator().manual_seed(0)
        z = torch.randn(len(batch["image"]), self.generator.config.z_dim, generator=rng)
        return scene_preview(self.generator, z.to(batch["image"]))

    def slot_state(self) -> dict[int, Any]:
        """Nothing is remembered between steps."""
        return {}

    def load_slot_state(self, state: dict[int, Any]) -> None:
        """Nothing to take back."""

    def _phases(self) -> list[Phase]:
        config, first = self.config, self.config.bridge.discriminator_steps
        density_every = config.schedule.density_interval if config.density else 0
        r1_every = config.schedule.r1_interval if config.gamma else 0
        g = build_optimizer(lazy(config.generator_lr, config.betas, density_every), self.generator.parameters())
        d = build_optimizer(lazy(config.discriminator_lr, config.betas, r1_every), self.discriminator.parameters())
        judged: list[nn.Module] = [self.discriminator, self.generator]  # the generator's w_avg moves with the former
        phases = [Phase("g", [self.generator], g, self.weights, self._generator_losses, first=first)]
        if density_every:
            weights = {"density": float(density_every)}
            phases.append(Phase("density", [self.generator], g, weights, self._density, density_every, first))
        phases.append(Phase("d", judged, d, {"real": 1.0, "fake": 1.0}, self._discriminator_losses))
        if r1_every:
            phases.append(Phase("r1", [self.discriminator], d, {"r1": float(r1_every)}, self._r1, r1_every))
        return phases

    def _latents(self, batch: Batch, draw: Draw, phase: str) -> tuple[Tensor, Tensor]:
        """z (B, z_dim) and rendering labels (B, 25), as many as the micro-batch has images."""
        rng, image = draw.generator(f"latents of {phase}"), batch["image"]
        z = torch.randn(len(image), self.generator.config.z_dim, generator=rng)
        return send(z, image), send(sample_labels(self.labels, len(image), rng), image)

    def _generate(
        self, batch: Batch, draw: Draw, phase: str, *, update_w_avg: bool = False
    ) -> tuple[Synthesis, Tensor]:
        """Generated images and their labels."""
        z, c = self._latents(batch, draw, phase)
        view = losses.generate(
            self.generator,
            z,
            c,
            self.now,
            swap=send(torch.rand(len(z), 1, generator=draw.generator(f"swap of {phase}")), z),
            uniforms=draw.generator(f"render of {phase}", z.device),
            noise_mode=self.config.noise_mode,
            rng=draw.generator(f"noise of {phase}", z.device),
            update_w_avg=update_w_avg,
        )
        return view, c

    def _generator_losses(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        self.discriminator.requires_grad_(False)
        terms: dict[str, Tensor] = {}
        if self.weights["adv"]:
            view, c = self._generate(batch, draw, "g")
            terms["adv"] = losses.generator_main(self.discriminator, view, c, self.now).loss.mean()
        if self.supervised and any(self.weights[name] for name in self.supervised.weights):
            terms |= self.supervised(batch, draw)
        return terms

    def _density(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        z, c = self._latents(batch, draw, "density")
        rng = draw.generator("points of density")
        points = 2 * torch.rand(len(z), DENSITY_POINTS, 3, generator=rng) - 1
        offsets = DENSITY_OFFSET * torch.randn(points.shape, generator=rng)
        term = losses.density_regularization(
            self.generator,
            z,
            c,
            self.now,
            swap=send(torch.rand((), generator=rng), z),
            points=send(points, z),
            offsets=send(offsets, z),
            weight=self.config.density,
            noise_mode=self.config.noise_mode,
            rng=draw.generator("noise of density", z.device),
        )
        return {"density": term}

    def _discriminator_losses(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        self.discriminator.requires_grad_(True)
        with torch.no_grad():
            view, c = self._generate(batch, draw, "d", update_w_avg=True)
        found = losses.discriminator_main(self.discriminator, view, c, batch["image"], batch["c"], self.now)
        assert found.real is not None and found.fake is not None
        return {"real": real_logistic(found.real), "fake": fake_logistic(found.fake)}

    def _r1(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        self.discriminator.requires_grad_(True)
        found = losses.discriminator_r1(
            self.discriminator, batch["image"], batch["c"], self.now, gamma=self.config.gamma
        )
        return {"r1": found.loss.mean()}


def progress(step: int, steps: int) -> float:
    """0 before the first of `steps`, 1 after the last, linear between; 0 steps jump."""
    if step < 0 or steps == 0:
        return float(step >= 0)
    return min(step / steps, 1.0)


def lazy(lr: float, betas: list[float], interval: int) -> OptimizerConfig:
    """Adam, corrected for a regularisation every `interval` steps; 0: there is none."""
    if interval:
        lr, (first, second) = losses.lazy_adam(lr, (betas[0], betas[1]), interval)
        betas = [first, second]
    return OptimizerConfig("adam", lr=lr, betas=betas)


@torch.no_grad()
def scene_preview(generator: TriPlaneGenerator, z: Tensor) -> Tensor:
    """Rows of six for each z (B, z_dim), under the canonical pose: images from the three `YAWS`, then their depths."""
    mode = generator.training
    generator.eval()
    front = canonical_label(generator.config.avg_camera_radius).to(z).expand(len(z), -1)
    ws = generator.mapping(z, front)
    views = [generator.synthesis(ws, level_label(generator, yaw, front)) for yaw in YAWS]
    generator.train(mode)
    depths = [shown_depth(generator, view.image_depth) for view in views]
    return torch.stack([view.image for view in views] + depths, 1).flatten(0, 1)
