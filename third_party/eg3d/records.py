"""The inert records that stand for the objects of EG3D's published pickles, and the table of their names.

Most modules are written as a call of a function that gets the source text of the module's class and its `__dict__`, and
whose original executes that source; others name their class. Here both become a `Record` of the class name and the
`__dict__`, and the source is dropped unread. A tensor is a call around a storage, itself a byte string with five small
pickles and the raw numbers; it becomes a `TensorRecord`, which only looks at the bytes of the file until `read` copies.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .unpickle import Allowed, Budget, Inert, Machine, UnsafeCheckpointError, kind, quote

_STORAGES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}
_SCALARS = ("f8", "f4", "i8", "i4", "b1")
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of a storage that stands alone
_MAX_DIMENSIONS, _MAX_PART, _MAX_NAME, _LARGEST = 8, 1000, 255, 1 << 48
_MODULES = (
    ("training.triplane", "TriPlaneGenerator"),
    ("training.triplane", "OSGDecoder"),
    ("training.volumetric_rendering.renderer", "ImportanceRenderer"),
    ("training.volumetric_rendering.ray_marcher", "MipRayMarcher2"),
    ("training.volumetric_rendering.ray_sampler", "RaySampler"),
    ("training.superresolution", "SuperresolutionHybrid8XDC"),
    ("training.superresolution", "SuperresolutionHybrid8X"),
    ("training.superresolution", "SuperresolutionHybrid4X"),
    ("training.superresolution", "SuperresolutionHybrid2X"),
    ("training.superresolution", "SuperresolutionHybridDeepfp32"),
    ("torch.nn.modules.container", "Sequential"),
    ("torch.nn.modules.activation", "Softplus"),
)
SCALAR_NAMES = {"old": ("numpy.core.multiarray", "scalar"), "new": ("numpy._core.multiarray", "scalar")}


@dataclass(eq=False)
class Record(Inert):
    """A module: the name of its class and its `__dict__`."""

    class_name: str
    state: dict[str, object] | None = None

    def build(self, state: object) -> None:
        """Accept the `__dict__`, once."""
        if self.state is not None or type(state) is not dict:
            raise UnsafeCheckpointError(f"it sets the state of a {quote(self.class_name)} in an unusual way")
        self.state = state

    def children(self) -> Iterable[object]:
        """The values of the `__dict__`."""
        return (self.state or {}).values()

    def part(self, name: str) -> dict[str, object]:
        """One of the dicts `_parameters`, `_buffers`, `_modules`."""
        part = (self.state or {}).get(name)
        if type(part) is not dict or len(part) > _MAX_PART:
            raise UnsafeCheckpointError(f"its module {quote(self.class_name)} has no {name}, or an implausible one")
        return part


@dataclass(eq=False)
class StorageRecord(Inert):
    """Raw little-endian numbers, as a view of the file."""

    data: np.ndarray

    def __len__(self) -> int:
        return len(self.data)


@dataclass(eq=False)
class TensorRecord(Inert):
    """A view of a storage. Every element lies inside of it, and there are no more elements than it has."""

    data: np.ndarray
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        """The product of the sizes."""
        return math.prod(self.shape)

    def read(self) -> Tensor:
        """The tensor, copied out of the file."""
        steps = [step * self.data.itemsize for step in self.stride]
        view = np.lib.stride_tricks.as_strided(self.data[self.offset :], self.shape, steps, writeable=False)
        return torch.from_numpy(view.copy())


@dataclass(eq=False)
class _Dtype(Inert):
    """A numpy dtype: its code; the state that follows holds the byte order."""

    code: str

    def build(self, state: object) -> None:
        """Accept the state if the numbers are little-endian."""
        if type(state) is not tuple or len(state) not in (8, 9) or state[1] not in ("<", "|", "="):
            raise UnsafeCheckpointError("it has a numpy number with an unknown layout")


def allowed_names(budget: Budget) -> dict[tuple[str, str], Allowed]:
    """Everything that a published file may name."""
    calls: dict[tuple[str, str], Callable[[tuple], object]] = {
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent_record,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch.storage", "_load_from_bytes"): lambda arguments: _storage(arguments, budget),
        ("collections", "OrderedDict"): _empty_dict,
        ("dnnlib.util", "EasyDict"): _empty_dict,
        ("numpy", "dtype"): _dtype,
        ("builtins", "set"): lambda arguments: make_set(arguments, budget),
        SCALAR_NAMES["old"]: _scalar,
        SCALAR_NAMES["new"]: _scalar,
    }
    table = {name: Allowed(".".join(name), call=call) for name, call in calls.items()}
    table["dnnlib.util", "EasyDict"] = Allowed("dnnlib.util.EasyDict", call=_empty_dict, new=dict)
    for module, name in _MODULES:
        table[module, name] = Allowed(f"{module}.{name}", new=lambda name=name: Record(name))  # type: ignore[misc]
    return table


def expect(arguments: tuple, what: str, *kinds: type) -> tuple:
    """Return the arguments if they have exactly these types. Raises: UnsafeCheckpointError."""
    if [type(argument) for argument in arguments] != list(kinds):
        found = ", ".join(kind(argument) for argument in arguments[:8])
        raise UnsafeCheckpointError(f"it makes a {what} from ({found})")
    return arguments


def _persistent_record(arguments: tuple) -> Record:
    (meta,) = expect(arguments, "persistent object", dict)
    if len(meta) != 5 or set(meta) != {"type", "version", "module_src", "class_name", "state"}:
        raise UnsafeCheckpointError("it has a persistent object with other fields than the published ones")
    if meta["type"] != "class" or type(meta["version"]) is not int or meta["version"] != 6:
        found = f"{_short((meta['type'],))}, version {_short((meta['version'],))}"
        raise UnsafeCheckpointError(f"it has a persistent object of type {found}, expected 'class', 6")
    name = meta["class_name"]
    if type(name) is not str or len(name) > _MAX_NAME or not name.isidentifier() or type(meta["module_src"]) is not str:
        raise UnsafeCheckpointError("it has a persistent object without a class name or source")
    record = Record(name)
    record.build(meta["state"])
    return record


def layout(arguments: tuple, storage: type) -> tuple[Any, int, tuple[int, ...], tuple[int, ...], bool]:
    """Check the arguments of PyTorch's function that makes a tensor: every element lies inside of the storage.

    Returns: the storage, which has a length, offset, shape, stride, and whether gradients are asked for.
    Raises: UnsafeCheckpointError.
    """
    if len(arguments) == 7 and not arguments[6]:
        arguments = arguments[:6]
    hooks = arguments[5] if len(arguments) == 6 else None
    if not isinstance(hooks, dict):
        raise UnsafeCheckpointError(f"it makes a tensor from {len(arguments)} values, the last {kind(hooks)}")
    held, offset, shape, stride, gradient = expect(arguments[:5], "tensor", storage, int, tuple, tuple, bool)
    counts = (offset, *shape[:20], *stride[:20])
    impossible = f"it has a tensor with offset, shape or stride that cannot be: {_short(counts)}"
    if not len(shape) == len(stride) <= _MAX_DIMENSIONS or not all(type(n) is int and n >= 0 for n in counts) or hooks:
        raise UnsafeCheckpointError(impossible)
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if offset > len(held) or (0 not in shape and last >= len(held)):
        raise UnsafeCheckpointError(
            f"it has a tensor of shape {_short(shape)} that reaches outside of its storage of {len(held)}"
        )
    if max(*counts, math.prod(size or 1 for size in shape)) > _LARGEST:
        raise UnsafeCheckpointError(impossible)
    return held, offset, shape, stride, gradient


def _tensor(arguments: tuple) -> TensorRecord:
    storage, offset, shape, stride, _ = layout(arguments, StorageRecord)
    if math.prod(shape) > len(storage):
        raise UnsafeCheckpointError(
            f"it has a tensor of shape {_short(shape)} with more elements than its storage of {len(storage)}"
        )
    return TensorRecord(storage.data, offset, shape, stride)


def _short(values: tuple) -> str:
    """Values of the file for a message."""
    shown = (str(v)[:20] if type(v) is int else repr(quote(v)) if type(v) is str else kind(v) for v in values[:20])
    return "(" + ", ".join(shown) + ")" if len(values) != 1 else next(shown)


def _parameter(arguments: tuple) -> TensorRecord:
    record, _, hooks = expect(arguments, "parameter", TensorRecord, bool, dict)
    if hooks:
        raise UnsafeCheckpointError("it has a parameter with hooks")
    return record


def _empty_dict(arguments: tuple) -> dict[str, object]:
    expect(arguments, "dict")
    return {}


def make_set(arguments: tuple, budget: Budget) -> set[str]:
    """Make a set of a list of texts. Raises: UnsafeCheckpointError."""
    (items,) = expect(arguments, "set", list)
    budget.copy(64 * len(items))
    if not all(type(item) is str for item in items):
        raise UnsafeCheckpointError("it makes a set of something else than texts")
    return set(items)


def _dtype(arguments: tuple) -> _Dtype:
    code, _, _ = expect(arguments, "numpy dtype", str, bool, bool)
    if code not in _SCALARS:
        raise UnsafeCheckpointError(
            f"it has numbers of numpy's type {quote(code)}, expected one of {', '.join(_SCALARS)}"
        )
    return _Dtype(code)


def _scalar(arguments: tuple) -> float | int | bool:
    dtype, data = expect(arguments, "numpy number", _Dtype, memoryview)
    if len(data) != np.dtype(dtype.code).itemsize:
        raise UnsafeCheckpointError(f"it has a number of type {dtype.code} in {len(data)} bytes")
    return np.frombuffer(data, np.dtype(dtype.code).newbyteorder("<"))[0].item()


def _storage(arguments: tuple, budget: Budget) -> StorageRecord:
    """A storage in the form that torch.save gave it before PyTorch 1.6."""
    (data,) = expect(arguments, "storage", memoryview)
    position, parts = 0, []
    for _ in range(5):
        machine = Machine(data, _STORAGE_TABLE, budget, start=position, persistent=_header)
        parts.append(machine.run())
        position = machine.position
    magic, protocol, system, header, keys = parts
    if type(magic) is not int or magic != MAGIC or type(protocol) is not int or protocol != PROTOCOL:
        raise UnsafeCheckpointError("it has a storage without the marks of one")
    if type(system) is not dict or system.get("little_endian") is not True or not isinstance(header, _Header):
        raise UnsafeCheckpointError("it has a storage that is not little-endian, or without a header")
    if type(keys) is not list or len(keys) != 1 or type(keys[0]) is not str or keys[0] != header.key:
        raise UnsafeCheckpointError("it has a storage whose list of keys is not that of its header")
    count = int.from_bytes(data[position : position + 8], "little")
    raw = data[position + 8 :]
    if count != header.count or len(raw) != count * np.dtype(header.code).itemsize:
        raise UnsafeCheckpointError(
            f"it has a storage said to hold {header.count} and {count} numbers, in {len(raw)} bytes"
        )
    return StorageRecord(np.frombuffer(raw, header.code) if count else np.zeros(0, header.code))


@dataclass(eq=False)
class _Header(Inert):
    """The persistent id of a storage: numpy code, key, number of elements."""

    code: str
    key: str
    count: int


def _header(identity: object) -> _Header:
    if type(identity) is not tuple or len(identity) != 6 or identity[0] != "storage" or identity[5] is not None:
        raise UnsafeCheckpointError("it has a storage with an unknown header")
    _, storage, key, location, count, _ = identity
    if not isinstance(storage, Allowed) or type(key) is not str or type(location) is not str or type(count) is not int:
        raise UnsafeCheckpointError("it has a storage with an unknown header")
    return _Header(_STORAGES[storage.name.removeprefix("torch.")], key, count)


_STORAGE_TABLE = {("torch", name): Allowed(f"torch.{name}") for name in _STORAGES}
