"""Reconstruction terms (paper, Eq. 5 and 13): L_rec = λ1 ‖I_w+ − I‖_2 + λ2 L_LPIPS + λ3 L_ID.

The paper writes an L2 norm; as in the encoders it builds on, the term is the mean squared error, which is what
its λ1 = 1 fits. Renders and targets are compared at half their size, 512 -> 256 by averaging.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, mse_loss


def pooled(image: Tensor, resolution: int) -> Tensor:
    """Average (B, C, H, H) down to (B, C, resolution, resolution), 512 -> 256 by 2x2 means.

    Raises: ValueError unless the image is square and its size a multiple of `resolution`.
    """
    height, width = image.shape[-2:]
    if height != width or height % resolution:
        raise ValueError(f"cannot pool a {height} x {width} image to {resolution} x {resolution} by whole blocks")
    return image if height == resolution else adaptive_avg_pool2d(image, resolution)


def mean_squared(image: Tensor, target: Tensor) -> Tensor:
    """λ1 term of Eq. 13: mean over batch, channels and pixels of (I_w+ − I)²; images of one shape in [-1, 1]."""
    if image.shape != target.shape:
        raise ValueError(f"images disagree in shape: {tuple(image.shape)} and {tuple(target.shape)}")
    return mse_loss(image, target)


def perceptual(image: Tensor, target: Tensor, distance: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """λ2 term of Eq. 13: batch mean of a perceptual distance; `distance` maps two image batches in [-1, 1] to (B,)."""
    return distance(image, target).mean()
