"""Building networks whose weights are read from a file next, without drawing first values that nobody sees."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_FILLS: frozenset[Any] = frozenset(
    [Tensor.uniform_, Tensor.normal_, Tensor.erfinv_, nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_]
)


class Uninitialized(TorchFunctionMode):
    """Context in which what a constructor would fill with random values stays as it was allocated.

    Only for modules all of whose parameters and persistent buffers are loaded, strictly, before they are used. The
    global random state is left as it was. Most of the time of building a large network goes into these values.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Leave a tensor that would be filled alone, allocate one that would be drawn, call everything else."""
        kwargs = dict(kwargs or {})
        if func in _FILLS:
            return args[0] if args else kwargs["tensor"]
        if func is torch.randn and "generator" not in kwargs:  # what has a seed of its own may not be stored
            func = torch.empty
        return func(*args, **kwargs)
