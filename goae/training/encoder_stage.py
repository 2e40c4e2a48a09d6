"""Stage 1: an encoder and its latent discriminator (paper, Sec. 4.1 and App. A).

The geometry-aware encoder's discriminator is the canonical one; its rivals train by the same phases with other terms.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from eg3d.cameras import canonical_label
from eg3d.transfer import send
from torch import Tensor, nn

from goae.losses import adversarial, latent
from goae.losses.image import ImageLosses, ImageWeights
from goae.models.discriminator import CodePool, LatentDiscriminator
from goae.models.latent_inverter import LatentInverter
from goae.training.background import BackgroundConfig, BackgroundDepth
from goae.training.buffers import kept_buffers
from goae.training.loop import FitConfig
from goae.training.optim import OptimizerConfig, build_optimizer
from goae.training.phases import Batch, Draw, Phase
from goae.training.preview import COLUMNS, preview

Schedule = Callable[[int], int]  # step -> stage of progressive training


@dataclass
class LatentAdversaryConfig:
    """How D_Wc is trained (Eq. 2)."""

    gamma: float = 10.0  # weight of R1, Eq. 2
    r1_every: int = 16  # lazy regularisation; 1: with every update
    rows: str = "all_active"  # which fake codes D sees: all_active rows, or one random_row per image
    pool: int = 50  # history of codes; 0: none
    real_pose: str = "canonical"  # condition of the mapping network behind real codes: canonical (W_c) | images (w)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig("adam", lr=2e-5))

    def __post_init__(self) -> None:
        if self.rows not in ("all_active", "random_row"):
            raise ValueError(f"adversary.rows is {self.rows!r}; expected all_active or random_row")
        if self.real_pose not in ("canonical", "images"):
            raise ValueError(f"adversary.real_pose is {self.real_pose!r}; expected canonical or images")


@dataclass
class EncoderStageConfig:
    """Stage 1; the defaults are the paper's for faces."""

    fit: FitConfig = field(default_factory=lambda: FitConfig(steps=1_000_000, batch_size=3))
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig("ranger", lr=1e-4))
    weights: ImageWeights = field(default_factory=ImageWeights)
    adv: float = 0.05  # lambda 4
    bg: float = 5.0  # lambda 5
    dw: float = 0.001  # lambda 6
    dw_norm: str = "norm"  # of w_i - w_0: norm, un-squared, per row | mse
    stage_steps: list[int] = field(default_factory=lambda: [10_000, 20_000, 30_000])  # base, coarse, mid, fine
    adversary: LatentAdversaryConfig = field(default_factory=LatentAdversaryConfig)
    background: BackgroundConfig = field(default_factory=BackgroundConfig)
    neural_resolution: int = 0  # raw render while training; 0: the generator's own

    def __post_init__(self) -> None:
        if len(self.stage_steps) != 3 or sorted(self.stage_steps) != self.stage_steps:
            raise ValueError(f"stage_steps are {self.stage_steps}; expected three rising step numbers")
        latent.check_norm("dw_norm", self.dw_norm)


class EncoderStage:
    """Per step: D_Wc (and lazily R1) on codes, then the encoder with D_Wc frozen."""

    name = "encoder"
    main = "encoder"
    preview_columns = COLUMNS

    def __init__(
        self,
        goae: LatentInverter,
        discriminator: LatentDiscriminator,
        image_losses: ImageLosses,
        background: BackgroundDepth | None,
        config: EncoderStageConfig,
        schedule: Schedule,
    ) -> None:
        """`goae` need not have a second stage; `schedule` unlocks its encoder's rows."""
        self.goae, self.discriminator, self.image_losses = goae, discriminator, image_losses
        self.background, self.config, self.schedule = background, config, schedule
        self.modules: dict[str, nn.Module] = {"encoder": goae.encoder, "discriminator": discriminator}
        self.level = self.trained_level = 0
        slots = config.fit.batch_size // config.fit.micro
        self.pools = [(CodePool(config.adversary.pool), CodePool(config.adversary.pool)) for _ in range(slots)]
        self.phases = self._phases()

    def begin(self, step: int) -> None:
        """Train mode, and the progressive level of `step` (App. A)."""
        self.level = self.schedule(step)
        self.trained_level = self.schedule(max(step - 1, 0))  # of the last update: other rows are untrained yet
        self.goae.encoder.train()
        self.discriminator.train()

    @property
    def complete(self) -> bool:
        """Tell whether the last update was at the last level."""
        return self.trained_level == self.goae.encoder.last_stage

    def preview(self, batch: Batch) -> Tensor:
        """Input, W+ inversion at the level that is trained, two more views, depth."""
        return preview(self.goae, batch, refine=False, level=self.trained_level)

    def slot_state(self) -> dict[int, Any]:
        """The code pools of all slots; those of slots that other processes work on are empty here."""
        return {i: [p.state_dict() for p in pair] for i, pair in enumerate(self.pools)}

    def load_slot_state(self, state: dict[int, Any]) -> None:
        """Put the pools back."""
        for slot, pair in state.items():
            for pool, saved in zip(self.pools[slot], pair, strict=True):
                pool.load_state_dict(saved)

    def _phases(self) -> list[Phase]:
        adversary = self.config.adversary
        phases = []
        if self.config.adv:
            optimizer = build_optimizer(adversary.optimizer, self.discriminator.parameters())
            every = adversary.r1_every
            phases = [
                Phase("d", [self.discriminator], optimizer, {"real": 1.0, "fake": 1.0}, self._discriminator_losses),
                Phase("r1", [self.discriminator], optimizer, {"r1": float(every)}, self._r1, every),
            ]
        background = self.config.background.weights(self.config.bg)
        weights = self.config.weights.as_dict() | background | {"adv": self.config.adv, "dw": self.config.dw}
        optimizer = build_optimizer(self.config.optimizer, self.goae.encoder.parameters())
        return [*phases, Phase("e", [self.goae.encoder], optimizer, weights, self._encoder_losses)]

    def _rows(self) -> int:
        """How many rows of ws are codes of their own now."""
        return self.goae.encoder.active_rows(self.level)

    def _real_codes(self, batch: Batch, draw: Draw) -> Tensor:
        """w_c ~ W_c: noise mapped under the canonical pose, or w ~ W under the poses of the images, (B, w_dim)."""
        size, device = len(batch["image"]), batch["image"].device
        rng = draw.generator("real codes")
        generator = self.goae.generator
        z = send(torch.randn(size, generator.config.z_dim, generator=rng), device)
        canonical = self.config.adversary.real_pose == "canonical"
        pose = send(canonical_label(), device).expand(size, -1) if canonical else batch["c"]
        return generator.mapping(z, pose)[:, 0]

    @torch.no_grad()
    def _codes(self, batch: Batch, draw: Draw) -> tuple[Tensor, Tensor]:
        """Real and fake codes for D_Wc, through the history pools of this slot."""
        with kept_buffers(self.goae.encoder):
            ws = self.goae.encode(self.goae.encoder_input(batch["image"]), stage=self.level)
        fake = ws[:, : self._rows()]
        if self.config.adversary.rows == "random_row":
            pick = torch.randint(fake.shape[1], (len(fake),), generator=draw.generator("row"))
            fake = fake[torch.arange(len(fake), device=fake.device), send(pick, fake.device)][:, None]
        real_pool, fake_pool = self.pools[draw.slot]
        real = real_pool.exchange(self._real_codes(batch, draw), draw.generator("real pool"))
        return real, fake_pool.exchange(fake.flatten(0, 1), draw.generator("fake pool"))

    def _discriminator_losses(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        real, fake = self._codes(batch, draw)
        logits_real, logits_fake = self.discriminator(real), self.discriminator(fake)
        return {"real": adversarial.real_logistic(logits_real), "fake": adversarial.fake_logistic(logits_fake)}

    def _r1(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        real = self._real_codes(batch, draw)
        return {"r1": adversarial.r1_penalty(self.discriminator, real, self.config.adversary.gamma)}

    def _encoder_losses(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        image, c = batch["image"], batch["c"]
        uniforms = draw.generator("render", image.device)
        resolution = self.config.neural_resolution or None
        code = self.goae.invert_w(image, c, stage=self.level, resolution=resolution, uniforms=uniforms)
        ws = code.ws
        terms = self.image_losses(code.view.image, image)
        rows = self._rows()
        if self.config.adv:
            terms["adv"] = adversarial.encoder_adversarial(self.discriminator, ws, rows)
        if self.background and draw.step % self.config.background.every == 0:
            terms |= self.background(code.planes, ws, uniforms, resolution)
        if self.config.dw and rows > 1:
            terms["dw"] = latent.delta_w(ws, rows, self.config.dw_norm)
        return terms
