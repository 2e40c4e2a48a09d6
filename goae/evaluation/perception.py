"""What a perception network sees of procedural heads, against what they are."""

import torch
from torch import Tensor


def head_iou(background: Tensor, parts: Tensor) -> Tensor:
    """Intersection over union of the seen and the true head, per image: (B,); 1 where neither shows one.

    Args:
        background: (B, 1, R, R), 1 is seen as background.
        parts: (B, 1, R, R) labels, 0 is background.
    """
    seen, true = (background < 0.5).flatten(1), (parts > 0).flatten(1)
    union = (seen | true).sum(1)
    return torch.where(union > 0, (seen & true).sum(1) / union.clamp_min(1), 1.0)


def balanced_accuracy(positive: Tensor, true: Tensor) -> Tensor:
    """Mean of the share of true and the share of false ones that are told right, per column; 0.5 is chance.

    Args:
        positive, true: (N, A) bool.
    Returns: (A,) float64; a column that holds but one kind has the share of that kind.
    """
    shares = []
    for kind in (true, ~true):
        count, right = kind.sum(0), ((positive == true) & kind).sum(0)
        shares.append(torch.where(count > 0, right / count.clamp_min(1), torch.nan))
    return torch.stack(shares).double().nanmean(0)
