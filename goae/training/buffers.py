"""Running statistics that do not depend on how micro-batches are spread over processes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def kept_buffers(module: nn.Module) -> Iterator[None]:
    """Inside, a forward pass in train mode may move running statistics; afterwards they are as before."""
    before = [b.clone() for b in module.buffers()]
    yield
    for buffer, value in zip(module.buffers(), before, strict=True):
        buffer.copy_(value)


class BufferMean:
    """Gives every micro-batch of a step the same buffers to start from, and keeps the mean of what they leave.

    Covers what BatchNorm of the modules in train mode keeps: running statistics; its batch counter, a whole number,
    advances once per step. Buffers that are constants are left alone: a mean would round them.
    """

    def __init__(self, modules: list[nn.Module]) -> None:
        parts = (part for module in modules if module.training for part in module.modules())
        self.buffers = [b for part in parts if isinstance(part, _BatchNorm) for b in part.buffers()]
        self.start = [b.clone() for b in self.buffers]
        self.sums = [torch.zeros_like(b) for b in self.buffers]

    @torch.no_grad()
    def begin(self) -> None:
        """Before a micro-batch: the buffers are those at the start of the step."""
        for buffer, start in zip(self.buffers, self.start, strict=True):
            buffer.copy_(start)

    @torch.no_grad()
    def end(self) -> None:
        """After a micro-batch: add what it left."""
        for buffer, total in zip(self.buffers, self.sums, strict=True):
            total += buffer

    @torch.no_grad()
    def finish(self, share: float, sum_over_ranks: Callable[[list[Tensor]], None]) -> None:
        """At the end of the step: set the mean over all micro-batches, each of which counts `share`."""
        floating = [total for total in self.sums if total.is_floating_point()]
        sum_over_ranks(floating)
        for buffer, total in zip(self.buffers, self.sums, strict=True):
            if total.is_floating_point():
                buffer.copy_(total * share)
