"""GOAE: encoder, feature alignment and occlusion-aware mix around a frozen generator (paper, Fig. 4, Sec. 4).

    ws = E(I) + w_avg;  I_w+ = R(G(ws), c);  F* = AFA(I, I_w+, F);  T_mix = T_F* ⊙ M + T_w+ ⊙ (1 − M)

The generator is cut behind the block that gives F. The skip image that crosses the cut beside F is carried unchanged,
and the rows above the cut are those of ws. Every step is a method with tensors in and out, so that the encoder's
training, the refiner's training and the Inverter take the steps they need.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from eg3d.cameras import split_label
from eg3d.generator import TriPlaneGenerator
from eg3d.nn.backbone import Features
from eg3d.rendering.rays import rays
from eg3d.rendering.sampling import Uniforms
from torch import Tensor

from goae.models.afa import AFA
from goae.models.encoder import Encoder
from goae.models.latent_inverter import Coded, LatentInverter, Randomness, View, refuse_differences
from goae.models.occlusion import (
    MixConfig,
    dense_depth,
    draw_sigmas,
    mix_planes,
    silhouette_depth,
    surface_points,
    visibility_masks,
)


@dataclass
class GOAEConfig:
    """Choices of the method that have no weights; see `preset`.

    A default is what a stored configuration without that choice means, so choices that came later keep it.
    """

    mix: MixConfig = field(default_factory=MixConfig)
    edit_late_rows: str = "edited"  # rows above F when rendering an edited F*: edited (paper) or source (release)
    edit_glass_comp: float = 0.0  # share of the glasses direction taken off other face edits; release 0.8

    def __post_init__(self) -> None:
        if self.edit_late_rows not in ("edited", "source"):
            raise ValueError(f"goae.edit_late_rows is {self.edit_late_rows!r}; expected edited or source")


PRESETS = ("paper", "official")


def preset(name: str) -> GOAEConfig:
    """The method as the paper tells it, or as its released inference code does it; each has its `afa.variant`, too.

    Raises: ValueError for another name.
    """
    if name not in PRESETS:
        raise ValueError(f"preset is {name!r}; expected one of {', '.join(PRESETS)}")
    if name == "paper":
        return GOAEConfig(mix=MixConfig(depth_rays="silhouettes"))
    mix = MixConfig(planes="xy", close="blur", sigma=None, oob="clamp", depth_density=0.5, input_view="F*")
    return GOAEConfig(mix=mix, edit_late_rows="source", edit_glass_comp=0.8)


class Refined(NamedTuple):
    """After feature alignment: F* with the skip image of ws, and planes_f (B, 3, C, P, P)."""

    features: Features
    planes: Tensor


class Mixed(NamedTuple):
    """planes_mix (B, 3, C, P, P) and the visibility (B, 3, 1, P, P) it was mixed by."""

    planes: Tensor
    visibility: Tensor


class GOAEOutput(NamedTuple):
    """Everything on the way to the reconstruction `view` of the input camera."""

    ws: Tensor
    image_w: Tensor
    features: Features
    planes_w: Tensor
    planes_f: Tensor
    planes_mix: Tensor
    visibility: Tensor
    view: View


class GOAE(LatentInverter):
    """Encoder and feature alignment around a generator that stays frozen and in evaluation mode."""

    encoder: Encoder

    def __init__(self, generator: TriPlaneGenerator, encoder: Encoder, afa: AFA, config: GOAEConfig) -> None:
        """Raises: ValueError if sizes of the three networks do not fit."""
        super().__init__(generator, encoder)
        self.afa, self.config = afa, config
        self._check()

    @property
    def feature_resolution(self) -> int:
        """Side of F: the generator is cut behind its block of this resolution, 32 in the released sizes."""
        return self.afa.config.feature_resolution

    def refine(self, image: Tensor, image_w: Tensor, features: Features) -> Features:
        """F* = γ ⊙ F + β (Eq. 7), beside the unchanged skip image.

        Args:
            image, image_w: input and its W+ reconstruction, (B, 3, H, H) in [-1, 1] at the generator's resolution.
        """
        return Features(self.afa(image, image_w, features.x).features, features.skip)

    def refine_planes(self, image: Tensor, code: Coded) -> Refined:
        """F* and the refined planes of an inversion by ws."""
        features = self.refine(image, code.view.image, code.features)
        return Refined(features, self.generator.planes(features, code.ws))

    def visibility(
        self,
        planes_w: Tensor,
        planes_f: Tensor,
        c: Tensor,
        *,
        sigmas: Tensor | None = None,
        uniforms: Randomness = None,
    ) -> Tensor:
        """Which texels the input camera sees (Eq. 8 and 12), from the depth of the refined or the W+ planes.

        Args:
            sigmas: (B, 2) blur widths, see `visibility_masks`; None: as configured, random ones drawn with seed 0.
            uniforms: of the depth render; `Uniforms` have to be of its resolution, and of dense rays.
        Returns: (B, 3, 1, P, P) in [0, 1]. No gradient.
        Raises: ValueError if `Uniforms` are given and only some rays are rendered.
        """
        mix, rendering = self.config.mix, self.generator.config.rendering
        size = planes_f.shape[-1]
        resolution = mix.depth_resolution_for(size)
        planes = (planes_f if mix.depth_from == "F*" else planes_w).detach()

        def depth_under(camera: Tensor, rays_per_axis: int) -> Tensor:
            return self.generator.render_depth(planes, camera, resolution=rays_per_axis, uniforms=uniforms)

        def depth_at(image: int, pixels: Tensor) -> Tensor:
            chosen = (x[image : image + 1, pixels] for x in (origins, directions))
            return self.generator.depth_along(planes[image : image + 1], *chosen, uniforms=uniforms).flatten()

        if mix.depth_rays != "dense" and isinstance(uniforms, Uniforms):
            raise ValueError(
                f"uniforms are given for a number of rays, but with mix.depth_rays={mix.depth_rays} it depends on the "
                "depth; give a torch.Generator or None, or set mix.depth_rays=dense"
            )
        if mix.planes == "none":
            return planes.new_ones(len(planes), 3, 1, size, size)
        if sigmas is None:
            sigmas = draw_sigmas(mix, len(c), torch.Generator().manual_seed(0))
        axes, box_warp = rendering.plane_axes, rendering.box_warp
        with torch.no_grad():
            origins, directions = rays(*split_label(c), resolution)
            if mix.depth_rays == "dense":
                depth = dense_depth(depth_under, c, resolution)
            else:
                depth = silhouette_depth(depth_under, depth_at, c, resolution, jump=mix.depth_jump * box_warp / size)
            points = surface_points(depth, origins, directions)
            return visibility_masks(points, mix, axes=axes, resolution=size, box_warp=box_warp, sigmas=sigmas)

    def mix(
        self,
        planes_w: Tensor,
        planes_f: Tensor,
        c: Tensor,
        *,
        sigmas: Tensor | None = None,
        uniforms: Randomness = None,
    ) -> Mixed:
        """T_mix = T_F* ⊙ tri-Mask + T_w+ ⊙ (1 − tri-Mask) (Eq. 9, 12); gradients flow through the planes only."""
        visibility = self.visibility(planes_w, planes_f, c, sigmas=sigmas, uniforms=uniforms)
        return Mixed(mix_planes(planes_w, planes_f, visibility), visibility)

    def edit_features(self, features_star: Tensor, ws: Tensor, ws_edited: Tensor) -> tuple[Features, Features]:
        """F̂* = F* + F^ŵ − F^w (Eq. 10).

        Args:
            features_star: F* of the inversion, (B, C, r, r).
            ws, ws_edited: codes before and after the edit, (B, num_ws, w_dim).
        Returns: features of ws_edited, and F̂* beside the skip image of ws_edited.
        """
        source = self.generator.features(ws, self.feature_resolution)
        edited = self.generator.features(ws_edited, self.feature_resolution)
        return edited, Features(features_star + (edited.x - source.x), edited.skip)

    def forward(
        self,
        image: Tensor,
        c: Tensor,
        *,
        encoder_image: Tensor | None = None,
        sigmas: Tensor | None = None,
        uniforms: Randomness = None,
    ) -> GOAEOutput:
        """Invert images (B, 3, H, H) in [-1, 1] under cameras c (B, 25); arguments as in the steps above."""
        code = self.invert_w(image, c, encoder_image=encoder_image, uniforms=uniforms)
        refined = self.refine_planes(image, code)
        mixed = self.mix(code.planes, refined.planes, c, sigmas=sigmas, uniforms=uniforms)
        shown = mixed.planes if self.config.mix.input_view == "mix" else refined.planes
        view = self.render(shown, code.ws, c, uniforms=uniforms)
        planes = code.planes, refined.planes, mixed.planes
        return GOAEOutput(code.ws, code.view.image, refined.features, *planes, mixed.visibility, view)

    def _check(self) -> None:
        generator, afa, cut = self.generator.config, self.afa.config, self.feature_resolution
        facts = [
            ("afa.image_resolution and generator.image_resolution", afa.image_resolution, generator.image_resolution)
        ]
        too_late = [f"afa.feature_resolution {cut} is not below {generator.plane_resolution}"]
        refuse_differences(facts, too_late if cut >= generator.plane_resolution else [])
