"""Pictures of procedural heads: sphere tracing from any camera label, shading, depth and part labels.

Heads are traced one after the other: with plain numbers for its shape, the points of one head stay in the processor's
cache, which on a CPU is much faster than one large batch. A coarse grid of cones finds where rays may start.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from eg3d.cameras import split_label
from eg3d.rendering.rays import rays
from torch import Tensor

from goae.data.head_paint import Paint, hue_color, paint
from goae.data.head_shapes import HeadShape
from goae.data.heads import Head, HeadParams, Part, describe

FAR = 3.3  # depth of the background: the end of EG3D's rays for faces
BOUND = 0.63  # every head lies in the sphere of this radius about the origin
STEP = 0.9  # share of the distance that is walked; blends make distances slightly too large
LEAST_STEP = 0.005  # of the first step, shorter than the thinnest part (the frame of the glasses) is thick
GROWTH = 1.08  # rays that pass close by the surface take longer and longer steps
CELL = 4  # side of the coarse cells, in samples

Sdf = Callable[[Tensor], Tensor]


class HeadImages(NamedTuple):
    """`image` (B, 3, R, R) float32 in [-1, 1]; `depth` (B, 1, R, R) along the unit ray, background `FAR`;
    `parts` (B, 1, R, R) uint8 of `Part`."""

    image: Tensor
    depth: Tensor
    parts: Tensor


@torch.no_grad()
def render_heads(params: HeadParams, c: Tensor, *, resolution: int = 64, supersampling: int = 2) -> HeadImages:
    """Render a batch of heads, each from its own camera label.

    Args:
        params: B heads.
        c: (B, 25) labels; the cameras must be outside of the sphere of radius `BOUND`.
        resolution, supersampling: their product must be a multiple of `CELL`.
    """
    if c.shape != (len(params), 25):
        raise ValueError(f"{len(params)} heads need labels of shape ({len(params)}, 25), given {tuple(c.shape)}")
    if resolution * supersampling % CELL:
        raise ValueError(f"resolution {resolution} x supersampling {supersampling} is not a multiple of {CELL}")
    views = [_render(head, label, resolution, supersampling) for head, label in zip(describe(params), c, strict=True)]
    return HeadImages(*(torch.stack(x) for x in zip(*views, strict=True)))


def _render(head: Head, label: Tensor, resolution: int, supersampling: int) -> tuple[Tensor, Tensor, Tensor]:
    size = resolution * supersampling
    shape = HeadShape(head)

    def sdf(points: Tensor) -> Tensor:
        return shape.distances(points).nearest()

    origin, directions = _rays(label, size)
    depth, hit = _trace(sdf, origin, directions, _start(sdf, label, size))
    color = backdrop(head, size)
    parts = torch.zeros(size * size, dtype=torch.uint8)
    index = hit.nonzero()[:, 0]
    points = origin[:, None] + depth[index] * directions[:, index]
    surface = paint(head, points, shape.distances(points))
    color[:, index] = _shade(head, sdf, points, directions[:, index], surface)
    parts[index] = surface.parts
    return _gather(color, depth, parts, resolution, supersampling)


def _rays(label: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Origin (3,) and unit directions (3, size²) of one camera."""
    origins, directions = rays(*split_label(label[None].float()), size)
    return origins[0, 0], directions[0].T.contiguous()


def _limits(origin: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave the bounding sphere, (N,); near > far for those that miss it."""
    middle = -(origin @ directions)
    half2 = BOUND**2 - (origin @ origin - middle**2)
    half = half2.clamp(min=0.0).sqrt()
    return torch.where(half2 > 0, middle - half, middle + 1.0), middle + half


def _start(sdf: Sdf, label: Tensor, size: int) -> Tensor:
    """Depth (size²,) from which each ray may start, by marching one cone per cell; infinite where a cell is empty."""
    cells = size // CELL
    origin, directions = _rays(label, cells)
    t, far = _limits(origin, directions)
    spread = 0.75 / (cells * float(label[16]))  # radius of a cell's cone at distance 1, with some slack
    result = torch.full_like(t, torch.inf)
    active = (t < far).nonzero()[:, 0]
    for _ in range(9):
        now = t[active]
        d = sdf(origin[:, None] + now * directions[:, active])
        touched = d < spread * now
        result[active[touched]] = now[touched]
        t[active] = now + STEP * (d - spread * now)
        active = active[~touched & (t[active] < far[active])]
        if not len(active):
            break
    result[active] = t[active]
    return result.reshape(cells, 1, cells, 1).expand(cells, CELL, cells, CELL).reshape(-1)


def _trace(sdf: Sdf, origin: Tensor, directions: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Sphere tracing with a least step, so that rays cross the surface; the crossing is found by a secant.

    Returns: depth (N,) and whether the surface was met (N,).
    """
    _, far = _limits(origin, directions)
    depth = torch.full_like(start, FAR)
    active = (start < far).nonzero()[:, 0]
    t, far, step = start[active], far[active], torch.zeros_like(active, dtype=start.dtype)
    before = torch.zeros_like(t)
    for i in range(40):
        d = sdf(origin[:, None] + t * directions[:, active])
        inside = d <= 0
        depth[active[inside]] = (t + step * d / (before - d).clamp(min=1e-9))[inside]
        before, step = d, (STEP * d).clamp(min=LEAST_STEP * GROWTH**i)
        t = t + step
        keep = ~inside & (t < far)
        active, t, far, step, before = active[keep], t[keep], far[keep], step[keep], before[keep]
        if not len(active):
            break
    return depth, depth < FAR


def _normals(sdf: Sdf, points: Tensor, eps: float = 1.5e-3) -> Tensor:
    """Unit gradients of the distance, from central differences."""
    gradient = [sdf(points + eps * e) - sdf(points - eps * e) for e in torch.eye(3)[..., None]]
    return torch.nn.functional.normalize(torch.stack(gradient), dim=0)


def _shade(head: Head, sdf: Sdf, points: Tensor, directions: Tensor, surface: Paint) -> Tensor:
    """Key light with a soft terminator, ambient light dimmed in hollows, a highlight. Returns: (3, N) sRGB."""
    normals = _normals(sdf, points)
    light = _light(head).to(points)
    lambert = ((normals * light[:, None]).sum(0) * 0.8 + 0.2).clamp(min=0.0)
    hollow = (sdf(points + 0.035 * normals) / 0.035).clamp(0.0, 1.0)
    half = light[:, None] - directions
    half = half / half.norm(dim=0, keepdim=True).clamp(min=1e-6)
    shine = surface.gloss * (normals * half).sum(0).clamp(min=0.0) ** 24
    ambient = head.light_ambient * (0.75 + 0.25 * normals[1]) * (0.45 + 0.55 * hollow)
    warmth = points.new_tensor([1.0 + head.light_warmth, 1.0, 1.0 - head.light_warmth])[:, None]
    shadow = 0.35 + 0.65 * hollow
    linear = (
        surface.albedo**2.2 * (ambient + head.light_power * 0.85 * lambert * shadow * warmth)
        + 0.5 * shine * lambert * shadow
    )
    return linear.clamp(0.0, 1.0) ** (1.0 / 2.2)


def _light(head: Head) -> Tensor:
    """Unit direction towards the key light."""
    yaw, pitch = torch.tensor(head.light_yaw), torch.tensor(head.light_pitch)
    return torch.stack([yaw.sin() * pitch.cos(), pitch.sin(), yaw.cos() * pitch.cos()])


def backdrop(head: Head, size: int) -> Tensor:
    """A smooth studio backdrop that stays with the picture. Returns: (3, size²) sRGB in [0, 1]."""
    grid = (torch.arange(size, dtype=torch.float32) + 0.5) / size * 2.0 - 1.0
    shade = 1.0 + head.backdrop_tilt * grid[None, :] - head.backdrop_fall * grid[:, None]
    color = torch.tensor(hue_color(head.backdrop_hue, head.backdrop_saturation, head.backdrop_shade))
    return (color[:, None] * shade.reshape(1, -1)).clamp(0.0, 1.0)


def _gather(color: Tensor, depth: Tensor, parts: Tensor, resolution: int, s: int) -> tuple[Tensor, Tensor, Tensor]:
    """Average s x s samples; a pixel's label is the most frequent of its samples, its depth the mean over those."""

    def cells(x: Tensor) -> Tensor:
        return x.reshape(-1, resolution, s, resolution, s).permute(0, 1, 3, 2, 4).flatten(3)

    image = cells(color).mean(-1) * 2.0 - 1.0
    labels = cells(parts)[0]
    votes = (labels[..., None] == torch.arange(len(Part), dtype=torch.uint8)).sum(-2)
    label = votes.argmax(-1).to(torch.uint8)
    chosen = (labels == label[..., None]).float()
    mean = (cells(depth)[0] * chosen).sum(-1) / chosen.sum(-1)
    mean = torch.where(label == Part.BACKGROUND, torch.full_like(mean, FAR), mean)
    return image, mean[None], label[None]
