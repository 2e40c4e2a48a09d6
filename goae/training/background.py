"""The background-depth term on front views of what is being trained (paper, Eq. 4)."""

from dataclasses import dataclass

import torch
from eg3d.cameras import canonical_label
from eg3d.generator import TriPlaneGenerator
from eg3d.transfer import send
from torch import Tensor

from goae.losses.depth import KINDS, background_depth, background_mask
from goae.training.canonical import Background, CanonicalStats


@dataclass
class BackgroundConfig:
    """How L_BG is measured; the paper leaves the norm and the form of D_avg open."""

    loss: str = "mse"  # mse over all pixels | masked_mse over background pixels | l2norm
    davg: str = "scalar"  # scalar | map
    erode: int = 1  # pixels by which the background mask is shrunk
    every: int = 1  # steps between measurements; the weight is multiplied by it, as that of lazy R1

    def __post_init__(self) -> None:
        if self.loss not in KINDS:
            raise ValueError(f"background.loss is {self.loss!r}; expected one of {', '.join(KINDS)}")
        if self.davg not in ("scalar", "map"):
            raise ValueError(f"background.davg is {self.davg!r}; expected scalar or map")
        if self.erode < 0 or self.every < 1:
            raise ValueError(f"background.erode is {self.erode} and every is {self.every}; expected >= 0 and >= 1")

    def weights(self, weight: float) -> dict[str, float]:
        """Weights of what `BackgroundDepth` returns; the mask's share is only logged."""
        return {"bg": weight * self.every, "bg_share": 0.0}


class BackgroundDepth:
    """L_BG of tri-planes: depth and background mask of their front view against D_avg (Sec. 4.1)."""

    def __init__(
        self,
        generator: TriPlaneGenerator,
        segment: Background,
        stats: CanonicalStats,
        config: BackgroundConfig,
    ) -> None:
        self.generator, self.segment, self.config = generator, segment, config
        self.d_avg = stats.d_avg if config.davg == "scalar" else stats.d_map

    def __call__(
        self, planes: Tensor, ws: Tensor, uniforms: torch.Generator | None, resolution: int | None = None
    ) -> dict[str, Tensor]:
        """Terms of planes (B, 3, C, P, P); ws (B, num_ws, w_dim) only feed the image that is segmented.

        Returns: `bg`, the loss, and `bg_share`, the share of pixels that the mask holds; at 0 the loss is 0 whatever
            the depth is.
        """
        c0 = send(canonical_label(), planes.device).expand(len(planes), -1)
        front = self.generator.render(planes, c0, resolution=resolution, uniforms=uniforms)
        with torch.no_grad():
            image = self.generator.superresolve(front.image_raw, front.feature_image, ws)
            background = self.segment(image, front.image_depth)
        depth = front.image_depth
        mask = background_mask(background, depth.shape[-1], self.config.erode)
        loss = background_depth(depth, mask, self._reference(depth), kind=self.config.loss)
        return {"bg": loss, "bg_share": mask.mean()}

    def _reference(self, depth: Tensor) -> Tensor:
        d_avg = send(self.d_avg, depth)
        if d_avg.ndim and d_avg.shape[-1] != depth.shape[-1]:
            d_avg = torch.nn.functional.interpolate(d_avg, depth.shape[-2:], mode="bilinear", align_corners=False)
        return d_avg
