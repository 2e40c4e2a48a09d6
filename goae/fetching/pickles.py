"""Reading pickles of nested dictionaries of numpy arrays, and of nothing else.

The pickle is run by `eg3d.unpickle`, which imports and calls nothing that it names; the table here has what arrays of
plain numbers consist of.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from eg3d.limits import REMEDY
from eg3d.unpickle import Allowed, Budget, Inert, Machine, UnsafeCheckpointError, kind

DTYPES = {"f2", "f4", "f8", "i4", "i8", "u1"}
MAX_BYTES = 2 << 30
_OPCODES, _MAX_VALUES, _MAX_NAME, _MOST_AXES, _SMALL = 100_000, 10_000, 200, 16, 1 << 20


@dataclass(eq=False)
class _Dtype(Inert):
    """A type of numbers; the state that follows holds the byte order."""

    code: str

    def build(self, state: object) -> None:
        """Accept the state of little-endian numbers."""
        if type(state) is not tuple or len(state) < 2 or state[1] not in ("<", "|", "="):
            raise UnsafeCheckpointError("it has numbers that are not little-endian")


@dataclass(eq=False)
class _Array(Inert):
    """An array; its state is (version, shape, dtype, fortran order, bytes)."""

    budget: Budget
    value: np.ndarray | None = None

    def build(self, state: object) -> None:
        """Accept the state, once."""
        if self.value is not None or type(state) is not tuple or len(state) != 5:
            raise UnsafeCheckpointError("it has an array in an unknown form")
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, memoryview):
            raise UnsafeCheckpointError("it has an array of something else than plain numbers")
        if type(shape) is not tuple or len(shape) > _MOST_AXES or not all(type(n) is int and n >= 0 for n in shape):
            raise UnsafeCheckpointError("it has an array whose shape is none")
        numbers = np.dtype("<" + dtype.code)
        if math.prod(n or 1 for n in shape) > MAX_BYTES or math.prod(shape) * numbers.itemsize != len(data):
            raise UnsafeCheckpointError(f"it has an array of shape {shape} with {len(data)} bytes")
        self.budget.copy(len(data))
        self.value = np.frombuffer(data, numbers).reshape(shape, order="F" if fortran else "C").copy()


def load_arrays(data: bytes, what: str = "the pickle") -> dict[str, np.ndarray]:
    """Read nested dictionaries of arrays; names are joined with dots.

    Args:
        what: names the file in messages.
    Raises: ValueError saying what else the pickle holds or asks for.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"{what} has {len(data)} bytes; at most {MAX_BYTES} are read")
    budget = Budget(_OPCODES, len(data) + _SMALL)
    machine = Machine(memoryview(data), _table(budget), budget)
    try:
        content = machine.run()
        if machine.values > _MAX_VALUES:
            raise UnsafeCheckpointError(f"it unfolds to more than {_MAX_VALUES} values")
        return dict(_flatten("", content))
    except UnsafeCheckpointError as error:
        raise ValueError(f"{what} cannot be read as arrays of numbers: {error}. {REMEDY}") from None


def _table(budget: Budget) -> dict[tuple[str, str], Allowed]:
    """List everything that such a pickle may name."""

    def make(arguments: tuple) -> _Array:
        if not arguments or not isinstance(arguments[0], Allowed) or arguments[0].name != "numpy.ndarray":
            raise UnsafeCheckpointError("it makes something else than an array")
        return _Array(budget)

    calls: dict[tuple[str, str], Callable[[tuple], object]] = {
        ("numpy.core.multiarray", "_reconstruct"): make,
        ("numpy._core.multiarray", "_reconstruct"): make,
        ("numpy", "dtype"): _dtype,
    }
    table = {name: Allowed(".".join(name), call=call) for name, call in calls.items()}
    return table | {("numpy", "ndarray"): Allowed("numpy.ndarray")}


def _dtype(arguments: tuple) -> _Dtype:
    code = arguments[0] if arguments else None
    if type(code) is not str or code not in DTYPES:
        told = ascii(code)[:40] if type(code) is str else kind(code)
        raise UnsafeCheckpointError(f"it has an array of type {told}; expected one of {', '.join(sorted(DTYPES))}")
    return _Dtype(code)


def _flatten(prefix: str, content: object) -> list[tuple[str, np.ndarray]]:
    if isinstance(content, _Array) and content.value is not None:
        return [(prefix, content.value)]
    if not isinstance(content, dict) or len(prefix) > _MAX_NAME:
        raise UnsafeCheckpointError(
            f"it holds {kind(content)} at {prefix[:_MAX_NAME]!a}; expected dictionaries of arrays with short names"
        )
    rows = [
        _flatten(f"{prefix}.{key[:_MAX_NAME]}" if prefix else key[: _MAX_NAME + 1], v) for key, v in content.items()
    ]
    return [row for part in rows for row in part]
