"""Identity term L_ID of the paper, Eq. 5 and 13."""

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import cosine_similarity


def identity(image: Tensor, target: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor:
    """λ3 term of Eq. 13: batch mean of 1 − cos(embed(I_w+), embed(I)); no gradient through the target.

    Args:
        image, target: (B, 3, H, W) in [-1, 1].
        embed: images -> (B, D), e.g. the embedding of a face recognition network.
    """
    return 1 - cosine_similarity(embed(image), embed(target).detach(), dim=1).mean()
