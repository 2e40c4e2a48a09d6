"""Where the mix helps (Fig. 9): errors of novel views at places that the input camera saw, and at those it did not.

And what the mask loses when few of its rays are rendered: overlap with the mask of dense rays, and change of views.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from eg3d.cameras import split_label
from eg3d.rendering.rays import rays
from eg3d.rendering.renderer import RenderingConfig
from torch import Tensor
from torch.nn.functional import interpolate

from goae.camera.level import mirrored
from goae.data.cameras import sample_mini_labels
from goae.data.head_render import render_heads
from goae.data.heads import Part, sample_heads
from goae.evaluation.intervals import mean_intervals
from goae.evaluation.protocols import Batch, Images, Task, read_batch
from goae.models.goae import GOAE
from goae.models.occlusion import (
    COARSE,
    RELEASED_PLANE_RESOLUTION,
    MixConfig,
    dense_depth,
    mix_planes,
    seen_points,
    silhouette_depth,
    surface_points,
    visibility_masks,
)

PLANES = ("w_plus", "no_mix", "mix")  # of the code, refined everywhere, refined where the mask says so
REGIONS = ("seen", "hidden", "background")
JUMPS = (1.0, 2.0, 4.0, 8.0, math.inf)  # texels; the last interpolates everywhere
DENSITY = 2  # dense rays for a texel, along each axis


def occlusion_record(goae: GOAE, images: Images, tasks: Sequence[Task]) -> dict[str, Any]:
    """`<planes>_<region>`: mean squared errors with intervals over persons; paired, how `mix` differs from `no_mix`.

    Regions are parts of the true novel view, by true depth and part labels: of the head, what the input camera sees and
    what is hidden from it, and the background. `share_<region>`: of the pixels.

    Args:
        images: with extras `depth` and `parts`.
    """
    found = [region_errors(goae, images, task) for task in tasks]
    errors, pixels = (torch.stack(part) for part in zip(*found, strict=True))
    persons = torch.tensor([task.person for task in tasks])
    errors = torch.cat([errors, errors[:, 2:] - errors[:, 1:2]], dim=1)  # (N, planes and the difference, regions)
    names = [f"{planes}_{region}" for planes in (*PLANES, "mix_minus_no_mix") for region in REGIONS]
    record: dict[str, Any] = {"num_inputs": len(tasks), "num_persons": len(persons.unique())}
    shares = pixels.sum(0) / pixels.sum()
    record |= {f"share_{region}": float(share) for region, share in zip(REGIONS, shares, strict=True)}
    for name, estimate in zip(names, mean_intervals(errors.flatten(1), persons), strict=True):
        record |= estimate.as_record(name) if estimate is not None else {}
    return record


@torch.inference_mode()
def region_errors(goae: GOAE, images: Images, task: Task) -> tuple[Tensor, Tensor]:
    """Mean squared error of each planes in each region over all targets of a task, (3, 3), and pixels (3,)."""
    device = goae.generator.w_avg.device
    source, target = read_batch(images, [task.source], device), read_batch(images, task.targets, device)
    num = len(task.targets)
    out = goae(source["image"], source["c"])
    regions = region_masks(source, target).to(device)
    errors = []
    for planes in (out.planes_w, out.planes_f, out.planes_mix):
        shown = goae.render(planes.expand(num, *planes.shape[1:]), out.ws.expand(num, -1, -1), target["c"]).image
        squares = (shown.clamp(-1, 1) - target["image"]).square().mean(1)
        errors.append((squares[:, None] * regions).sum((0, 2, 3)) / regions.sum((0, 2, 3)))
    return torch.stack(errors).cpu().double(), regions.sum((0, 2, 3)).cpu().double()


def region_masks(source: Batch, target: Batch) -> Tensor:
    """(B, 3, R, R), one of `REGIONS` at every pixel of the targets, from the true depth of both cameras."""
    depth, num = target["depth"], len(target["c"])
    points = surface_points(depth, *rays(*split_label(target["c"]), depth.shape[-1]))
    seen = seen_points(points, source["depth"].expand(num, -1, -1, -1), source["c"].expand(num, -1))
    head = target["parts"] != Part.BACKGROUND
    seen = seen.view_as(head)
    return torch.cat([head & seen, head & ~seen, ~head], dim=1).float()


@torch.inference_mode()
def inverted_masks(goae: GOAE, inputs: Iterable[tuple[Tensor, Tensor]], size: int) -> list[dict[str, Any]]:
    """`mask_rows` of inversions, planes filled up to size² texels; views from the mirrored camera.

    Args:
        inputs: images (1, 3, H, H) and labels (1, 25).
    """
    found, device = [], goae.generator.w_avg.device
    for image, label in inputs:
        c = label.to(device)
        out = goae(image.to(device), c)
        planes_w, planes_f = (_filled(planes, size) for planes in (out.planes_w, out.planes_f))
        across = mirrored(goae.generator, c)

        def depth_under(camera: Tensor, rays_per_axis: int, planes: Tensor = planes_f) -> Tensor:
            return goae.generator.render_depth(planes, camera, resolution=rays_per_axis)

        depths, shares = sparse_depths(depth_under, c, size, goae.generator.config.rendering.box_warp)
        masks = [_mask(depth, c, size, goae.generator.config.rendering) for depth in depths]
        shown = [goae.render(mix_planes(planes_w, planes_f, mask), out.ws, across).image for mask in masks]
        found.append(_compared(masks, shares, shown))
    return mask_rows(found)


def true_masks(num: int, rendering: RenderingConfig, size: int = RELEASED_PLANE_RESOLUTION) -> list[dict[str, Any]]:
    """`mask_rows` of the surfaces of random procedural heads, which are sharp: no ray lies between two depths."""
    rng, found = torch.Generator().manual_seed(0), []
    heads, labels = sample_heads(num, rng), sample_mini_labels(num, rng)
    for number in range(num):
        head, c = heads[number : number + 1], labels[number : number + 1]

        def depth_under(camera: Tensor, rays_per_axis: int, head: Any = head) -> Tensor:
            return render_heads(head, camera, resolution=rays_per_axis, supersampling=1).depth

        depths, shares = sparse_depths(depth_under, c, size, rendering.box_warp)
        found.append(_compared([_mask(depth, c, size, rendering) for depth in depths], shares))
    return mask_rows(found)


def sparse_depths(
    depth_under: Callable[[Tensor, int], Tensor], c: Tensor, size: int, box_warp: float
) -> tuple[list[Tensor], list[float]]:
    """Depth for a mask of size² texels, of one image: of dense rays, of the coarse rays alone, and for each of `JUMPS`.

    Returns: the maps; the shares of the dense rays that each needs.
    """
    resolution = DENSITY * size
    dense, coarse = (dense_depth(depth_under, c, n) for n in (resolution, resolution // COARSE))
    depths, shares = [dense, coarse], [1.0, 1 / COARSE**2]
    for jump in JUMPS:
        asked = [resolution**2 // COARSE**2]

        def depth_at(image: int, pixels: Tensor, asked: list[int] = asked) -> Tensor:
            asked.append(len(pixels))
            return dense[image].flatten()[pixels]

        depths.append(silhouette_depth(lambda *_: coarse, depth_at, c, resolution, jump=jump * box_warp / size))
        shares.append(sum(asked) / resolution**2)
    return depths, shares


def mask_rows(found: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Sum up what each depth map of `sparse_depths` but the first gives: mean and worst over all inputs.

    `jump`: texels, null where all is interpolated, `coarse` for the coarse rays alone; `rays`: share of the dense ones;
    `iou`, `iou_worst`: overlap with the mask of dense rays, by plane; `psnr`: of views, against those of that mask.
    """
    numbers = torch.stack(list(found))  # (N, maps, rays + planes + views)
    mean, worst = numbers.mean(0).tolist(), numbers.amin(0).tolist()
    most = numbers.amax(0).tolist()
    rows = []
    names = ["coarse", *(None if math.isinf(jump) else jump for jump in JUMPS)]
    for name, (rays_, *iou, psnr), (_, *low, lowest), (most_rays, *_) in zip(names, mean, worst, most, strict=True):
        row = {"jump": name, "rays": rays_, "rays_most": most_rays, "iou": iou, "iou_worst": low}
        rows.append(row if math.isnan(psnr) else row | {"psnr": psnr, "psnr_worst": lowest})
    return rows


def _filled(planes: Tensor, size: int) -> Tensor:
    """(B, 3, C, P, P) -> (B, 3, C, size, size)."""
    filled = interpolate(planes.flatten(1, 2), (size, size), mode="bilinear", align_corners=False)
    return filled.unflatten(1, planes.shape[1:3])


def _mask(depth: Tensor, c: Tensor, size: int, rendering: RenderingConfig) -> Tensor:
    points = surface_points(depth, *rays(*split_label(c), depth.shape[-1]))
    axes, box_warp = rendering.plane_axes, rendering.box_warp
    return visibility_masks(points, MixConfig(), axes=axes, resolution=size, box_warp=box_warp)


def _compared(masks: Sequence[Tensor], shares: Sequence[float], views: Sequence[Tensor] = ()) -> Tensor:
    """Compare every map of one input with the first: (maps, 5) of rays, three overlaps, PSNR of the views or NaN."""
    rows = []
    for i in range(1, len(masks)):
        both, either = masks[i].minimum(masks[0]), masks[i].maximum(masks[0])
        iou = both.sum((0, 2, 3, 4)) / either.sum((0, 2, 3, 4))
        error = (views[i] - views[0]).square().mean().clamp(min=1e-10) if views else torch.tensor(math.nan)
        rows.append(torch.stack([torch.tensor(shares[i]), *iou.cpu(), 10 * torch.log10(4 / error.cpu())]))
    return torch.stack(rows).double()
