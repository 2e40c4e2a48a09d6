"""Reading files of `torch.save` as data: tensors in dicts, lists and tuples of texts and numbers.

The pickle inside is run by `eg3d.unpickle`, so that nothing in the file is executed, and time and memory stay in
proportion to it; `torch.load` bounds neither. Both formats are read: the zip of PyTorch 1.6 and later, and the one
before. A file whose values contain themselves, or unfold to far more than it holds, is refused.
"""

import math
import mmap
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from .formats import ZIP
from .limits import MAX_VALUES, open_zip, read_member
from .records import MAGIC, PROTOCOL, expect, layout, make_set
from .unpickle import Allowed, Budget, Inert, Machine, UnsafeCheckpointError, quote

_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
_OPCODES = 2_000_000  # 545 tensors with their averages and the state of Adam take 81,000
_SMALL = 64 << 20  # bytes that even a small file may unfold to
_LOCAL_HEADER = 30  # bytes in front of a member's name


@dataclass(eq=False)
class _Storage(Inert):
    """All numbers of a storage as a flat tensor."""

    data: Tensor

    def __len__(self) -> int:
        return len(self.data)


@dataclass
class _Storages:
    """The storages of a file by key, each made once; `make(key, num_bytes)` gives the bytes of a new one."""

    make: Callable[[str, int], Tensor]
    made: dict[str, Tensor] = field(default_factory=dict)
    item_sizes: dict[str, int] = field(default_factory=dict)

    def find(self, identity: object) -> _Storage:
        """Resolve the persistent id of a storage."""
        if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
            raise UnsafeCheckpointError("it has a persistent id that is no storage's")
        allowed, key, _, count = expect(identity[1:5], "storage", Allowed, str, str, int)
        name = allowed.name.removeprefix("torch.")
        if name not in _DTYPES or count < 0 or identity[5:] not in ((), (None,)):
            raise UnsafeCheckpointError(f"it has a storage of {count} numbers of {quote(name)}, or a part of one")
        num_bytes = count * _DTYPES[name].itemsize
        if key not in self.made:
            self.made[key] = self.make(key, num_bytes)
            self.item_sizes[key] = _DTYPES[name].itemsize
        if len(self.made[key]) != num_bytes:
            told = f"{len(self.made[key])} bytes and is said to have {num_bytes}"
            raise UnsafeCheckpointError(f"its storage {quote(key)} has {told}")
        return _Storage(self.made[key].view(_DTYPES[name]))


def read_torch(path: Path, device: torch.device | str = "cpu") -> object:
    """Read what `torch.save` wrote to a file; the versions of modules that a state dict carries are left out.

    Raises: ValueError saying what the file is, without its name; FileNotFoundError.
    """
    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))  # never written; torch warns otherwise
    budget = Budget(opcodes=_OPCODES, copied_bytes=4 * len(data) + _SMALL)
    if data[:4] == ZIP:
        with open_zip(path) as archive:
            return _read_zip(archive, data, budget, device)
    return _read_old(data, budget, device)


def _read_zip(archive: zipfile.ZipFile, data: memoryview, budget: Budget, device: torch.device | str) -> object:
    members = {info.filename: info for info in archive.infolist()}
    roots = [name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if any(name.endswith("/constants.pkl") for name in members):
        raise UnsafeCheckpointError("it is a TorchScript archive, a program; save its state_dict() with torch.save")
    if len(roots) != 1:
        some = ", ".join(quote(name) for name in list(members)[:3]) or "nothing"
        raise UnsafeCheckpointError(f"it is a zip archive of {some}, none that torch.save wrote; unpack it first")

    def part(name: str) -> memoryview:
        info = members.get(roots[0] + name)
        if info is None:
            raise UnsafeCheckpointError(f"its part {quote(name)} is missing")
        if info.compress_type == zipfile.ZIP_STORED:
            return _stored(data, info)
        return memoryview(bytearray(read_member(archive, info.filename)))

    if f"{roots[0]}byteorder" in members and bytes(part("byteorder")) != b"little":
        raise UnsafeCheckpointError("its numbers are not little-endian")
    storages = _Storages(lambda key, _: _tensor_of(part(f"data/{key}"), device))
    return _machine(part("data.pkl"), budget, storages)[0]


def _read_old(data: memoryview, budget: Budget, device: torch.device | str) -> object:
    """Read the format before PyTorch 1.6: pickles, and behind them the numbers of all storages."""
    position, marks = 0, []
    for _ in range(3):
        machine = Machine(data, {}, budget, start=position)
        marks.append(machine.run())
        position = machine.position
        if marks[0] != MAGIC:
            raise UnsafeCheckpointError("it is a plain pickle, none that torch.save wrote")
    if marks[1] != PROTOCOL or type(marks[2]) is not dict or marks[2].get("little_endian") is not True:
        raise UnsafeCheckpointError("its format is unknown, or its numbers are not little-endian")
    left = len(data)

    def make(key: str, num_bytes: int) -> Tensor:
        nonlocal left
        left -= num_bytes
        if left < 0:
            raise UnsafeCheckpointError("its storages have more bytes than the file")
        return torch.empty(num_bytes, dtype=torch.uint8, device=device)

    storages = _Storages(make)
    content, position = _machine(data, budget, storages, position)
    machine = Machine(data, {}, budget, start=position)
    keys, position = machine.run(), machine.position
    if type(keys) is not list or len(keys) != len(storages.made) or not all(key in storages.made for key in keys):
        raise UnsafeCheckpointError("its list of storages is not that of its tensors")
    for key in keys:
        tensor, item_size = storages.made[key], storages.item_sizes[key]
        machine.position = position
        count = machine.number("<Q")
        if count * item_size != len(tensor):
            raise UnsafeCheckpointError(f"its storage {quote(key)} has {count} numbers of {item_size} bytes")
        tensor.copy_(_tensor_of(machine.take(len(tensor)), "cpu", copy=False))
        position = machine.position
    return content


def _machine(data: memoryview, budget: Budget, storages: _Storages, start: int = 0) -> tuple[object, int]:
    """Run the pickle of a file's content. Returns: it, and the position behind it."""
    calls: dict[tuple[str, str], Callable[[tuple], object]] = {
        ("torch._utils", "_rebuild_tensor_v2"): lambda arguments: _tensor(arguments, budget),
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("collections", "OrderedDict"): lambda arguments: OrderedDict(expect(arguments, "dict")),
        ("torch", "Size"): lambda arguments: expect(arguments, "size", tuple)[0],
        ("builtins", "set"): lambda arguments: make_set(arguments, budget),
        ("__builtin__", "set"): lambda arguments: make_set(arguments, budget),
    }
    table = {name: Allowed(".".join(name), call=call) for name, call in calls.items()}
    table |= {("torch", name): Allowed(f"torch.{name}") for name in _DTYPES}
    machine = Machine(data, table, budget, start=start, persistent=storages.find, integer_keys=True)
    content = machine.run()
    if machine.values > MAX_VALUES:
        raise UnsafeCheckpointError(f"it unfolds to more than {MAX_VALUES} values")
    return content, machine.position


def _tensor(arguments: tuple, budget: Budget) -> Tensor:
    storage, offset, shape, stride, gradient = layout(arguments, _Storage)
    budget.copy(math.prod(shape) * storage.data.itemsize)
    return _with_gradient(torch.as_strided(storage.data, shape, stride, offset), gradient)


def _parameter(arguments: tuple) -> Tensor:
    tensor, gradient, hooks = arguments if len(arguments) == 3 else (None, None, None)
    if not isinstance(tensor, Tensor) or type(gradient) is not bool or not isinstance(hooks, dict) or hooks:
        raise UnsafeCheckpointError("it makes a parameter in an unknown way")
    return nn.Parameter(_with_gradient(tensor, False), requires_grad=gradient)


def _with_gradient(tensor: Tensor, gradient: bool) -> Tensor:
    if gradient and not (tensor.is_floating_point() or tensor.is_complex()):
        raise UnsafeCheckpointError("it asks for gradients of whole numbers")
    return tensor.requires_grad_(gradient)


def _stored(data: memoryview, info: zipfile.ZipInfo) -> memoryview:
    """A member that is not compressed, as a view of the file."""
    header = data[info.header_offset : info.header_offset + _LOCAL_HEADER]
    start = info.header_offset + _LOCAL_HEADER + sum(int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
    if header[:4] != ZIP or info.compress_size != info.file_size or start + info.file_size > len(data):
        raise UnsafeCheckpointError(f"its part {quote(info.filename)} is damaged or cut short")
    return data[start : start + info.file_size]


def _tensor_of(data: memoryview, device: torch.device | str, *, copy: bool = True) -> Tensor:
    """Bytes as a tensor."""
    found = torch.frombuffer(data, dtype=torch.uint8) if len(data) else torch.empty(0, dtype=torch.uint8)
    return found.to(device, copy=True) if copy else found
