"""Where encoders put the background (Fig. 7): its depth in front views of inverted test images."""

from typing import Any

import torch
from torch import Tensor

from goae.baselines.encoder_only import EncoderOnly
from goae.data.datasets import PosedImages
from goae.evaluation.conditions import Segment, depth_gap, label_at
from goae.evaluation.intervals import mean_interval
from goae.losses.depth import background_mask


def background_record(
    method: EncoderOnly, images: PosedImages, segment: Segment, *, num: int, batch_size: int, erode: int
) -> dict[str, Any]:
    """Means over the first `num` images, with intervals, in scene units: `depth_gap` and `background_depth`.

    The former is the mean depth of the background less that of the head. Heads whose front view shows no background, or
    nothing else, are counted in `num_undefined` and left out.
    Raises: ValueError if fewer than two are left.
    """
    parts = []
    for start in range(0, min(num, len(images)), batch_size):
        batch = [images[i] for i in range(start, min(start + batch_size, num, len(images)))]
        image, c = (torch.stack([item[key] for item in batch]) for key in ("image", "c"))
        parts.append(front_depths(method, image, c, segment, erode))
    depths = torch.cat(parts, dim=1)
    known = ~depths.isnan().any(0)
    if int(known.sum()) < 2:
        raise ValueError(
            f"of {depths.shape[1]} front views {int(known.sum())} show head and background; give more images"
        )
    record: dict[str, Any] = {"num_images": int(known.sum()), "num_undefined": int((~known).sum())}
    for name, values in zip(("depth_gap", "background_depth"), depths, strict=True):
        record |= mean_interval(values[known]).as_record(name)
    return record


@torch.inference_mode()
def front_depths(method: EncoderOnly, image: Tensor, c: Tensor, segment: Segment, erode: int) -> Tensor:
    """Depth gap and mean depth of the background of each inversion's front view, (2, B); not-a-number without one."""
    inversion = method.invert(image, c)
    front = method.render(inversion, label_at(0.0, method.goae.generator).expand(len(c), -1))
    depth, background = front.image_depth, segment(front.image.clamp(-1, 1), front.image_depth)
    mask = background_mask(background, depth.shape[-1], erode)
    behind = (depth * mask).flatten(1).sum(1) / mask.flatten(1).sum(1)
    return torch.stack([depth_gap(depth, background, erode), behind]).cpu()
