"""Stage 2: feature alignment with the occlusion-aware mix, the encoder frozen (paper, Sec. 4.2, 4.3 and App. A)."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from goae.losses import latent
from goae.losses.image import ImageLosses, ImageWeights
from goae.models.goae import GOAE
from goae.models.occlusion import draw_sigmas
from goae.training.background import BackgroundConfig, BackgroundDepth
from goae.training.loop import FitConfig
from goae.training.optim import OptimizerConfig, build_optimizer
from goae.training.phases import Batch, Draw, Phase
from goae.training.preview import COLUMNS, preview


@dataclass
class RefinerStageConfig:
    """Stage 2; the defaults are the paper's for faces. Adversarial and delta-w terms are dropped (App. A)."""

    fit: FitConfig = field(default_factory=lambda: FitConfig(steps=800_000, batch_size=2))
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig("adam", lr=2.5e-5))
    weights: ImageWeights = field(default_factory=ImageWeights)
    bg: float = 5.0  # lambda 5
    df: float = 0.0001  # lambda 7
    df_norm: str = "norm"  # of F* - F: norm, un-squared, per sample | mse
    background: BackgroundConfig = field(default_factory=BackgroundConfig)
    neural_resolution: int = 0  # raw render while training; 0: the generator's own

    def __post_init__(self) -> None:
        latent.check_norm("df_norm", self.df_norm)


class RefinerStage:
    """Per step: one update of AFA through the mixed tri-planes."""

    name = "refiner"
    main = "refiner"
    preview_columns = COLUMNS
    complete = True

    def __init__(
        self, goae: GOAE, image_losses: ImageLosses, background: BackgroundDepth | None, config: RefinerStageConfig
    ) -> None:
        self.goae, self.image_losses, self.background, self.config = goae, image_losses, background, config
        self.modules: dict[str, nn.Module] = {"refiner": goae.afa}
        weights = config.weights.as_dict() | config.background.weights(config.bg) | {"df": config.df}
        optimizer = build_optimizer(config.optimizer, goae.afa.parameters())
        self.phases = [Phase("afa", [goae.afa], optimizer, weights, self._losses)]

    def begin(self, step: int) -> None:
        """AFA in train mode; the encoder stays as stage 1 left it, in eval mode."""
        self.goae.encoder.eval().requires_grad_(False)
        self.goae.afa.train()

    def preview(self, batch: Batch) -> Tensor:
        """Input, refined inversion, two more views, depth."""
        return preview(self.goae, batch, refine=True)

    def slot_state(self) -> dict[int, Any]:
        """Nothing is remembered between steps."""
        return {}

    def load_slot_state(self, state: dict[int, Any]) -> None:
        """Nothing to take back."""

    def _losses(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        image, c = batch["image"], batch["c"]
        uniforms = draw.generator("render", image.device)
        resolution = self.config.neural_resolution or None
        with torch.no_grad():
            code = self.goae.invert_w(image, c, resolution=resolution)
        refined = self.goae.refine_planes(image, code)
        sigmas = draw_sigmas(self.goae.config.mix, len(image), draw.generator("sigmas"))
        mixed = self.goae.mix(code.planes, refined.planes, c, sigmas=sigmas)
        view = self.goae.render(mixed.planes, code.ws, c, resolution=resolution, uniforms=uniforms)
        terms = self.image_losses(view.image, image)
        if self.background and draw.step % self.config.background.every == 0:
            terms |= self.background(mixed.planes, code.ws, uniforms, resolution)
        if self.config.df:
            terms["df"] = latent.delta_features(refined.features.x, code.features.x, self.config.df_norm)
        return terms
