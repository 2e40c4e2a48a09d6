"""How far a number would move with other images: bootstrap intervals."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

NUM_RESAMPLES = 1000


class Estimate(NamedTuple):
    """A number and the interval that holds the middle 95 % of its values on resampled images."""

    value: float
    low: float
    high: float

    def as_record(self, name: str) -> dict[str, float | list[float]]:
        """What a file of numbers says of it: `name`, and `<name>_interval` with both ends."""
        return {name: self.value, f"{name}_interval": [self.low, self.high]}


def bootstrap(
    statistic: Callable[[Tensor], Tensor], groups: Tensor, *, num: int = NUM_RESAMPLES, seed: int = 0
) -> Estimate:
    """The statistic of all rows, and its percentile interval where whole groups are drawn with replacement.

    Args:
        statistic: row numbers (n,), repeated ones included, to a scalar.
        groups: (N,) integers; rows of one group, such as views of a person, are drawn together.
    Raises: ValueError for fewer than two groups, whose interval would have no width.
    """
    members = [torch.nonzero(groups == g).flatten() for g in groups.unique()]
    if len(members) < 2:
        raise ValueError(f"an interval needs at least two groups, but there are {len(members)}; give more images")
    rng = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(members), (num, len(members)), generator=rng)
    values = torch.stack([statistic(torch.cat([members[i] for i in row.tolist()])).double() for row in drawn])
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(float(statistic(torch.arange(len(groups)))), low, high)


def mean_interval(values: Tensor, groups: Tensor | None = None, *, num: int = NUM_RESAMPLES, seed: int = 0) -> Estimate:
    """The mean of values (N,), one group each unless `groups` (N,) are given."""
    groups = torch.arange(len(values)) if groups is None else groups
    values = values.cpu().double()
    return bootstrap(lambda rows: values[rows].mean(), groups, num=num, seed=seed)


def paired_difference(
    first: Tensor, second: Tensor, groups: Tensor | None = None, *, num: int = NUM_RESAMPLES, seed: int = 0
) -> Estimate:
    """The mean of first - second on the same rows (N,); one that excludes 0 tells the methods apart.

    Raises: ValueError unless both have the same rows.
    """
    if first.shape != second.shape:
        raise ValueError(f"pairs need the same rows, but there are {tuple(first.shape)} and {tuple(second.shape)}")
    return mean_interval(first.double() - second.double(), groups, num=num, seed=seed)


def mean_intervals(
    values: Tensor, groups: Tensor | None = None, *, num: int = NUM_RESAMPLES, seed: int = 0
) -> list[Estimate | None]:
    """`mean_interval` of every column of values (N, K), all on the same resamples; NaN takes no part.

    Returns: None for a column without a number; both ends NaN where all its numbers belong to one group.
    """
    groups = torch.arange(len(values)) if groups is None else groups
    values = values.cpu().double()
    _, group = groups.unique(return_inverse=True)
    size = int(group.max()) + 1
    found: list[Estimate | None] = []
    drawn = torch.randint(size, (num, size), generator=torch.Generator().manual_seed(seed))
    for column in values.T:
        known = ~column.isnan()
        if not known.any():
            found.append(None)
            continue
        sums, counts = torch.zeros(size).double(), torch.zeros(size).double()
        sums.index_add_(0, group[known], column[known])
        counts.index_add_(0, group[known], torch.ones(int(known.sum())).double())
        means = sums[drawn].sum(1) / counts[drawn].sum(1)
        low = high = float("nan")
        if int((counts > 0).sum()) > 1:  # a resample may hold no group with a number
            ends = torch.nanquantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64))
            low, high = ends.tolist()
        found.append(Estimate(float(column[known].mean()), low, high))
    return found
