"""The method without its second stage, "Ours-w+" in the paper's Table 1."""

import torch
from torch import Tensor

from goae.models.latent_inverter import Coded, LatentInverter, View


class EncoderOnly:
    """Inversion by ws alone; the same two calls as `Inverter`."""

    def __init__(self, goae: LatentInverter) -> None:
        self.goae = goae.eval()

    @torch.inference_mode()
    def invert(self, image: Tensor, c: Tensor) -> Coded:
        """(B, 3, H, H) in [-1, 1] and labels (B, 25) to codes and planes."""
        return self.goae.invert_w(image.to(self._device), c.to(self._device))

    @torch.inference_mode()
    def render(self, inversion: Coded, c: Tensor) -> View:
        """Render from cameras (B, 25)."""
        return self.goae.render(inversion.planes, inversion.ws, c.to(self._device))

    @property
    def _device(self) -> torch.device:
        return self.goae.generator.w_avg.device
