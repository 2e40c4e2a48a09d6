"""Sums over processes: after the backward pass in one message, or in buckets while it runs (`deterministic=false`).

Two processes get the same bits either way. With N, the library that sums may take them in another order in a bucket
than in one long message: an entry then differs by at most N units in the last place of its largest summand.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed
from torch import Tensor

if TYPE_CHECKING:  # it takes seconds to import, and a configuration is checked without it
    from lightning_fabric import Fabric

BUCKET = 25 << 20  # bytes of gradients that travel together


def sum_over_ranks(tensors: Iterable[Tensor], fabric: "Fabric") -> None:
    """Replace each tensor by its sum over all processes, in one message."""
    tensors = list(tensors)
    if fabric.world_size == 1 or not tensors:
        return
    flat = flattened(tensors)
    torch.distributed.all_reduce(flat)
    put_back(flat, tensors)


def flattened(tensors: list[Tensor]) -> Tensor:
    """Join tensors to one row of float32."""
    return torch.cat([t.detach().reshape(-1).float() for t in tensors])


def put_back(flat: Tensor, tensors: list[Tensor]) -> None:
    """Copy the parts of a row to the tensors that it was made of."""
    parts = flat.split([t.numel() for t in tensors])
    for t, part in zip(tensors, parts, strict=True):
        t.detach().copy_(part.view_as(t))


class Overlap:
    """Sums the gradients of one phase in buckets, each as soon as the backward pass has all of it.

    Buckets follow the order in which the gradients of the step before became ready; those of the first step, and of a
    parameter that was not among them, travel after the backward pass. All processes take the order of the first one,
    and send their buckets in it.
    """

    def __init__(self, parameters: Sequence[Tensor], fabric: "Fabric") -> None:
        """Take the parameters of the phase's optimiser."""
        self.parameters, self.fabric = parameters, fabric
        self.buckets: list[dict[int, None]] = []  # indices of parameters, in order
        self.ready: dict[int, None] = {}  # an ordered set
        self.sent: list[tuple[Tensor, list[Tensor], Any]] = []

    @contextmanager
    def backward(self) -> Iterator[None]:
        """Send buckets while the last backward pass of a step runs inside."""
        self.ready, self.sent = {}, []
        hooks = [
            p.register_post_accumulate_grad_hook(lambda _, index=i: self._arrive(index))
            for i, p in enumerate(self.parameters)
            if p.requires_grad
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def finish(self) -> None:
        """Send what is left, wait for all sums, put them in place, and plan the buckets of the next step."""
        early = {index for bucket in self.buckets[: len(self.sent)] for index in bucket}
        late = [p for i, p in enumerate(self.parameters) if p.grad is not None and i not in early]
        for flat, gradients, work in self.sent:
            work.wait()
            put_back(flat, gradients)
        sum_over_ranks([p.grad for p in late if p.grad is not None], self.fabric)
        if {i for bucket in self.buckets for i in bucket} != self.ready.keys():  # on all processes, or on none
            self._plan(self.fabric.broadcast(list(self.ready)))

    def _arrive(self, index: int) -> None:
        """Note a gradient, and send the buckets whose turn it is and which are complete."""
        self.ready[index] = None
        while len(self.sent) < len(self.buckets) and self.ready.keys() >= self.buckets[len(self.sent)].keys():
            gradients = [g for i in self.buckets[len(self.sent)] if (g := self.parameters[i].grad) is not None]
            flat = flattened(gradients)
            self.sent.append((flat, gradients, torch.distributed.all_reduce(flat, async_op=True)))

    def _plan(self, order: list[int]) -> None:
        """Cut an order of parameters into buckets; one that is larger than a bucket has its own."""
        self.buckets, size = [], BUCKET
        for index in order:
            own = 4 * self.parameters[index].numel()
            if size and size + own > BUCKET:
                self.buckets.append({})
                size = 0
            self.buckets[-1][index] = None
            size += own
