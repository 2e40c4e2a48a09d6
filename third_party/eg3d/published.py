"""Reading EG3D's published pickles: the networks in a file, and the state dict of one.

A file holds a dict with the networks `G`, `D` and `G_ema`, and possibly `training_set_kwargs` and `augment_pipe`.
"""

import mmap
from dataclasses import dataclass
from pathlib import Path

from .formats import HEAD, ZIP, looks_like
from .records import MAGIC, SCALAR_NAMES, Record, TensorRecord, allowed_names
from .unpickle import Budget, Machine, UnsafeCheckpointError, kind, quote

_MAX_ENTRIES, _MAX_NAME = 10_000, 100
_SMALL = 1 << 20  # bytes that even a small file may unfold to


@dataclass
class Snapshot:
    """A published file: its top-level dict, and which of numpy's two names for scalars it uses."""

    content: dict[str, object]
    numpy_names: str = "none"

    def network(self, which: str) -> Record:
        """The generator or discriminator under this key."""
        record = self.content.get(which)
        if not isinstance(record, Record):
            there = ", ".join(self.networks()) or "nothing"
            raise ValueError(f"the checkpoint has no network {which!r}; it has: {there}")
        return record

    def networks(self) -> list[str]:
        """The keys that hold a module."""
        return [name for name, value in self.content.items() if isinstance(value, Record)]


def read_snapshot(path: Path) -> Snapshot:
    """Read a published pickle without importing or executing what it names.

    Raises: UnsafeCheckpointError saying what was found; FileNotFoundError.
    """
    with open(path, "rb") as file:
        if told := looks_like(head := file.read(HEAD)):
            zipped = ", as torch.save writes; published checkpoints are plain pickles"
            raise UnsafeCheckpointError(told + zipped * head.startswith(ZIP))
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    budget = Budget(copied_bytes=max(len(data), _SMALL))
    machine = Machine(data, allowed_names(budget), budget)
    content = machine.run()
    if content == MAGIC:
        raise UnsafeCheckpointError("it is a torch.save file in the format before PyTorch 1.6, not a plain pickle")
    if type(content) is not dict:
        raise UnsafeCheckpointError(f"it holds {kind(content)}, expected a dict of networks")
    numpy_names = [word for word, name in SCALAR_NAMES.items() if name in machine.named]
    return Snapshot(content, " and ".join(numpy_names) or "none")


def tensors(record: Record) -> dict[str, TensorRecord]:
    """The state dict of a module: parameters and persistent buffers by dotted name."""
    found: dict[str, TensorRecord] = {}
    for prefix, module in modules(record):
        hidden = (module.state or {}).get("_non_persistent_buffers_set")
        buffers = {n: t for n, t in module.part("_buffers").items() if not (isinstance(hidden, set) and n in hidden)}
        for name, value in (module.part("_parameters") | buffers).items():
            if value is None:
                continue
            if not isinstance(value, TensorRecord):
                raise UnsafeCheckpointError(f"its entry {quote(prefix + name)} is {kind(value)}, expected a tensor")
            found[prefix + _checked(name, len(found))] = value
    return found


def _checked(name: str, count: int) -> str:
    """A name of a module or tensor of reasonable length, of which there are not too many."""
    if len(name) > _MAX_NAME or count >= _MAX_ENTRIES:
        raise UnsafeCheckpointError(
            f"it has more than {_MAX_ENTRIES} modules or tensors, or names of over {_MAX_NAME} letters"
        )
    return name


def modules(record: Record) -> list[tuple[str, Record]]:
    """The module and everything inside of it, depth first, with the prefix of its names."""
    found: list[tuple[str, Record]] = []
    _collect(record, "", (), found)
    return found


def _collect(record: Record, prefix: str, parents: tuple[Record, ...], found: list[tuple[str, Record]]) -> None:
    if any(record is parent for parent in parents):
        raise UnsafeCheckpointError(f"its module {quote(record.class_name)} contains itself")
    found.append((prefix, record))
    for name, child in record.part("_modules").items():
        name = _checked(name, len(found))
        if isinstance(child, Record):
            _collect(child, f"{prefix}{name}.", (*parents, record), found)
        elif child is not None:
            raise UnsafeCheckpointError(f"its module {quote(prefix + name)} is {kind(child)}")
