"""The validation curve: image metrics of the current weights on a few held-out images."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from goae.evaluation.image_metrics import mse, psnr
from goae.losses.reconstruction import pooled
from goae.models.goae import GOAE


class Validation:
    """Calling it gives the mean metrics of the GOAE in hand, in evaluation mode and without randomness."""

    def __init__(
        self,
        goae: GOAE,
        samples: Sequence[dict[str, Any]],
        lpips: Callable[[Tensor, Tensor], Tensor] | None,
        *,
        resolution: int,
        batch_size: int,
        refine: bool,
    ) -> None:
        """`refine` measures the full method, else the W+ inversion; images are pooled to `resolution`."""
        if not samples:
            raise ValueError("there are no validation images: check data.validation and validation.num_images")
        self.goae, self.samples, self.lpips = goae, samples, lpips
        self.resolution, self.batch_size, self.refine = resolution, batch_size, refine

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        self.goae.eval()
        sums: dict[str, float] = {}
        for start in range(0, len(self.samples), self.batch_size):
            chunk = self.samples[start : start + self.batch_size]
            device = self.goae.generator.w_avg.device
            image = torch.stack([s["image"] for s in chunk]).to(device)
            c = torch.stack([s["c"] for s in chunk]).to(device)
            for name, value in self._metrics(image, c).items():
                sums[name] = sums.get(name, 0.0) + float(value.sum())
        return {name: value / len(self.samples) for name, value in sums.items()}

    def _metrics(self, image: Tensor, c: Tensor) -> dict[str, Tensor]:
        shown = self.goae(image, c).view.image if self.refine else self.goae.invert_w(image, c).view.image
        shown, image = pooled(shown.clamp(-1, 1), self.resolution), pooled(image, self.resolution)
        values = {"mse": mse(shown, image), "psnr": psnr(shown, image)}
        return values | ({"lpips": self.lpips(shown, image)} if self.lpips else {})
