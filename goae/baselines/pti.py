"""PTI on EG3D: pivot in W, then a generator tuned to the image (paper, App. B; Roich et al., 2022).

Iterations are the paper's, 450 and 350; the other numbers are PTI's official ones: Adam with 5e-3 and the schedule of
StyleGAN2's projector on the perceptual distance alone for the pivot, then see `tuning.py`. Unlike there, the pivot's
code is not perturbed and the network's stored noise not optimised: EG3D's images hardly depend on that noise.
"""

from dataclasses import dataclass, field

import torch
from eg3d.generator import TriPlaneGenerator
from torch import Tensor

from goae.baselines.inputs import check_input
from goae.baselines.optimization import Distance, LatentOptimization, OptimizationConfig, Progress
from goae.baselines.tuning import GeneratorTuning, Tuned, TuningConfig
from goae.models.latent_inverter import View


@dataclass
class PTIConfig:
    """Both halves."""

    pivot: OptimizationConfig = field(default_factory=lambda: OptimizationConfig(steps=450, lr=5e-3, l2=0.0, lpips=1.0))
    tuning: TuningConfig = field(default_factory=TuningConfig)


class PTI:
    """A pivot and a tuned generator for each image; the same two calls as `Inverter`.

    One image is worked on after the other, so that none depends on its batch.
    """

    def __init__(
        self,
        generator: TriPlaneGenerator,
        config: PTIConfig,
        *,
        lpips: Distance | None,
        progress: Progress = lambda step, losses: None,
    ) -> None:
        """Arguments as of `LatentOptimization`; `progress` hears the steps of each half, from 1 on."""
        self.generator, self.config = generator, config
        self.pivot = LatentOptimization(generator, config.pivot, space="w", lpips=lpips, progress=progress)
        self.tuning = GeneratorTuning(generator, config.tuning, lpips=lpips, progress=progress)

    def invert(self, image: Tensor, c: Tensor) -> Tuned:
        """Fit images (B, 3, H, H) in [-1, 1], of the generator's size, as seen by cameras c (B, 25).

        Raises: ValueError if sizes do not fit; FloatingPointError if a loss is not finite.
        """
        image, c = check_input(image, c, self.generator)
        codes, tuned = [], []
        for i in range(len(image)):
            one, label = image[i : i + 1].clone(), c[i : i + 1].clone()
            ws = self.pivot.optimize(one, label)
            codes.append(ws)
            tuned.append(self.tuning.tune(ws, label, one))
        weights, steps = zip(*tuned, strict=True)
        return Tuned(torch.cat(codes), c, c, weights, self.config.pivot.steps, steps, self.tuning.generator_hash)

    def render(self, inversion: Tuned, c: Tensor) -> View:
        """Render from cameras (B, 25); one camera serves all images, and one image all cameras."""
        return self.tuning.render(inversion, c)
