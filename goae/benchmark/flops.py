"""Counting the arithmetic of a call."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Flops(NamedTuple):
    """Floating-point operations, a multiply-add as two: of convolutions, and of matrix products."""

    conv: int
    matmul: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.conv + self.matmul


def count_flops(call: Callable[[], Any]) -> Flops:
    """Run `call` and count what its convolutions and matrix products do, those of its backward passes included.

    Elementwise work and lookups are not counted, nor is what happens inside kernels of our own: count plain operators,
    and not in inference mode, which hides what an operator consists of.
    """
    with _Counter() as counter:
        call()
    return Flops(counter.conv, counter.matmul)


class _Counter(TorchDispatchMode):
    """`torch.utils.flop_counter` without its books on modules, whose hooks forbid `torch.autograd.grad`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = self.matmul = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        operator = func._overloadpacket
        if operator in flop_registry:
            flops = flop_registry[operator](*args, **kwargs, out_val=result)
            if "convolution" in str(operator):
                self.conv += flops
            else:
                self.matmul += flops
        return result
