"""What an edit does to inverted heads, seen from several cameras (paper, Sec. 4.4; Fig. 10, 17 and 18)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from goae.evaluation.intervals import mean_interval, paired_difference


class Seen(NamedTuple):
    """N heads from V cameras each: scores (N, V) of an attribute, and identities (N, V, E), unit vectors."""

    scores: Tensor
    identities: Tensor


def edit_record(before: Seen, after: Seen, yaws: Sequence[float], *, sign: float, num: int) -> dict[str, Any]:
    """The numbers of an edit, with intervals over heads.

    Args:
        yaws: of the V cameras, degrees; the one nearest to 0 is the front.
        sign: of the change that is wanted.
        num: of the bootstrap's resamples.
    Returns: `views`: yaw -> `change` of the attribute towards what is wanted, in the scores' unit, and `identity`, the
        cosine between the head and its edit; `spread`: standard deviation of the change over the views of a head;
        `alike`: cosine between the front and the other views, `alike_unedited` the same of the heads as inverted,
        `alike_lost` the second minus the first.
    Raises: ValueError for fewer than two views or heads.
    """
    if len(yaws) < 2 or len(before.scores) < 2:
        raise ValueError(f"{len(yaws)} views of {len(before.scores)} heads; expected at least two of each")
    change = sign * (after.scores - before.scores)
    identity = (after.identities * before.identities).sum(-1)
    views = {
        f"{yaw:g}": mean_interval(change[:, i], num=num).as_record("change")
        | mean_interval(identity[:, i], num=num).as_record("identity")
        for i, yaw in enumerate(yaws)
    }
    front = min(range(len(yaws)), key=lambda i: abs(yaws[i]))
    edited, plain = _alike(after.identities, front), _alike(before.identities, front)
    record: dict[str, Any] = {"views": views} | mean_interval(change.std(1), num=num).as_record("spread")
    record |= mean_interval(edited, num=num).as_record("alike")
    record |= mean_interval(plain, num=num).as_record("alike_unedited")
    return record | paired_difference(plain, edited, num=num).as_record("alike_lost")


def _alike(identities: Tensor, front: int) -> Tensor:
    """Mean cosine (N,) between the front and the other views."""
    others = [i for i in range(identities.shape[1]) if i != front]
    return torch.einsum("ne,nve->nv", identities[:, front], identities[:, others]).mean(1)
