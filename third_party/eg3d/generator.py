"""The generator: latent and camera to image, in steps (EG3D, Sec. 4; Chan et al., CVPR 2022).

`synthesis` is nothing but the composition of the steps `features`, `planes`, `render` and `superresolve`. Each takes
and returns tensors; nothing is kept on the module between two calls, and the same arguments give the same image: noise
is the stored image by default, and a render without `uniforms` places its samples at midpoints.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from eg3d.cameras import LABEL_LENGTH, split_label
from eg3d.nn.backbone import Backbone, Features, block_resolutions
from eg3d.nn.decoder import Decoder
from eg3d.nn.layers import NOISE_MODES
from eg3d.nn.superresolution import VARIANTS, SuperResolution
from eg3d.ops.choice import chosen
from eg3d.rendering.rays import rays
from eg3d.rendering.renderer import Renderer, RenderingConfig
from eg3d.rendering.sampling import Uniforms, midpoint_uniforms, random_uniforms
from torch import Tensor, nn

FEATURE_CHANNELS = 32  # of the feature image; its first three are the raw image


@dataclass
class GeneratorConfig:
    """Sizes and settings of a generator; the defaults are those of the published 512² face model.

    Attributes:
        z_dim, c_dim, w_dim: sizes of latent, camera label and intermediate latent.
        mapping_layers: layers of the mapping network.
        image_resolution: of the final image; must be what the super-resolution makes.
        plane_resolution, plane_channels: of each of the three planes.
        channel_base, channel_max: the backbone's block at r has min(channel_base // r, channel_max) channels.
        neural_rendering_resolution: of the raw image, where `render` is given no other.
        superresolution: variant, a name in `eg3d.nn.superresolution.VARIANTS`.
        superresolution_input: resolution of its input; None takes the variant's own.
        superresolution_channels: of its two blocks; None takes the variant's own.
        sr_num_fp16_res: above 0 limits its layers to 256 and, on CUDA, runs it in half precision.
        sr_antialias: filter where its input is made smaller.
        superresolution_noise_mode: "none", "const" or "random".
        decoder_lr_mul: learning-rate multiplier of the decoder.
        c_scale: factor of the label that conditions the mapping network.
        c_gen_conditioning_zero: whether that label is replaced by zeros.
        avg_camera_radius, avg_camera_pivot: of the data; the generator does not use them, renders and checks do.
        rendering: sampling along rays.
    """

    z_dim: int = 512
    c_dim: int = LABEL_LENGTH
    w_dim: int = 512
    mapping_layers: int = 2
    image_resolution: int = 512
    plane_resolution: int = 256
    plane_channels: int = 32
    channel_base: int = 32768
    channel_max: int = 512
    neural_rendering_resolution: int = 128
    superresolution: str = "8XDC"
    superresolution_input: int | None = None
    superresolution_channels: list[int] | None = None
    sr_num_fp16_res: int = 4
    sr_antialias: bool = True
    superresolution_noise_mode: str = "none"
    decoder_lr_mul: float = 1.0
    c_scale: float = 1.0
    c_gen_conditioning_zero: bool = False
    avg_camera_radius: float = 2.7
    avg_camera_pivot: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.2])
    rendering: RenderingConfig = field(default_factory=RenderingConfig)

    def __post_init__(self) -> None:
        least = {
            **dict.fromkeys(("z_dim", "w_dim", "mapping_layers", "plane_channels", "neural_rendering_resolution"), 1),
            "c_dim": 0,
            "channel_base": self.plane_resolution,
            "channel_max": 1,
            "sr_num_fp16_res": 0,
        }
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"generator.{name} is {getattr(self, name)}, expected at least {bound}")
        block_resolutions(self.plane_resolution)
        if self.avg_camera_radius <= 0 or len(self.avg_camera_pivot) != 3:
            raise ValueError(
                f"generator.avg_camera_radius {self.avg_camera_radius} and avg_camera_pivot {self.avg_camera_pivot}: "
                "expected a radius > 0 and three numbers"
            )
        self._check_superresolution()

    def _check_superresolution(self) -> None:
        variant = VARIANTS.get(self.superresolution)
        if variant is None:
            known = ", ".join(VARIANTS)
            raise ValueError(f"generator.superresolution is {self.superresolution!r}, expected one of {known}")
        if self.superresolution_channels is not None and len(self.superresolution_channels) != 2:
            raise ValueError(f"generator.superresolution_channels is {self.superresolution_channels}, expected two")
        if self.superresolution_noise_mode not in NOISE_MODES:
            given, known = self.superresolution_noise_mode, ", ".join(NOISE_MODES)
            raise ValueError(f"generator.superresolution_noise_mode is {given!r}, expected one of {known}")
        made = (self.superresolution_input or variant.input_resolution) * variant.up * 2
        if made != self.image_resolution:
            raise ValueError(
                f"generator.image_resolution is {self.image_resolution}, but superresolution {self.superresolution} "
                f"with superresolution_input {self.superresolution_input} makes {made}"
            )


class Rendering(NamedTuple):
    """A neural rendering at R².

    image_raw: (B, 3, R, R) in about [-1, 1], the first channels of the feature image.
    feature_image: (B, 32, R, R).
    image_depth: (B, 1, R, R), distance from the camera along the ray, scene units.
    opacity: (B, 1, R, R), sum of the weights, in [0, 1].
    """

    image_raw: Tensor
    feature_image: Tensor
    image_depth: Tensor
    opacity: Tensor


class Synthesis(NamedTuple):
    """`image` (B, 3, H, W); `image_raw`, `image_depth` of the rendering; `planes` (B, 3, C, P, P); the `rendering`."""

    image: Tensor
    image_raw: Tensor
    image_depth: Tensor
    planes: Tensor
    rendering: Rendering


class TriPlaneGenerator(nn.Module):
    """Mapping, backbone, tri-plane renderer and super-resolution, under the names of the published tensors."""

    def __init__(
        self,
        config: GeneratorConfig,
        impl: str = "auto",
        *,
        renderer: str = "auto",
        recompute: bool = False,
        force_fp32: bool = False,
    ) -> None:
        """Make a generator with random weights.

        Args:
            config: sizes and settings.
            impl: of operators and renderer, "auto", "ref", "cpu" or "cuda"; see `eg3d.ops`.
            renderer: "auto", "fused", "plain" or "half", the mode of `Renderer`.
            recompute: spend time to save memory, see `Renderer`.
            force_fp32: run the super-resolution in float32 on CUDA, too.
        """
        super().__init__()
        self.config = config
        self.impl = impl = chosen(impl)
        self.force_fp32 = force_fp32
        self.backbone = Backbone(
            config.z_dim,
            config.c_dim,
            config.w_dim,
            img_resolution=config.plane_resolution,
            img_channels=3 * config.plane_channels,
            mapping_layers=config.mapping_layers,
            channel_base=config.channel_base,
            channel_max=config.channel_max,
            impl=impl,
        )
        hidden = config.superresolution_channels
        self.superresolution = SuperResolution(
            config.superresolution,
            channels=FEATURE_CHANNELS,
            w_dim=config.w_dim,
            input_resolution=config.superresolution_input,
            hidden_channels=None if hidden is None else (hidden[0], hidden[1]),
            num_fp16_res=config.sr_num_fp16_res,
            antialias=config.sr_antialias,
            noise_mode=config.superresolution_noise_mode,
            half=not force_fp32,
            impl=impl,
        )
        self.decoder = Decoder(
            config.plane_channels, out_channels=FEATURE_CHANNELS, lr_multiplier=config.decoder_lr_mul
        )
        self.renderer = Renderer(config.rendering, impl, mode=renderer, recompute=recompute)
        self.num_ws = self.backbone.num_ws

    @property
    def w_avg(self) -> Tensor:
        """The running mean of w, (w_dim,)."""
        return self.backbone.mapping.w_avg

    def row_offset(self, resolution: int) -> int:
        """The first row of ws used above the backbone's block at `resolution`: 7 for 32."""
        return self.backbone.synthesis.row_offset(resolution)

    def mapping(
        self,
        z: Tensor,
        c: Tensor,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_w_avg: bool = False,
    ) -> Tensor:
        """Latents and conditioning labels to ws.

        Args:
            z: (B, z_dim), standard normal.
            c: (B, c_dim); zeroed where the config says so, then multiplied by `c_scale`.
            truncation_psi: w becomes w_avg + psi (w - w_avg) in the first `truncation_cutoff` rows (None: in all).
            update_w_avg: move the running mean by this batch.
        Returns: (B, num_ws, w_dim) float32.
        """
        c = torch.zeros_like(c) if self.config.c_gen_conditioning_zero else c * self.config.c_scale
        return self.backbone.mapping(
            z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff, update_w_avg=update_w_avg
        )

    def features(
        self, ws: Tensor, resolution: int, *, noise_mode: str = "const", rng: torch.Generator | None = None
    ) -> Features:
        """Run the backbone up to its block at `resolution`; `.x` is GOAE's feature map F, (B, C, r, r)."""
        return self.backbone.synthesis.features(ws, resolution, noise_mode=noise_mode, rng=rng)

    def planes(
        self, features: Features, ws: Tensor, *, noise_mode: str = "const", rng: torch.Generator | None = None
    ) -> Tensor:
        """Run the backbone from `features`, which may have been changed, to the planes.

        Args:
            ws: (B, num_ws, w_dim), all rows; those from `row_offset(resolution of the features)` on are used.
        Returns: (B, 3, plane_channels, P, P).
        """
        image = self.backbone.synthesis.finish(features, ws, noise_mode=noise_mode, rng=rng)
        return image.unflatten(1, (3, self.config.plane_channels))

    def render(
        self,
        planes: Tensor,
        c: Tensor,
        *,
        resolution: int | None = None,
        uniforms: Uniforms | torch.Generator | None = None,
    ) -> Rendering:
        """Render planes as seen by cameras.

        Args:
            planes: (B, 3, plane_channels, P, P).
            c: (B, 25).
            resolution: R; None takes `neural_rendering_resolution`.
            uniforms: where the samples lie on the rays: given numbers, a generator to draw them from, or None for
                midpoints, which is deterministic.
        """
        resolution = self.config.neural_rendering_resolution if resolution is None else resolution
        found = self.renderer(planes, self.decoder, *self._rays(c, resolution, uniforms, planes.device))
        feature_image, depth, opacity = (
            x.transpose(1, 2).unflatten(2, (resolution, resolution)).contiguous() for x in found
        )
        return Rendering(feature_image[:, :3], feature_image, depth, opacity)

    def render_depth(
        self,
        planes: Tensor,
        c: Tensor,
        *,
        resolution: int | None = None,
        uniforms: Uniforms | torch.Generator | None = None,
    ) -> Tensor:
        """The `image_depth` of `render` alone, (B, 1, R, R), which costs about half; arguments as there."""
        resolution = self.config.neural_rendering_resolution if resolution is None else resolution
        found = self.renderer.depth(planes, self.decoder, *self._rays(c, resolution, uniforms, planes.device))
        return found.depth.transpose(1, 2).unflatten(2, (resolution, resolution))

    def depth_along(
        self,
        planes: Tensor,
        ray_origins: Tensor,
        ray_directions: Tensor,
        *,
        uniforms: Uniforms | torch.Generator | None = None,
    ) -> Tensor:
        """`render_depth` along any rays (B, M, 3) of length 1: (B, M, 1)."""
        if not isinstance(uniforms, Uniforms):
            batch, num_rays, _ = ray_origins.shape
            uniforms = self._uniforms(batch, num_rays, uniforms, planes.device)
        return self.renderer.depth(planes, self.decoder, ray_origins, ray_directions, uniforms).depth

    def superresolve(
        self, image_raw: Tensor, feature_image: Tensor, ws: Tensor, *, rng: torch.Generator | None = None
    ) -> Tensor:
        """The final image (B, 3, H, W) in about [-1, 1], from the raw image, the feature image and the last row of ws.

        `rng` is drawn from only where `superresolution_noise_mode` is "random".
        """
        return self.superresolution(image_raw, feature_image, ws, rng=rng)

    def released_image_raw(self, rendering: Rendering, ws: Tensor) -> Tensor:
        """The `image_raw` that the released code returns, (B, 3, R, R).

        Modules whose first block does not upsample ("4X", "2X") add that block's colours in place to the raw image they
        are given, if no resize came between: the cars at R = 64. Their discriminator was trained with the changed
        image. In all other cases this is `rendering.image_raw`.
        """
        return self.superresolution.shadow_rgb(rendering.image_raw, rendering.feature_image, ws)

    def sample(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Query points (B, K, 3), scene units: colours and features (B, K, 32) in [0, 1], raw densities (B, K, 1)."""
        return self.renderer.sample(planes, self.decoder, points)

    def synthesis(
        self,
        ws: Tensor,
        c: Tensor,
        *,
        resolution: int | None = None,
        uniforms: Uniforms | torch.Generator | None = None,
        noise_mode: str = "const",
        rng: torch.Generator | None = None,
    ) -> Synthesis:
        """All steps after `mapping`; arguments as in the steps.

        `noise_mode` and `rng` are those of the backbone's noise; the super-resolution has its own mode in the config.
        """
        features = self.features(ws, self.config.plane_resolution, noise_mode=noise_mode, rng=rng)
        planes = self.planes(features, ws)
        rendering = self.render(planes, c, resolution=resolution, uniforms=uniforms)
        image = self.superresolve(rendering.image_raw, rendering.feature_image, ws, rng=rng)
        return Synthesis(image, rendering.image_raw, rendering.image_depth, planes, rendering)

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        """The image of latents z (B, z_dim) seen by cameras c (B, 25), which also condition the mapping."""
        return self.synthesis(self.mapping(z, c), c).image

    def _rays(
        self, c: Tensor, resolution: int, uniforms: Uniforms | torch.Generator | None, device: torch.device
    ) -> tuple[Tensor, Tensor, Uniforms]:
        """Origins and directions of the rays of cameras c, and where the samples lie on them."""
        origins, directions = rays(*split_label(c), resolution)
        if not isinstance(uniforms, Uniforms):
            uniforms = self._uniforms(c.shape[0], resolution**2, uniforms, device)
        return origins, directions, uniforms

    def _uniforms(self, batch: int, num_rays: int, rng: torch.Generator | None, device: torch.device) -> Uniforms:
        cfg = self.config.rendering
        sizes = (batch, num_rays, cfg.depth_resolution, cfg.depth_resolution_importance)
        if rng is None:
            return midpoint_uniforms(*sizes, device=device)
        return random_uniforms(*sizes, rng=rng, samples_first=cfg.ray_start is None, device=device)
