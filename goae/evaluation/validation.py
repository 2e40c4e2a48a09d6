"""The validation curve: image metrics of the current weights on a few held-out images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from goae.evaluation.image_metrics import mse, psnr
from goae.losses.reconstruction import pooled
from goae.models.latent_inverter import LatentInverter


class Validation:
    """Calling it with the module in training, or its average, gives mean metrics of an inverter, without randomness."""

    def __init__(
        self,
        goae: LatentInverter,
        samples: Sequence[dict[str, Any]],
        lpips: Callable[[Tensor, Tensor], Tensor] | None,
        *,
        resolution: int,
        batch_size: int,
        refine: bool,
    ) -> None:
        """`refine` measures the full method of a GOAE, else the W+ inversion; images are pooled to `resolution`."""
        if not samples:
            raise ValueError("there are no validation images: check data.validation and validation.num_images")
        self.goae, self.samples, self.lpips = goae, samples, lpips
        self.resolution, self.batch_size, self.refine = resolution, batch_size, refine

    @torch.no_grad()
    def __call__(self, module: nn.Module, *, level: int | None = None) -> dict[str, float]:
        """`level` of progressive training is the one that an encoder is measured at; None: the last."""
        with self._using(module):
            return self._measure(level)

    @contextmanager
    def _using(self, module: nn.Module) -> Iterator[None]:
        """Put `module` in the place of the inverter's own encoder or feature alignment."""
        name = "afa" if self.refine else "encoder"
        own = getattr(self.goae, name)
        setattr(self.goae, name, module)
        try:
            yield
        finally:
            setattr(self.goae, name, own)

    def _measure(self, level: int | None) -> dict[str, float]:
        self.goae.eval()
        sums: dict[str, float] = {}
        for start in range(0, len(self.samples), self.batch_size):
            chunk = self.samples[start : start + self.batch_size]
            device = self.goae.generator.w_avg.device
            image = torch.stack([s["image"] for s in chunk]).to(device)
            c = torch.stack([s["c"] for s in chunk]).to(device)
            for name, value in self._metrics(image, c, level).items():
                sums[name] = sums.get(name, 0.0) + float(value.sum())
        return {name: value / len(self.samples) for name, value in sums.items()}

    def _metrics(self, image: Tensor, c: Tensor, level: int | None) -> dict[str, Tensor]:
        shown = (self.goae(image, c) if self.refine else self.goae.invert_w(image, c, stage=level)).view.image
        shown, image = pooled(shown.clamp(-1, 1), self.resolution), pooled(image, self.resolution)
        values = {"mse": mse(shown, image), "psnr": psnr(shown, image)}
        return values | ({"lpips": self.lpips(shown, image)} if self.lpips else {})
