"""Occlusion-aware mix of tri-planes (paper, Sec. 4.3 and App. A, Eq. 8, 9, 12): pure functions of depth and planes.

The depth of the input view gives the surface points the camera sees; their projections on the planes mark the texels
that keep the refined planes. Rays sample the planes with a pitch of 1.2 to 1.5 texels when there is one ray for two
texels, so the strict mask of Eq. 12 has holes. The paper does not say how it closes them. Here the depth is sampled
densely and the mask is closed by a 3x3 binary closing (`close="morph"`); the released code blurs, thresholds and blurs
again (`"blur"`); `"none"` is Eq. 12 to the letter. A dense depth costs sixteen renders; `depth_rays="silhouettes"`
renders every fourth ray along each axis, interpolates between them, and renders the rays that lie across a silhouette.

Where a plane looks is read from the generator's axes. The released generators have (x, y), (x, z), (z, x): no plane
spans y and z, so the third mask is the transpose of the second.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from eg3d.cameras import join_label, split_label
from eg3d.rendering.planes import project
from eg3d.transfer import send
from torch import Tensor
from torch.nn.functional import conv2d, grid_sample, interpolate, max_pool2d, pad

# The sizes of the released code: 128 x 128 rays and a 9 x 9 blur on planes of 256 x 256 texels.
RELEASED_PLANE_RESOLUTION = 256
RELEASED_KERNEL = 9
WINDOW = 128  # rays along each axis that are rendered at once
COARSE = 4  # rays of the dense map for one of the coarse map, along each axis


@dataclass
class MixConfig:
    """Which texels keep the refined planes. The defaults are the paper's; `preset("official")` has the release's."""

    planes: str = "xyz"  # xyz: each plane its own mask; xy: plane 0 masked, the others refined whole; none: no mixing
    close: str = "morph"  # morph: 3x3 binary closing; blur: blur, threshold, blur (soft); none: strict
    sigma: float | None = 1.5  # of both blurs, in texels; None: drawn from U(1, 2) for each image and blur
    threshold: float = 0.35  # between the two blurs
    kernel: int | None = None  # of the blurs, odd, in texels; None: 9 on 256² planes, scaled to others, at least 3
    oob: str = "drop"  # points outside the cube: drop, or clamp onto its border
    depth_density: float = 2.0  # rays per texel along each axis; the release has 0.5
    depth_resolution: int | None = None  # rays along each axis; None: depth_density times the plane resolution
    depth_rays: str = "dense"  # dense: all are rendered; silhouettes: one of 16 and those at jumps, others interpolated
    depth_jump: float = 4.0  # silhouettes: neighbouring depths that differ by more texels are not interpolated
    depth_from: str = "F*"  # the planes whose depth is used: F* (refined) or w+
    input_view: str = "mix"  # what the reconstruction of the input view is rendered from: mix or F*

    def __post_init__(self) -> None:
        choices = {
            "planes": ("xyz", "xy", "none"),
            "close": ("morph", "blur", "none"),
            "oob": ("drop", "clamp"),
            "depth_rays": ("dense", "silhouettes"),
            "depth_from": ("F*", "w+"),
            "input_view": ("mix", "F*"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"mix.{name} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}")
        if self.sigma is not None and self.sigma <= 0:
            raise ValueError(f"mix.sigma is {self.sigma}; expected a positive number, or null for a random one")
        if not 0 <= self.threshold < 1:
            raise ValueError(f"mix.threshold is {self.threshold}; expected a number in [0, 1)")
        if self.kernel is not None and (self.kernel < 1 or self.kernel % 2 == 0):
            raise ValueError(f"mix.kernel is {self.kernel}; expected a positive odd number, or null")
        if self.depth_density <= 0:
            raise ValueError(f"mix.depth_density is {self.depth_density}; expected a positive number")
        if self.depth_resolution is not None and self.depth_resolution < 1:
            raise ValueError(f"mix.depth_resolution is {self.depth_resolution}; expected a positive number, or null")
        if not self.depth_jump >= 0:
            raise ValueError(f"mix.depth_jump is {self.depth_jump}; expected a number of texels, at least 0")

    def kernel_for(self, plane_resolution: int) -> int:
        """Width of the blur in texels of planes of this resolution."""
        if self.kernel is not None:
            return self.kernel
        return 2 * max(1, round(RELEASED_KERNEL // 2 * plane_resolution / RELEASED_PLANE_RESOLUTION)) + 1

    def depth_resolution_for(self, plane_resolution: int) -> int:
        """Rays along each axis of the depth map from which the mask is made."""
        return self.depth_resolution or max(1, round(self.depth_density * plane_resolution))


def window_label(c: Tensor, row: int, column: int, windows: int) -> Tensor:
    """The camera of window (row, column) when the image of cameras c (B, 25) is cut into windows x windows parts.

    Normalised intrinsics of the part: focal lengths and skew times `windows`, principal point shifted with it.
    """
    cam2world, intrinsics = split_label(c)
    scaled = intrinsics.clone()
    scaled[:, :2] *= windows
    scaled[:, 0, 2] -= column
    scaled[:, 1, 2] -= row
    return join_label(cam2world, scaled)


def dense_depth(depth_under: Callable[[Tensor, int], Tensor], c: Tensor, resolution: int) -> Tensor:
    """Depth of resolution² rays, rendered in windows of at most 128² rays so that memory stays that of one render.

    Args:
        depth_under: cameras (B, 25) and rays n along each axis -> depth along the ray, (B, 1, n, n).
        c: (B, 25) labels.
    Returns: (B, 1, resolution, resolution).
    """
    windows = next(k for k in range(1, resolution + 1) if resolution % k == 0 and resolution // k <= WINDOW)
    if windows == 1:
        return depth_under(c, resolution)
    size = resolution // windows
    rows = [
        torch.cat([depth_under(window_label(c, row, column, windows), size) for column in range(windows)], -1)
        for row in range(windows)
    ]
    return torch.cat(rows, -2)


def silhouette_depth(
    depth_under: Callable[[Tensor, int], Tensor],
    depth_at: Callable[[int, Tensor], Tensor],
    c: Tensor,
    resolution: int,
    *,
    jump: float,
) -> Tensor:
    """Depth of resolution² rays: interpolated from a coarse map, but for the rays at jumps, which are rendered.

    Args:
        depth_under, c: as for `dense_depth`, of the coarse map.
        depth_at: number of an image and pixels (M,) of its dense map, row by row -> their depths, (M,).
        jump: scene units; between neighbours of the coarse map that differ by more, rays are rendered.
    Returns: (B, 1, resolution, resolution).
    """
    coarse = dense_depth(depth_under, c, max(1, round(resolution / COARSE)))
    depth = interpolate(coarse, (resolution, resolution), mode="bilinear", align_corners=False)
    broken = jumps(coarse, resolution, jump).flatten(1)
    counts = broken.sum(1).tolist()  # a GPU is waited for once: how many rays there are decides what is launched
    for image, (row, count) in enumerate(zip(depth.flatten(1), counts, strict=True)):
        if count:
            for pixels in broken[image].nonzero_static(size=count)[:, 0].split(WINDOW**2):
                row[pixels] = depth_at(image, pixels).to(row)
    return depth


def jumps(depth: Tensor, resolution: int, jump: float) -> Tensor:
    """Mark where a depth map (B, 1, n, n) must not be interpolated: between depths that differ by more.

    Returns: (B, 1, resolution, resolution) of booleans: whether the four depths around that pixel differ by > `jump`.
    """
    around = pad(depth, [1] * 4, mode="replicate")
    spread = max_pool2d(around, 2, 1) + max_pool2d(-around, 2, 1)  # of the (n + 1)² gaps between pixel centres
    pixel = torch.arange(resolution, device=depth.device)
    gap = ((2 * pixel + 1) * depth.shape[-1] + resolution) // (2 * resolution)
    return (spread > jump)[..., gap[:, None], gap]


def surface_points(depth: Tensor, ray_origins: Tensor, ray_directions: Tensor) -> Tensor:
    """The visible points V: X = o + D d for unit-length d, which is Eq. 8 with D as distance along the ray.

    Args:
        depth: (B, 1, N, N), distance along the ray, not camera z.
        ray_origins, ray_directions: (B, N·N, 3), row-major over the pixels.
    Returns: (B, N·N, 3) in scene units.
    """
    if depth.shape[-2] * depth.shape[-1] != ray_origins.shape[1]:
        raise ValueError(f"depth of shape {tuple(depth.shape)} does not fit {ray_origins.shape[1]} rays per image")
    return ray_origins + depth.flatten(1).unsqueeze(-1) * ray_directions


def texel_hits(points: Tensor, *, axes: str, resolution: int, box_warp: float = 1.0, oob: str = "drop") -> Tensor:
    """Project points on the planes and mark the texels they fall into (the tri-Mask of Eq. 12, before any closing).

    A coordinate a in [-box_warp/2, box_warp/2] falls into texel floor(R (a / box_warp + 1/2)): the texel that a nearest
    lookup with `align_corners=False` reads. The first coordinate of a plane runs along columns, the second along rows.

    Args:
        points: (B, M, 3) in scene units.
        axes: index pairs of the planes, e.g. "xy,xz,zx".
        resolution: texels R along each axis of a plane.
        box_warp: side of the cube the planes span.
        oob: what happens to a point outside that square: "drop" it, or "clamp" it onto the border.
    Returns: (B, 3, 1, R, R) of zeros and ones in the dtype of the points.
    """
    position = resolution * (project(points, axes) / box_warp + 0.5)  # (B, 3, M, 2)
    inside = torch.isfinite(position).all(-1)
    if oob == "drop":
        inside = inside & (position >= 0).all(-1) & (position < resolution).all(-1)
    column, row = position.nan_to_num().clamp(0, resolution - 1).floor().long().unbind(-1)
    hits = points.new_zeros(*column.shape[:2], resolution * resolution)
    hits.scatter_reduce_(-1, row * resolution + column, inside.to(hits.dtype), "amax")
    return hits.view(*column.shape[:2], 1, resolution, resolution)


def binary_closing(mask: Tensor) -> Tensor:
    """Fill holes of a binary mask (..., R, R): 3x3 dilation, then 3x3 erosion; no texel of the mask is lost."""
    flat = mask.flatten(0, -4) if mask.ndim > 3 else mask
    closed = -max_pool2d(-max_pool2d(flat, 3, 1, 1), 3, 1, 1)  # the erosion counts what lies outside as ones
    return closed.view(mask.shape)


def gaussian_blur(mask: Tensor, sigma: Tensor, kernel: int) -> Tensor:
    """Blur (B, Q, 1, R, R) by a separable Gaussian of `kernel` texels with reflected borders; sigma: (B,) in texels."""
    batch, planes = mask.shape[:2]
    offset = torch.arange(kernel, dtype=mask.dtype, device=mask.device) - kernel // 2
    taps = torch.exp(-(offset**2) / (2 * send(sigma, mask)[:, None] ** 2))
    taps = (taps / taps.sum(1, keepdim=True)).repeat_interleave(planes, 0)[:, None, None]  # (B·Q, 1, 1, kernel)
    x = pad(mask.reshape(1, batch * planes, *mask.shape[-2:]), [kernel // 2] * 4, mode="reflect")
    x = conv2d(conv2d(x, taps, groups=batch * planes), taps.mT, groups=batch * planes)
    return x.view(mask.shape)


def soft_closing(mask: Tensor, sigmas: Tensor, *, kernel: int, threshold: float) -> Tensor:
    """The released code's closing: blur, threshold, blur again; (B, Q, 1, R, R) in [0, 1]. sigmas: (B, 2)."""
    first, second = sigmas.unbind(1)
    closed = (gaussian_blur(mask, first, kernel) > threshold).to(mask.dtype)
    return gaussian_blur(closed, second, kernel).clamp(0, 1)


def draw_sigmas(config: MixConfig, batch: int, rng: torch.Generator | None = None) -> Tensor:
    """The two blur widths of every image, (B, 2): the configured one, or draws from U(1, 2) with the CPU generator."""
    if config.sigma is not None:
        return torch.full((batch, 2), config.sigma)
    if rng is None:
        raise ValueError("mix.sigma is null, a random blur: pass a torch.Generator, or set mix.sigma to a number")
    return 1 + torch.rand(batch, 2, generator=rng)


def visibility_masks(
    points: Tensor,
    config: MixConfig,
    *,
    axes: str,
    resolution: int,
    box_warp: float = 1.0,
    sigmas: Tensor | None = None,
) -> Tensor:
    """Where each plane keeps the refined features: the tri-Mask of Eq. 12, closed as configured.

    Args:
        points: surface points seen by the input camera, (B, M, 3).
        sigmas: (B, 2) widths of the two blurs of `close="blur"`; None: the configured width.
    Returns: (B, 3, 1, R, R) in [0, 1], 1 is seen. Planes that are not mixed are all ones. No gradient.
    Raises: ValueError if blurs are random and no sigmas are given.
    """
    with torch.no_grad():
        if config.planes == "none":
            return points.new_ones(points.shape[0], 3, 1, resolution, resolution)
        mask = texel_hits(points, axes=axes, resolution=resolution, box_warp=box_warp, oob=config.oob)
        if config.planes == "xy":
            mask = mask[:, :1]
        if config.close == "morph":
            mask = binary_closing(mask)
        elif config.close == "blur":
            sigmas = draw_sigmas(config, len(points)) if sigmas is None else sigmas
            mask = soft_closing(mask, sigmas, kernel=config.kernel_for(resolution), threshold=config.threshold)
        if config.planes == "xy":
            mask = torch.cat([mask, torch.ones_like(mask), torch.ones_like(mask)], 1)
        return mask


def mix_planes(planes_w: Tensor, planes_f: Tensor, visibility: Tensor) -> Tensor:
    """Keep refined planes where the input camera sees the surface, W+ planes elsewhere (Eq. 9, operative form Eq. 12).

    Args:
        planes_w, planes_f: (B, 3, C, R, R), same dtype.
        visibility: in [0, 1], 1 is seen; broadcasts to the planes.
    Returns: (B, 3, C, R, R) in the dtype of the planes.
    Raises: ValueError if the shapes disagree.
    """
    if planes_w.shape != planes_f.shape:
        raise ValueError(f"planes disagree in shape: {tuple(planes_w.shape)} and {tuple(planes_f.shape)}")
    if visibility.ndim != 5 or visibility.shape[-2:] != planes_w.shape[-2:]:
        raise ValueError(f"visibility of shape {tuple(visibility.shape)} does not fit planes {tuple(planes_w.shape)}")
    visibility = visibility.to(planes_f.dtype)
    return visibility * planes_f + (1 - visibility) * planes_w


def seen_points(points: Tensor, depth: Tensor, c: Tensor, *, tolerance: float = 0.02) -> Tensor:
    """Which points the camera c sees: those no further from it than `tolerance` from its depth map (as in Fig. 9).

    Args:
        points: (B, M, 3) in scene units.
        depth: (B, 1, N, N) under c, distance along the ray; looked up bilinearly.
        c: (B, 25) labels.
    Returns: (B, M) of booleans; a point outside the image is not seen.
    """
    cam2world, intrinsics = split_label(c)
    offset = points - cam2world[:, None, :3, 3]
    in_camera = offset @ cam2world[:, :3, :3]  # R^T of every point
    pixel = (in_camera / in_camera[..., 2:]) @ intrinsics.transpose(1, 2)
    position = 2 * pixel[..., :2] - 1
    found = grid_sample(depth, position[:, None], padding_mode="border", align_corners=False)[:, 0, 0]
    inside = (position.abs() <= 1).all(-1) & (in_camera[..., 2] > 0)
    return inside & ((offset.norm(dim=-1) - found).abs() < tolerance)
