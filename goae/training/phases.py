"""What a training stage is made of: phases, each an optimiser and the losses that it follows."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Draw:
    """Where a micro-batch stands; all its randomness follows from these numbers, on any number of processes."""

    seed: int
    step: int
    slot: int  # index of the micro-batch within the step's whole batch

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh generator, the same whenever it is asked for; different purposes give independent numbers."""
        return torch.Generator(device).manual_seed(self.number(purpose))

    def number(self, purpose: str) -> int:
        """A 32-bit seed from (seed, step, slot, purpose): all that torch's CPU generator takes of a seed."""
        entropy = [self.seed, self.step, self.slot, zlib.crc32(purpose.encode())]
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])


@dataclass
class Phase:
    """One update: `losses` gives named unweighted scalars, summed with `weights`, followed by `optimizer`.

    Terms whose weight is 0 are left out by `losses`, so that they cost nothing, but for what is only logged. `every`
    is the interval in steps; the phase rests before the step `first`.
    """

    name: str
    modules: list[nn.Module]
    optimizer: torch.optim.Optimizer
    weights: Mapping[str, float]
    losses: Callable[[Batch, Draw], dict[str, Tensor]]
    every: int = 1
    first: int = 0

    def due(self, step: int) -> bool:
        """Whether the phase has an update at `step`."""
        return step >= self.first and step % self.every == 0


class Stage(Protocol):
    """What `fit` trains."""

    name: str
    modules: dict[str, nn.Module]  # everything trained; saved and restored by name
    phases: list[Phase]
    main: str  # the module that is exported and averaged
    preview_columns: int

    @property
    def complete(self) -> bool:
        """Tell whether all of the main module is in training; before that no weights are taken for the best."""

    def begin(self, step: int) -> None:
        """Put modules into train or eval mode and apply schedules for `step`."""

    def preview(self, batch: Batch) -> Tensor:
        """A picture of the current state: (rows * columns, 3, H, W) in [-1, 1], `preview_columns` a row."""

    def slot_state(self) -> dict[int, Any]:
        """What each micro-batch slot remembers between steps (tensors and plain values), by slot."""

    def load_slot_state(self, state: dict[int, Any]) -> None:
        """Take back what `slot_state` gave on every process together."""


def optimizers(stage: Stage) -> list[torch.optim.Optimizer]:
    """List the distinct optimisers of a stage, in order of their phases."""
    return list({id(phase.optimizer): phase.optimizer for phase in stage.phases}.values())
