"""Reading pickles of nested dictionaries of numpy arrays, and of nothing else.

Every name a pickle mentions is looked up in a closed table; the functions behind it build arrays and dtypes of plain
numbers only. Nothing is imported by name.
"""

import io
import math
import pickle
from typing import Any, NoReturn

import numpy as np

DTYPES = {"f2", "f4", "f8", "i4", "i8", "u1"}
MAX_BYTES = 2 << 30


class _Sealed(type):
    """Classes a pickle may name but not change."""

    def __setattr__(cls, name: str, value: Any) -> NoReturn:
        raise pickle.UnpicklingError(f"the pickle sets {name!r} of a class")


class _DType(metaclass=_Sealed):
    """Stands in for numpy.dtype while the pickle is read."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if code not in DTYPES:
            raise pickle.UnpicklingError(f"array of dtype {code!r}; expected one of {sorted(DTYPES)}")
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order not in ("<", "|", "="):
            raise pickle.UnpicklingError(f"byte order {order!r}; expected little endian")


class _Array(metaclass=_Sealed):
    """Stands in for numpy.ndarray; its state is (version, shape, dtype, fortran order, bytes)."""

    value: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _DType) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("an array of something else than plain numbers")
        if not all(isinstance(n, int) and n >= 0 for n in shape):
            raise pickle.UnpicklingError(f"an array of shape {shape!r}")
        kind = np.dtype("<" + dtype.code)
        if math.prod(shape) * kind.itemsize != len(data):
            raise pickle.UnpicklingError(f"an array of shape {shape} with {len(data)} bytes")
        self.value = np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C").copy()


class _Marker(metaclass=_Sealed):
    """The name numpy.ndarray, which may only be the first argument of the reconstruct function."""


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if kind is not _Marker:
        raise pickle.UnpicklingError("a reconstruct call for something else than an array")
    return _Array()


_TABLE: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Marker,
    ("numpy", "dtype"): _DType,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _TABLE:
            raise pickle.UnpicklingError(
                f"the pickle asks for {module}.{name}, which is not on the list of numpy names"
            )
        return _TABLE[module, name]

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("the pickle refers to objects outside of itself")


def load_arrays(data: bytes) -> dict[str, np.ndarray]:
    """Read nested dictionaries of arrays; names are joined with dots.

    Raises: ValueError naming what else the pickle holds or asks for.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"a pickle of {len(data)} bytes; at most {MAX_BYTES} are read")
    try:
        content = _Reader(io.BytesIO(data)).load()
        return dict(_flatten("", content))
    except ValueError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(f"not a pickle of numpy arrays: {error}") from error


def _flatten(prefix: str, content: Any, depth: int = 0) -> list[tuple[str, np.ndarray]]:
    if isinstance(content, _Array) and hasattr(content, "value"):
        return [(prefix, content.value)]
    if not isinstance(content, dict) or depth > 8 or not all(isinstance(key, str) for key in content):
        raise ValueError(f"the pickle holds a {type(content).__name__} at {prefix!r}; expected dictionaries of arrays")
    rows = [_flatten(f"{prefix}.{key}" if prefix else key, value, depth + 1) for key, value in content.items()]
    return [row for part in rows for row in part]
