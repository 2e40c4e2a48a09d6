"""Where the mix helps (Fig. 9): errors of novel views at places that the input camera saw, and at those it did not."""

from collections.abc import Sequence
from typing import Any

import torch
from eg3d.cameras import split_label
from eg3d.rendering.rays import rays
from torch import Tensor

from goae.data.heads import Part
from goae.evaluation.intervals import mean_intervals
from goae.evaluation.protocols import Batch, Images, Task, read_batch
from goae.models.goae import GOAE
from goae.models.occlusion import seen_points, surface_points

PLANES = ("w_plus", "no_mix", "mix")  # of the code, refined everywhere, refined where the mask says so
REGIONS = ("seen", "hidden", "background")


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
