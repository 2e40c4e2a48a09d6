"""An encoder before a frozen generator: image -> ws -> planes -> image (paper, Eq. 1).

    ws = E(I) + w_avg;  I_w+ = R(G(ws), c)

This is all of the encoders that GOAE is compared with, and GOAE without its second stage.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple, Self

import torch
from eg3d.generator import TriPlaneGenerator
from eg3d.nn.backbone import Features
from eg3d.rendering.sampling import Uniforms
from torch import Tensor, nn

from goae.resize import pil_bicubic

Randomness = Uniforms | torch.Generator | None  # of the samples along rays; None: midpoints, deterministic


class View(NamedTuple):
    """A rendered camera: image (B, 3, H, W), image_raw (B, 3, R, R), image_depth (B, 1, R, R) along the ray."""

    image: Tensor
    image_raw: Tensor
    image_depth: Tensor


class Coded(NamedTuple):
    """The inversion by ws alone: ws (B, num_ws, w_dim), F and skip, planes_w (B, 3, C, P, P) and I_w+."""

    ws: Tensor
    features: Features
    planes: Tensor
    view: View


class LatentEncoder(nn.Module, ABC):
    """Image -> offsets of ws from w_avg, by stages of progressive training that write ever more rows."""

    num_ws: int
    w_dim: int
    last_stage: int  # the first stage is 0

    @property
    @abstractmethod
    def image_resolution(self) -> int:
        """Side of the image that the encoder takes."""

    @abstractmethod
    def active_rows(self, stage: int) -> int:
        """How many leading rows of ws are codes of their own at `stage`, row 0 included; the others repeat row 0."""

    @abstractmethod
    def offsets(self, image: Tensor, stage: int) -> Tensor:
        """ws - w_avg (B, num_ws, w_dim) of an image (B, 3, h, h) in [-1, 1] at the encoder's resolution."""


class LatentInverter(nn.Module):
    """An encoder before a generator that stays frozen and in evaluation mode."""

    def __init__(self, generator: TriPlaneGenerator, encoder: LatentEncoder) -> None:
        """Raises: ValueError if the sizes of the two do not fit."""
        super().__init__()
        self.generator = generator.requires_grad_(False).eval()
        self.encoder = encoder
        refuse_differences(
            [
                ("rows of ws, encoder and generator", encoder.num_ws, generator.num_ws),
                ("w_dim, encoder and generator", encoder.w_dim, generator.config.w_dim),
            ]
        )

    @property
    def encoder_resolution(self) -> int:
        """Side of the image that the encoder takes: 256 in the released sizes."""
        return self.encoder.image_resolution

    @property
    def feature_resolution(self) -> int:
        """The generator is cut behind its block of this resolution, here the last one; planes do not depend on it."""
        return self.generator.config.plane_resolution

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but the generator."""
        super().train(mode)
        self.generator.eval()
        return self

    def encoder_input(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, H) at the encoder's resolution, by `pil_bicubic`; no gradients.

        Raises: ValueError unless they are square and no smaller than that.
        """
        size = self.encoder_resolution
        if image.shape[-1] != image.shape[-2] or image.shape[-1] < size:
            raise ValueError(
                f"an image has {image.shape[-2]} x {image.shape[-1]} pixels; the encoder takes square ones of at least "
                f"{size} x {size}; see encoder.backbone.image_resolution, of a rival its rival.image_resolution"
            )
        return pil_bicubic(image, size)

    def encode(self, image: Tensor, *, stage: int | None = None) -> Tensor:
        """ws = E(I) + w_avg (Eq. 11), (B, num_ws, w_dim).

        Args:
            image: (B, 3, h, h) in [-1, 1] at the encoder's resolution.
            stage: of progressive training; None: the last, which writes all rows.
        """
        return self.encoder.offsets(image, self.encoder.last_stage if stage is None else stage) + self.generator.w_avg

    def invert_w(
        self,
        image: Tensor,
        c: Tensor,
        *,
        stage: int | None = None,
        encoder_image: Tensor | None = None,
        resolution: int | None = None,
        uniforms: Randomness = None,
    ) -> Coded:
        """The inversion by ws alone, rendered under the input camera.

        Args:
            image: (B, 3, H, H) in [-1, 1].
            c: (B, 25) label of the input camera.
            encoder_image: the same image at the encoder's resolution; None: `encoder_input` of `image`.
            resolution: of the raw render; None: the generator's own.
        """
        encoder_image = self.encoder_input(image) if encoder_image is None else encoder_image
        ws = self.encode(encoder_image, stage=stage)
        features = self.generator.features(ws, self.feature_resolution)
        planes = self.generator.planes(features, ws)
        return Coded(ws, features, planes, self.render(planes, ws, c, resolution=resolution, uniforms=uniforms))

    def render(
        self, planes: Tensor, ws: Tensor, c: Tensor, *, resolution: int | None = None, uniforms: Randomness = None
    ) -> View:
        """Render planes (B, 3, C, P, P) under cameras c (B, 25); ws feeds super-resolution only."""
        rendering = self.generator.render(planes, c, resolution=resolution, uniforms=uniforms)
        image = self.generator.superresolve(rendering.image_raw, rendering.feature_image, ws)
        return View(image, rendering.image_raw, rendering.image_depth)


def refuse_differences(facts: list[tuple[str, int, int]], others: list[str] | None = None) -> None:
    """Raise a ValueError naming the sizes (what, of one network, of the other) that are not equal, and `others`."""
    wrong = [f"{what}: {ours} and {theirs}" for what, ours, theirs in facts if ours != theirs] + (others or [])
    if wrong:
        raise ValueError(f"the networks do not fit: {'; '.join(wrong)}")
