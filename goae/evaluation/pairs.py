"""Pairs of pictures that a meter should tell apart: the same person from another view, another person from that view.

Both partners of a picture have its expression and are seen by one camera, so that nothing but the person differs
between them.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Between = Callable[[Tensor, Tensor], Tensor]  # rows (n,) and rows (n,) of the pictures to distances (n,)


class Pairs(NamedTuple):
    """Rows (n,) of pictures, of their partners, and the numbers of the persons whom `first` and `same` show."""

    first: Tensor
    same: Tensor
    other: Tensor
    person: Tensor


def view_pairs(person: Tensor, expression: Tensor, view: Tensor, *, seed: int = 0) -> Pairs:
    """All pairs of views of one person with one expression, each beside a person drawn at random.

    Args:
        person, expression, view: (N,) integers; every person has each expression from each view once.
    Raises: ValueError for fewer than two persons or views, or pictures that are missing.
    """
    people, expressions, views = person.unique(), expression.unique(), view.unique()
    if len(people) < 2 or len(views) < 2 or len(person) != len(people) * len(expressions) * len(views):
        raise ValueError(
            f"{len(person)} pictures of {len(people)} people, {len(expressions)} expressions and {len(views)} views; "
            f"expected two people and views or more, and every combination once"
        )
    order = torch.argsort((person * (1 + expressions.max()) + expression) * (1 + views.max()) + view)
    rows = order.view(len(people), len(expressions), len(views))
    one, two = torch.triu_indices(len(views), len(views), 1)
    rng = torch.Generator().manual_seed(seed)
    shape = (len(people), len(expressions), len(one))
    shift = torch.randint(1, len(people), shape, generator=rng)
    stranger = (torch.arange(len(people)).view(-1, 1, 1) + shift) % len(people)
    same_face = torch.arange(len(expressions)).view(1, -1, 1).expand(shape)
    first, same = rows[:, :, one].flatten(), rows[:, :, two].flatten()
    other = rows[stranger, same_face, two.expand(shape)].flatten()
    return Pairs(first, same, other, person[first])


def area_under_curve(same: Tensor, other: Tensor) -> Tensor:
    """The share of (same, other) in which the distance to the same person is the smaller; ties count half.

    Args:
        same, other: distances (n,) and (m,).
    Returns: a scalar in [0, 1], float64; 0.5 is chance.
    Raises: ValueError if a distance is not finite.
    """
    if not (torch.isfinite(same).all() and torch.isfinite(other).all()):
        raise ValueError("distances of pairs are not all finite")
    other = other.sort().values
    upper, lower = (torch.searchsorted(other, same.contiguous(), right=right).double() for right in (True, False))
    return (len(other) - (upper + lower) / 2).mean() / len(other)


def between_features(features: Tensor) -> Between:
    """Euclidean distances of features (N, D); of unit vectors they rank pairs as the cosine does."""
    return lambda a, b: (features[a] - features[b]).norm(dim=1)


def between_images(images: Tensor, distance: Callable[[Tensor, Tensor], Tensor], *, batch_size: int) -> Between:
    """Distances of images (N, 3, R, R) by a function of two batches of them."""

    def measure(a: Tensor, b: Tensor) -> Tensor:
        chunks = zip(a.split(batch_size), b.split(batch_size), strict=True)
        return torch.cat([distance(images[i], images[j]).cpu() for i, j in chunks])

    return measure
