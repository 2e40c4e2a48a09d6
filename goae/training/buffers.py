"""Running statistics that do not depend on how micro-batches are spread over processes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def kept_buffers(module: nn.Module) -> Iterator[None]:
    """Inside, a forward pass in train mode may move running statistics; afterwards they are as before."""
    before = [b.clone() for b in module.buffers()]
    yield
    for buffer, value in zip(module.buffers(), before, strict=True):
        buffer.copy_(value)


class BufferMean:
    """Gives every micro-batch of a step the same buffers to start from, and keeps the mean of what they leave.

    Covers the floating-point buffers of the modules in train mode (BatchNorm's running statistics, the generator's
    w_avg); whole-number buffers (BatchNorm's batch counter) advance once per step. Changes are averaged, not values, so
    that buffers which are constants stay what they are to the last bit.
    """

    def __init__(self, modules: list[nn.Module]) -> None:
        self.buffers = [b for m in modules if m.training for b in m.buffers()]
        self.start = [b.clone() for b in self.buffers]
        pairs = zip(self.buffers, self.start, strict=True)
        self.moving = [(b, start, torch.zeros_like(b)) for b, start in pairs if b.is_floating_point()]

    @torch.no_grad()
    def begin(self) -> None:
        """Before a micro-batch: the buffers are those at the start of the step."""
        for buffer, start in zip(self.buffers, self.start, strict=True):
            buffer.copy_(start)

    @torch.no_grad()
    def end(self) -> None:
        """After a micro-batch: add what it changed."""
        for buffer, start, change in self.moving:
            change += buffer - start

    @torch.no_grad()
    def finish(self, share: float, sum_over_ranks: Callable[[list[Tensor]], None]) -> None:
        """At the end of the step: set the mean over all micro-batches, each of which counts `share`."""
        sum_over_ranks([change for _, _, change in self.moving])
        for buffer, start, change in self.moving:
            buffer.copy_(start + change * share)
