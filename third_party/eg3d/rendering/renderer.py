"""The renderer: coarse samples, importance samples, marching (EG3D, Sec. 3.2 and 4).

`Renderer` places the coarse samples and finishes what the two implementations find along rays: `reference.py`, plain
PyTorch, and `fused.py`, one operator with kernels for CPU and CUDA, also on planes in half precision. The depth's clamp
is all that joins rays: its limits come from the samples of the whole batch.
"""

from dataclasses import dataclass
from typing import NamedTuple

from eg3d.nn.decoder import Decoder
from eg3d.ops import build
from eg3d.ops.choice import chosen, chosen_renderer
from eg3d.rendering import fused, reference
from eg3d.rendering.marching import Marched, Settings, clamp_depth, finish_features
from eg3d.rendering.planes import PUBLISHED_AXES, mean_features, parse_axes, round_planes
from eg3d.rendering.reference import Decode
from eg3d.rendering.sampling import Uniforms, box_limits, fill_misses, stratified_depths
from torch import Tensor, float32, nn


@dataclass
class RenderingConfig:
    """Sampling along rays; the defaults are those of the published face model.

    Attributes:
        ray_start, ray_end: limits of the depths, scene units; both None: where each ray enters and leaves the box.
        box_warp: side of the cube that the planes span, scene units.
        depth_resolution: coarse samples per ray.
        depth_resolution_importance: fine samples per ray; 0 for none.
        disparity_space_sampling: coarse samples evenly in 1 / depth; needs numbers for the limits.
        white_back: rays end on white.
        plane_axes: which two coordinates each plane sees, see `eg3d.rendering.planes`.
    """

    ray_start: float | None = 2.25
    ray_end: float | None = 3.3
    box_warp: float = 1.0
    depth_resolution: int = 48
    depth_resolution_importance: int = 48
    disparity_space_sampling: bool = False
    white_back: bool = False
    plane_axes: str = PUBLISHED_AXES

    def __post_init__(self) -> None:
        parse_axes(self.plane_axes)
        if self.box_warp <= 0:
            raise ValueError(f"rendering.box_warp is {self.box_warp}, expected > 0")
        self._check_limits()
        least = 4 if self.depth_resolution_importance else 2
        if self.depth_resolution < least:
            raise ValueError(f"rendering.depth_resolution is {self.depth_resolution}, expected at least {least}")
        if self.depth_resolution_importance < 0:
            raise ValueError(
                f"rendering.depth_resolution_importance is {self.depth_resolution_importance}, expected >= 0"
            )

    def _check_limits(self) -> None:
        start, end = self.ray_start, self.ray_end
        if (start is None) != (end is None):
            raise ValueError(f"rendering.ray_start {start} and ray_end {end}: give two numbers, or None for both")
        if start is None or end is None:
            if self.disparity_space_sampling:
                raise ValueError("rendering.disparity_space_sampling needs numbers for ray_start and ray_end, not None")
        elif not 0 < start < end:
            raise ValueError(f"rendering.ray_start {start} and ray_end {end}: expected 0 < ray_start < ray_end")


class Rays(NamedTuple):
    """What was found along each ray: `features` (B, M, C), `depth` (B, M, 1), `weight_sum` (B, M, 1)."""

    features: Tensor
    depth: Tensor
    weight_sum: Tensor


class Depths(NamedTuple):
    """A render without colours: `depth` (B, M, 1), `weight_sum` (B, M, 1)."""

    depth: Tensor
    weight_sum: Tensor


class Renderer(nn.Module):
    """Planes and rays -> features, depth and weight sum of each ray; owns no parameters and no buffers.

    Args:
        config: sampling along rays.
        impl: see `eg3d.ops.build`. Kernels take float32 (on CUDA also half-precision planes) and the `Decoder` of
            eg3d; "auto" takes the reference for anything else.
        mode: "fused" takes the kernels of `impl`, "plain" the reference, and "half" the kernels with planes rounded to
            half precision: samples are looked up in half the memory, and everything behind is float32. "auto" is what
            the process has chosen (`eg3d.ops.choice`), or else "fused".
        points_at_once, recompute: of the reference, see `reference.march_rays`.
    """

    def __init__(
        self,
        config: RenderingConfig,
        impl: str = "auto",
        *,
        mode: str = "auto",
        points_at_once: int | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.impl = chosen(impl)
        self.mode = chosen_renderer(mode)
        self.points_at_once = points_at_once
        self.recompute = recompute

    def forward(
        self, planes: Tensor, decoder: Decode, ray_origins: Tensor, ray_directions: Tensor, uniforms: Uniforms
    ) -> Rays:
        """Render all rays.

        Args:
            planes: (B, 3, C, H, W).
            ray_origins, ray_directions: (B, M, 3); directions of length 1.
            uniforms: where the samples lie, for the config's numbers of samples.
        Returns: features (B, M, D), 2 F - 1 of the composited colours; depth (B, M, 1), clamped to the range of all
            depths of the batch; weight_sum (B, M, 1) in [0, 1].
        Raises: ValueError if the uniforms do not fit, or a named `impl` cannot render these planes with this decoder.
        """
        found = self._march(planes, decoder, ray_origins, ray_directions, uniforms, with_features=True)
        features = finish_features(found.features, found.total, self.config.white_back)
        return Rays(features, clamp_depth(found.depth, found.limits), found.total)

    def depth(
        self, planes: Tensor, decoder: Decode, ray_origins: Tensor, ray_directions: Tensor, uniforms: Uniforms
    ) -> Depths:
        """What `forward` gives, without the features, at about half the cost."""
        found = self._march(planes, decoder, ray_origins, ray_directions, uniforms, with_features=False)
        return Depths(clamp_depth(found.depth, found.limits), found.total)

    def sample(self, planes: Tensor, decoder: Decode, points: Tensor) -> tuple[Tensor, Tensor]:
        """Colours (B, K, D) and raw densities (B, K, 1) at points (B, K, 3), scene units."""
        features = mean_features(planes, points, axes=self.config.plane_axes, box_warp=self.config.box_warp)
        return decoder(features)

    def _march(
        self,
        planes: Tensor,
        decoder: Decode,
        ray_origins: Tensor,
        ray_directions: Tensor,
        uniforms: Uniforms,
        *,
        with_features: bool,
    ) -> Marched:
        self._check(ray_origins, uniforms)
        depths = self._coarse_depths(ray_origins, ray_directions, uniforms.coarse)
        num_fine = self.config.depth_resolution_importance
        fine = uniforms.fine.reshape(*depths.shape[:2], -1) if num_fine else depths.new_empty(*depths.shape[:2], 0)
        backend = self._backend(planes, decoder)
        half = self.mode == "half" and planes.dtype == float32
        if half and backend != "cuda":
            planes = round_planes(planes)
        settings = Settings(
            self.config.plane_axes,
            self.config.box_warp,
            with_features=with_features,
            half_planes=half and backend == "cuda",
        )
        if isinstance(decoder, Decoder) and backend != "ref":
            return fused.march_rays(
                planes, decoder, ray_origins, ray_directions, depths, fine, settings, backend=backend
            )
        return reference.march_rays(
            planes,
            decoder,
            ray_origins,
            ray_directions,
            depths,
            fine,
            settings,
            points_at_once=self.points_at_once,
            recompute=self.recompute,
        )

    def _backend(self, planes: Tensor, decoder: Decode) -> str:
        """The implementation that renders these planes with this decoder."""
        if self.mode == "plain":
            return "ref"
        fits = fused.serves(planes, decoder)
        if self.impl in ("auto", "ref") and not fits:
            return "ref"
        backend = build.resolve(self.impl, planes.device, "render")
        if not fits:
            raise ValueError(
                f"impl is {self.impl!r}, but planes of {planes.dtype} on {planes.device} with a decoder of class "
                f"{type(decoder).__name__} are beyond the kernels; expected float32 (on CUDA also half precision, and "
                "at most 32 channels and colours) and eg3d's Decoder; use impl='auto' or 'ref'"
            )
        return backend

    def _coarse_depths(self, ray_origins: Tensor, ray_directions: Tensor, uniforms: Tensor) -> Tensor:
        cfg = self.config
        if cfg.ray_start is None or cfg.ray_end is None:
            near, far = fill_misses(*box_limits(ray_origins, ray_directions, cfg.box_warp))
            return stratified_depths(near, far, uniforms)
        return stratified_depths(cfg.ray_start, cfg.ray_end, uniforms, disparity=cfg.disparity_space_sampling)

    def _check(self, ray_origins: Tensor, uniforms: Uniforms) -> None:
        batch, num_rays, _ = ray_origins.shape
        coarse = (batch, num_rays, self.config.depth_resolution, 1)
        fine = (batch * num_rays, self.config.depth_resolution_importance)
        if tuple(uniforms.coarse.shape) != coarse or (fine[1] and tuple(uniforms.fine.shape) != fine):
            raise ValueError(
                f"uniforms have shapes {tuple(uniforms.coarse.shape)} and {tuple(uniforms.fine.shape)}, "
                f"expected {coarse} and {fine} from depth_resolution and depth_resolution_importance"
            )
