"""Background depth term L_BG (paper, Eq. 4): keeps the background of the inversion at the depth of canonical codes.

Depth and mask come from the inverted image rendered under the canonical front view. The paper leaves open whether
D_avg is one number or a map, and how the norm is reduced; both are choices here, one number and the mean of squares
over all pixels being the default.
"""

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

KINDS = ("mse", "masked_mse", "l2norm")


def background_depth(depth: Tensor, background: Tensor, d_avg: Tensor | float, kind: str = "mse") -> Tensor:
    """Eq. 4: L_BG = ‖D ⊙ M − D_avg ⊙ M‖_2. Foreground pixels get no gradient, and the mask gets none.

    Args:
        depth: D, (B, 1, R, R), distance along the ray in the front view.
        background: M, (B, 1, R, R), 1 is background.
        d_avg: one number, or a map that broadcasts to the depth.
        kind: "mse", mean of squares over all pixels; "masked_mse", over background pixels; "l2norm", the norm over an
            image, averaged over the batch.
    Raises: ValueError if the shapes disagree or the kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"kind of L_BG is {kind!r}; expected one of {', '.join(KINDS)}")
    if depth.shape != background.shape:
        raise ValueError(f"depth {tuple(depth.shape)} and background mask {tuple(background.shape)} disagree in shape")
    mask = background.detach().to(depth.dtype)
    difference = (depth - d_avg) * mask
    if kind == "mse":
        return difference.square().mean()
    if kind == "masked_mse":
        return difference.square().sum() / mask.sum().clamp_min(1)
    return torch.linalg.vector_norm(difference.flatten(1), dim=1).mean()


def background_mask(background: Tensor, resolution: int, erode: int = 1) -> Tensor:
    """Bring a parsed background mask to the depth map's size and shrink it, so that silhouette depths stay out.

    Args:
        background: (B, 1, H, W), 1 is background.
        resolution: R of the depth map; nearest lookup.
        erode: pixels of the depth map taken off the mask's border; the image's border takes off none.
    Returns: (B, 1, R, R) without gradient.
    """
    if erode < 0:
        raise ValueError(f"cannot erode a background mask by {erode} pixels")
    mask = interpolate(background.detach(), (resolution, resolution), mode="nearest")
    return -max_pool2d(-mask, 2 * erode + 1, 1, erode) if erode else mask
