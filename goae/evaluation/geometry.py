"""Geometry of what a method renders against that of procedural heads, whose true depth is known.

Not the paper's geometry error (Sec. 5.1), which compares normalised depth with that of a reconstruction network.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d


def depth_errors(depth: Tensor, true_depth: Tensor, parts: Tensor) -> Tensor:
    """Mean absolute difference along the ray inside the true head, scene units: one number per image.

    A ray of a smaller render goes through the middle of k x k pixels of the truth. It is compared with their mean, and
    counts where all of them show the head.

    Args:
        depth: (B, 1, r, r), along the ray.
        true_depth, parts: (B, 1, k r, k r); parts are labels, 0 is background.
    Returns: (B,); not-a-number where no ray counts.
    Raises: ValueError if the truth's size is no multiple of the render's.
    """
    size, side = true_depth.shape[-1], depth.shape[-1]
    if size % side or true_depth.shape != parts.shape or len(depth) != len(parts):
        raise ValueError(
            f"depth {tuple(depth.shape)} cannot be compared with true depth {tuple(true_depth.shape)} and parts "
            f"{tuple(parts.shape)}; expected equal batches, and a truth of a multiple of the render's size"
        )
    step = size // side
    true = avg_pool2d(true_depth.to(depth), step)
    head = avg_pool2d((parts > 0).to(depth), step) == 1
    off = torch.where(head, (depth - true).abs(), torch.zeros_like(depth))
    return off.flatten(1).sum(1) / head.flatten(1).sum(1)
