"""A reader of pickles that can only build data.

A pickle is a program for a stack machine, and Python's own reader lets that program import and call whatever it names.
This one is a machine of its own, for the small part of the language that a dump of plain data needs. Names are looked
up in a closed table given by the caller; what a table entry builds is inert. Nothing is imported, no method of a built
object is called besides those of `Inert`, and every other opcode is refused. Byte strings are views of the input, so
time and memory stay in proportion to the file: a `Budget` bounds opcodes and copies, and nesting is bounded as well.
"""

import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pickletools import opcodes

from .limits import MAX_NESTING

MAX_TEXT = 1 << 22  # bytes; the longest text is the source of a module
MAX_INTEGER = 32  # bytes
MAX_KEY = 1 << 31  # of dicts with integers as keys
_ORIGINS = {  # first letters of a name -> where such files come from
    "dnnlib.tflib": "it is a pickle of TensorFlow's StyleGAN",
    "torch_utils.persistence": "it is a pickle of whole networks, as StyleGAN2, StyleGAN3 and EG3D save them",
    "__torch__": "it is a TorchScript module",
    "torch.nn": "it is a whole module; save its state_dict() with the code it belongs to",
    "__main__": "it is a whole module or another object; save its state_dict() with the code it belongs to",
    "numpy": "it has NumPy objects; save them as tensors",
    "pytorch_lightning": "it is a Lightning checkpoint with other objects; save its `state_dict` alone",
}
_OPEN, _LEAF, _MOST = (-1, -1), (0, 1), 1 << 60
_OPCODE_NAMES = {ord(opcode.code): opcode.name for opcode in opcodes}


class UnsafeCheckpointError(pickle.UnpicklingError, ValueError):
    """The file holds something else than the data that is expected. Nothing in it has been executed."""


class Inert:
    """What may stand for an object in a pickle: it accepts a state and can list what it contains."""

    def build(self, state: object) -> None:
        """Accept the state that the pickle gives the object."""
        raise UnsafeCheckpointError(f"it sets the state of a {type(self).__name__}")

    def children(self) -> Iterable[object]:
        """The values held, for the check of the nesting."""
        return ()


_CONTAINERS = (dict, list, tuple, Inert)


@dataclass(frozen=True)
class Allowed:
    """A name of the table: what it builds when called with arguments, and as a new object without them."""

    name: str
    call: Callable[[tuple], object] | None = None
    new: Callable[[], object] | None = None


@dataclass
class Budget:
    """What may still be spent on one file, nested pickles included."""

    opcodes: int = 500_000  # a published file takes about 50,000 for each pair of networks
    copied_bytes: int = 0

    def copy(self, count: int) -> None:
        """Account for `count` bytes that are not a view of the file."""
        self.copied_bytes -= count
        if self.copied_bytes < 0:
            raise UnsafeCheckpointError("its content unfolds to more bytes than the file has")


def quote(text: str) -> str:
    """A text of the file for a message: ASCII without control characters, at most 80 of them."""
    return ascii(text)[1:-1][:80]


def kind(value: object) -> str:
    """What a value is, for a message: `os.path` for a name, otherwise the type."""
    return f"`{quote(value.name)}`" if isinstance(value, Allowed) else f"a {type(value).__name__}"


class Machine:
    """Runs one pickle in `data`, from byte `start`; afterwards `position` is the byte behind it.

    Args:
        table: (module, name) -> what it stands for; nothing else can be named.
        budget: shared by the pickles of one file.
        persistent: builds the object of a persistent id; None refuses them.
        integer_keys: let dicts have integers as keys, too.
    Attributes:
        values: how many values the result has if each is counted as often as it is reached.
    """

    def __init__(
        self,
        data: memoryview,
        table: Mapping[tuple[str, str], Allowed],
        budget: Budget,
        *,
        start: int = 0,
        persistent: Callable[[object], object] | None = None,
        integer_keys: bool = False,
    ) -> None:
        self.data, self.table, self.budget, self.persistent = data, table, budget, persistent
        self.position, self.integer_keys, self.values = start, integer_keys, 0
        self.stack: list[object] = []
        self.marked: list[list[object]] = []
        self.memo: list[object] = []
        self.named: set[tuple[str, str]] = set()

    def run(self) -> object:
        """The value of the pickle. Raises: UnsafeCheckpointError for anything that is not plain data of the table."""
        if self.byte() != pickle.PROTO[0]:
            raise UnsafeCheckpointError("it does not start like a binary pickle")
        if (protocol := self.byte()) not in (2, 3, 4, 5):
            raise UnsafeCheckpointError(f"it is a pickle of protocol {protocol}, expected 2 to 5")
        while (code := self.byte()) != pickle.STOP[0]:
            self.budget.opcodes -= 1
            if self.budget.opcodes < 0:
                raise UnsafeCheckpointError("it has more instructions than any checkpoint needs")
            operation = _OPERATIONS.get(code)
            if operation is None:
                name = _OPCODE_NAMES.get(code, hex(code))
                raise UnsafeCheckpointError(f"it uses the opcode {name}, which is not allowed")
            operation(self)
        value = self.pop()
        if self.stack or self.marked:
            raise UnsafeCheckpointError("it ends with unused values on the stack")
        self.values = _count(value)
        return value

    # reading ---------------------------------------------------------------------------------------------------------

    def take(self, count: int) -> memoryview:
        """The next `count` bytes, as a view."""
        end = self.position + count
        if end > len(self.data):
            raise self.cut_short(count)
        view = self.data[self.position : end]
        self.position = end
        return view

    def cut_short(self, count: int) -> UnsafeCheckpointError:
        """The error for `count` bytes where there are fewer."""
        have = f"asks for {count} bytes and has {len(self.data) - self.position}"
        return UnsafeCheckpointError(f"at byte {self.position} it {have}: it is cut short or corrupt")

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def number(self, form: str) -> int:
        """The next number, in the notation of `struct`."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, count: int) -> str:
        """The next `count` bytes, which are UTF-8."""
        if count > MAX_TEXT:
            raise UnsafeCheckpointError(f"it has a text of {count} bytes")
        try:
            return str(self.take(count), "utf-8")
        except UnicodeDecodeError:
            raise UnsafeCheckpointError("it has a text that is not UTF-8") from None

    def line(self) -> str:
        """The text up to the end of the line, as protocols below 4 write names."""
        found = bytes(self.data[self.position : self.position + 256]).find(b"\n")
        if found < 0:
            raise UnsafeCheckpointError("it names something without an end, or with more than 255 letters")
        line = self.text(found)
        self.position += 1
        return line

    # stack -----------------------------------------------------------------------------------------------------------

    def push(self, value: object) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def pop(self) -> object:
        """Take the last value off the stack."""
        if not self.stack:
            raise UnsafeCheckpointError("it takes a value from an empty stack")
        return self.stack.pop()

    def mark(self) -> None:
        """Begin a group of values."""
        if len(self.marked) >= MAX_NESTING:
            raise UnsafeCheckpointError(f"it is nested more than {MAX_NESTING} deep")
        self.marked.append(self.stack)
        self.stack = []

    def pop_group(self) -> list[object]:
        """Take the values since the last mark."""
        if not self.marked:
            raise UnsafeCheckpointError("it ends a group that it did not begin")
        group, self.stack = self.stack, self.marked.pop()
        return group

    def pop_tuple(self, count: int) -> None:
        """Fold the last `count` values into a tuple."""
        self.push(tuple([self.pop() for _ in range(count)][::-1]))

    # memo ------------------------------------------------------------------------------------------------------------

    def store(self, index: int) -> None:
        """Remember the last value; indices are given one after the other."""
        value = self.pop()
        self.push(value)
        if index < len(self.memo):
            self.memo[index] = value
        elif index == len(self.memo):
            self.memo.append(value)
        else:
            raise UnsafeCheckpointError(f"it stores memo entry {index} after {len(self.memo)} entries")

    def recall(self, index: int) -> None:
        """Push a remembered value."""
        if index >= len(self.memo):
            raise UnsafeCheckpointError(f"it uses memo entry {index}, which it has not stored")
        self.push(self.memo[index])

    # containers ------------------------------------------------------------------------------------------------------

    def extend_list(self, values: list[object]) -> None:
        """Append the values to the list on the stack."""
        target = self.pop()
        if type(target) is not list:
            raise UnsafeCheckpointError(f"it appends to {kind(target)}")
        target.extend(values)
        self.push(target)

    def extend_dict(self, values: list[object]) -> None:
        """Set keys and values, in turn, of the dict on the stack. Keys are texts, which no file can make collide."""
        target = self.pop()
        keys = values[::2]
        if not isinstance(target, dict) or len(values) % 2 or not all(map(self.is_key, keys)):
            raise UnsafeCheckpointError(f"it sets items of {kind(target)}, or with keys that are not texts")
        target.update(zip(keys, values[1::2], strict=True))
        self.push(target)

    def is_key(self, value: object) -> bool:
        """Tell whether a dict may have this key."""
        return type(value) is str or (self.integer_keys and type(value) is int and abs(value) < MAX_KEY)

    def extend_set(self, values: list[object]) -> None:
        """Add texts to the set on the stack."""
        target = self.pop()
        if type(target) is not set or not all(type(value) is str for value in values):
            raise UnsafeCheckpointError(f"it adds items to {kind(target)}, or items that are not texts")
        target.update(values)
        self.push(target)

    def set_item(self) -> None:
        """Set one key of the dict on the stack."""
        value = self.pop()
        self.extend_dict([self.pop(), value])

    # objects ---------------------------------------------------------------------------------------------------------

    def name(self, module: object, name: object) -> None:
        """Push what the table has under this name."""
        if type(module) is not str or type(name) is not str:
            raise UnsafeCheckpointError("it names something by values that are not texts")
        if (module, name) not in self.table:
            full = f"{quote(module)}.{quote(name)}"
            hint = next((f" ({told})" for start, told in _ORIGINS.items() if module.startswith(start)), "")
            raise UnsafeCheckpointError(f"it names `{full}`, which is not on the list of allowed names{hint}")
        self.named.add((module, name))
        self.push(self.table[module, name])

    def name_from_stack(self) -> None:
        """Push what is named by the last two values."""
        name = self.pop()
        self.name(self.pop(), name)

    def call(self) -> None:
        """Apply a name of the table to a tuple of arguments."""
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Allowed) or function.call is None or type(arguments) is not tuple:
            raise UnsafeCheckpointError(f"it calls {kind(function)}")
        self.push(function.call(arguments))

    def create(self) -> None:
        """Make an object of a class of the table, without arguments."""
        arguments, cls = self.pop(), self.pop()
        if not isinstance(cls, Allowed) or cls.new is None or arguments != ():
            raise UnsafeCheckpointError(f"it makes an object of {kind(cls)}")
        self.push(cls.new())

    def build(self) -> None:
        """Give the last object its state. That of an OrderedDict, the versions of modules, is dropped."""
        state, target = self.pop(), self.pop()
        versions = type(target) is OrderedDict and type(state) is dict and len(state) == 1 and "_metadata" in state
        if isinstance(target, Inert):
            target.build(state)
        elif not versions:
            raise UnsafeCheckpointError(f"it sets the state of {kind(target)}")
        self.push(target)

    def resolve(self) -> None:
        """Replace a persistent id by its object."""
        if self.persistent is None:
            raise UnsafeCheckpointError("it uses the opcode BINPERSID, a persistent id, which is not allowed")
        self.push(self.persistent(self.pop()))

    def frame(self) -> None:
        """A hint on sizes, of no use here except that it must be true."""
        if (size := self.number("<Q")) > len(self.data) - self.position:
            raise self.cut_short(size)

    def integer(self) -> None:
        """An integer of any (reasonable) length."""
        if (count := self.byte()) > MAX_INTEGER:
            raise UnsafeCheckpointError(f"it has an integer of {count} bytes")
        self.push(int.from_bytes(self.take(count), "little", signed=True))


def _count(value: object) -> int:
    """Count the values that can be reached, each as often as it is, up to 2^60.

    Raises: UnsafeCheckpointError where a value contains itself, or is nested too deep.
    """
    known: dict[int, tuple[int, int]] = {}  # of containers: depth and count
    path = [value]
    while path:
        item = path[-1]
        children = list(_children(item))
        state = known.get(id(item))
        if state is None:
            known[id(item)] = _OPEN
            inner = [child for child in children if isinstance(child, _CONTAINERS)]
            if any(known.get(id(child)) is _OPEN for child in inner):
                raise UnsafeCheckpointError(f"it has {kind(item)} that contains itself")
            path += [child for child in inner if id(child) not in known]
            continue
        if state is _OPEN:
            found = [known.get(id(child), _LEAF) for child in children]
            depth, count = 1 + max((f[0] for f in found), default=0), 1 + sum(f[1] for f in found)
            if depth > MAX_NESTING:
                raise UnsafeCheckpointError(f"it is nested more than {MAX_NESTING} deep")
            known[id(item)] = depth, min(count, _MOST)
        path.pop()
    return known[id(value)][1]


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple):
        return value
    return value.children() if isinstance(value, Inert) else ()


_OPERATIONS: dict[int, Callable[[Machine], object]] = {
    code[0]: operation
    for code, operation in {
        pickle.FRAME: Machine.frame,
        pickle.NONE: lambda m: m.push(None),
        pickle.NEWTRUE: lambda m: m.push(True),
        pickle.NEWFALSE: lambda m: m.push(False),
        pickle.BININT: lambda m: m.push(m.number("<i")),
        pickle.BININT1: lambda m: m.push(m.byte()),
        pickle.BININT2: lambda m: m.push(m.number("<H")),
        pickle.LONG1: Machine.integer,
        pickle.BINFLOAT: lambda m: m.push(m.number(">d")),
        pickle.SHORT_BINUNICODE: lambda m: m.push(m.text(m.byte())),
        pickle.BINUNICODE: lambda m: m.push(m.text(m.number("<I"))),
        pickle.BINUNICODE8: lambda m: m.push(m.text(m.number("<Q"))),
        pickle.SHORT_BINBYTES: lambda m: m.push(m.take(m.byte())),
        pickle.BINBYTES: lambda m: m.push(m.take(m.number("<I"))),
        pickle.BINBYTES8: lambda m: m.push(m.take(m.number("<Q"))),
        pickle.EMPTY_TUPLE: lambda m: m.push(()),
        pickle.TUPLE1: lambda m: m.pop_tuple(1),
        pickle.TUPLE2: lambda m: m.pop_tuple(2),
        pickle.TUPLE3: lambda m: m.pop_tuple(3),
        pickle.TUPLE: lambda m: m.push(tuple(m.pop_group())),
        pickle.EMPTY_LIST: lambda m: m.push([]),
        pickle.EMPTY_DICT: lambda m: m.push({}),
        pickle.EMPTY_SET: lambda m: m.push(set()),
        pickle.APPEND: lambda m: m.extend_list([m.pop()]),
        pickle.APPENDS: lambda m: m.extend_list(m.pop_group()),
        pickle.SETITEM: Machine.set_item,
        pickle.SETITEMS: lambda m: m.extend_dict(m.pop_group()),
        pickle.ADDITEMS: lambda m: m.extend_set(m.pop_group()),
        pickle.MARK: Machine.mark,
        pickle.POP: Machine.pop,
        pickle.POP_MARK: Machine.pop_group,
        pickle.MEMOIZE: lambda m: m.store(len(m.memo)),
        pickle.BINPUT: lambda m: m.store(m.byte()),
        pickle.LONG_BINPUT: lambda m: m.store(m.number("<I")),
        pickle.BINGET: lambda m: m.recall(m.byte()),
        pickle.LONG_BINGET: lambda m: m.recall(m.number("<I")),
        pickle.GLOBAL: lambda m: m.name(m.line(), m.line()),
        pickle.STACK_GLOBAL: Machine.name_from_stack,
        pickle.REDUCE: Machine.call,
        pickle.NEWOBJ: Machine.create,
        pickle.BUILD: Machine.build,
        pickle.BINPERSID: Machine.resolve,
    }.items()
}
