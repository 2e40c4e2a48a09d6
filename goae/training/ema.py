"""Exponential moving average of a module's weights; the paper uses none, so it is off unless configured."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

STATISTICS = ("running_mean", "running_var")  # of BatchNorm


class WeightAverage:
    """Follows `module`: parameters and BatchNorm's statistics are averaged, other buffers are copied.

    Statistics of the module's own activations would not fit the averaged weights.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module, decay: float) -> None:
        """Move the average one step towards `module`; it keeps `decay` of itself."""
        for average, current in zip(self.module.parameters(), module.parameters(), strict=True):
            average.lerp_(current.detach(), 1 - decay)
        for (name, kept), buffer in zip(self.module.named_buffers(), module.buffers(), strict=True):
            if name.endswith(STATISTICS):
                kept.lerp_(buffer, 1 - decay)
            else:
                kept.copy_(buffer)

    @contextmanager
    def lent_to(self, module: nn.Module) -> Iterator[None]:
        """Inside, `module` has the averaged weights; afterwards its own again."""
        own = {name: value.clone() for name, value in module.state_dict().items()}
        module.load_state_dict(self.module.state_dict())
        try:
            yield
        finally:
            module.load_state_dict(own)
