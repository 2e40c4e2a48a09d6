"""An infinite order through a data set in which everything depends on the seed and the position alone.

Position p is visit p % length of epoch p // length, and every epoch has a permutation of its own. Micro-batch m of step
s takes `size` positions from (s * num_micro_batches + m) * size on, whichever process asks. So a restart needs only the
step, and the number of processes changes nothing.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Visit:
    """One image to load: its index in the data set, and whether to mirror it."""

    index: int
    mirrored: bool


@dataclass(frozen=True)
class Order:
    """The order of visits of one training run.

    Attributes:
        length: images in the data set.
        seed: of the run.
        size: images in a micro-batch.
        num_micro_batches: in a step, over all processes.
        mirror: whether each visit mirrors its image with probability 1/2.
    """

    length: int
    seed: int
    size: int
    num_micro_batches: int = 1
    mirror: bool = False

    def __post_init__(self) -> None:
        for name in ("length", "size", "num_micro_batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} of the sampling order is {getattr(self, name)}, expected at least 1")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed {self.seed} is outside of [0, 2^31)")

    def visits(self, step: int, micro_batch: int = 0) -> list[Visit]:
        """What one micro-batch of one step loads."""
        if step < 0 or not 0 <= micro_batch < self.num_micro_batches:
            raise ValueError(f"there is no micro-batch {micro_batch} of {self.num_micro_batches} in step {step}")
        start = (step * self.num_micro_batches + micro_batch) * self.size
        return [self.visit(position) for position in range(start, start + self.size)]

    def visit(self, position: int) -> Visit:
        """The visit at one position of the infinite order."""
        epoch, place = divmod(position, self.length)
        permutation, flips = _epoch(self.seed, epoch, self.length)
        return Visit(int(permutation[place]), self.mirror and bool(flips[place]))


def indices(seed: int, step: int, count: int, length: int) -> list[int]:
    """Indices of the `count` images of one step, in a data set of `length`."""
    return [visit.index for visit in Order(length, seed, count).visits(step)]


def collate(samples: list[dict[str, Any]], *, pin: bool = False) -> dict[str, Any]:
    """Stack a list of items: tensors along a new first axis, numbers to a tensor, the rest to lists.

    Args:
        pin: put stacked tensors into pinned memory, from which a GPU copies while it computes; it needs one.
    """
    if not samples:
        raise ValueError("there is nothing to collate: the list of samples is empty")
    return {key: _stack([sample[key] for sample in samples], pin) for key in samples[0]}


def _stack(values: list[Any], pin: bool) -> Any:
    if isinstance(values[0], Tensor):
        size, dtype = (len(values), *values[0].shape), values[0].dtype
        return torch.stack(values, out=torch.empty(size, dtype=dtype, pin_memory=pin))
    if isinstance(values[0], int | float):
        return torch.tensor(values)
    return values


@lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, length: int) -> tuple[Tensor, Tensor]:
    """Permutation (length,) and fair coin flips (length,) of one epoch: a pure function, kept for its neighbours."""
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0]))
    return torch.randperm(length, generator=generator), torch.rand(length, generator=generator) < 0.5
