"""Published pickles are read as data; anything else is refused by name, quickly, and nothing in it is executed."""

import io
import itertools
import pickle
import pickletools
import struct
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eg3d.published import Snapshot, read_snapshot, tensors
from eg3d.unpickle import UnsafeCheckpointError
from pickling import Call, Name, New, Writer, dumps, easy, module_state, persistent, source

STORAGE = Name("torch.storage", "_load_from_bytes")
TENSOR = Name("torch._utils", "_rebuild_tensor_v2")
LAYER = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.tensor([0.5, -0.5])}


def read(folder: Path, data: bytes) -> Snapshot:
    path = folder / "file.pkl"
    path.write_bytes(data)
    return read_snapshot(path)


def network(marker: Path | None = None, **attributes: Any) -> Call:
    """A persistent module with two parameters, one buffer, a numpy number and a child stored by its class name."""
    child = New(Name("torch.nn.modules.container", "Sequential"), module_state(_buffers={"step": torch.tensor(7)}))
    state = module_state(weight_gain=np.float64(0.25), flag=np.bool_(True), _init_args=(), _init_kwargs=easy(c_dim=25))
    state["_parameters"] = {name: torch.nn.Parameter(value) for name, value in LAYER.items()} | {"absent": None}
    state["_modules"] = {"net": child}
    return persistent("TriPlaneGenerator", state | attributes, source(marker))


class Collect(Writer):
    """Keeps the first byte string, which is the storage of the first tensor."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO())
        self.found = b""

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, bytes) and not self.found:
            self.found = obj
        super().save(obj, save_persistent_id)


def storage_bytes(
    *, count: int = 2, written: int | None = None, raw: bytes = bytes(8), kind: Name | None = None, **parts: bytes
) -> bytes:
    """A storage that stands alone, with chosen counts, or with one of its five pickles replaced."""
    written_by_torch = Collect()
    written_by_torch.dump(torch.tensor([1.0, 2.0]))
    data = written_by_torch.found[: -8 - 8]
    ends = [0]
    for _ in range(5):
        stream = io.BytesIO(data[ends[-1] :])
        list(pickletools.genops(stream))
        ends.append(ends[-1] + stream.tell())
    pieces = {f"part{i}": data[a:b] for i, (a, b) in enumerate(itertools.pairwise(ends))}
    if kind is not None:
        pieces["part3"] = pieces["part3"].replace(b"ctorch\nFloatStorage", f"c{kind.module}\n{kind.name}".encode())
    pieces["part3"] = pieces["part3"].replace(b"K\x02N", b"\x8a\x09" + count.to_bytes(9, "little", signed=True) + b"N")
    return b"".join((pieces | parts).values()) + struct.pack("<Q", count if written is None else written) + raw


def tensor(offset: Any = 0, size: Any = (2,), stride: Any = (1,), data: bytes | None = None, hooks: Any = None) -> Call:
    storage = Call(STORAGE, (storage_bytes() if data is None else data,))
    return Call(TENSOR, (storage, offset, size, stride, False, {} if hooks is None else hooks))


def holding(value: Any) -> bytes:
    """A file in which a module has this attribute."""
    return dumps({"G_ema": network(attribute=value)})


# What is read ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("numpy_names", ["old", "new"])
def test_reads_the_published_layout(tmp_path: Path, protocol: int, numpy_names: str) -> None:
    marker = tmp_path / "marker"
    content = {
        "training_set_kwargs": easy(path="x.zip", resolution=512),
        "G_ema": network(marker),
        "augment_pipe": None,
    }
    if protocol == 2:  # names more of Python than is allowed; nobody published such a file
        with pytest.raises(UnsafeCheckpointError, match=r"`__builtin__\.set`"):
            read(tmp_path, dumps(content, protocol, numpy_names))
        return
    snapshot = read(tmp_path, dumps(content, protocol, numpy_names))
    generator = snapshot.network("G_ema")
    assert snapshot.networks() == ["G_ema"] and snapshot.numpy_names == numpy_names
    assert snapshot.content["training_set_kwargs"] == {"path": "x.zip", "resolution": 512}
    assert generator.class_name == "TriPlaneGenerator" and generator.state is not None
    assert generator.state["weight_gain"] == 0.25 and type(generator.state["weight_gain"]) is float
    assert generator.state["flag"] is True and generator.state["_init_kwargs"] == {"c_dim": 25}
    read_back = {name: record.read() for name, record in tensors(generator).items()}
    assert list(read_back) == ["weight", "bias", "net.step"]
    for name, value in {**LAYER, "net.step": torch.tensor(7)}.items():
        assert torch.equal(read_back[name], value) and read_back[name].dtype == value.dtype
    assert not marker.exists()


def test_reads_views_of_a_storage(tmp_path: Path) -> None:
    base = torch.arange(24.0).view(4, 6)
    views = {"t": base.t(), "part": base[1:3, ::2], "empty": base[:0], "scalar": base[2, 3], "half": base.half()[:, 1]}
    state = module_state(_buffers=views)
    record = read(tmp_path, dumps({"D": persistent("Any", state, "")})).network("D")
    for name, value in tensors(record).items():
        assert torch.equal(value.read(), views[name]) and value.shape == tuple(views[name].shape)


def test_buffers_that_are_not_persistent_are_left_out(tmp_path: Path) -> None:
    state = module_state(_buffers={"a": torch.ones(1), "b": torch.ones(1)}, _non_persistent_buffers_set={"b"})
    assert list(tensors(read(tmp_path, dumps({"G": persistent("X", state, "")})).network("G"))) == ["a"]


def test_what_is_read_stays_valid_after_the_file_is_gone(tmp_path: Path) -> None:
    record = tensors(read(tmp_path, dumps({"G": network()})).network("G"))["weight"]
    (tmp_path / "file.pkl").unlink()
    assert torch.equal(record.read(), LAYER["weight"])


def test_a_network_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no network 'G_ema'; it has: G"):
        read(tmp_path, dumps({"G": network(), "G_ema": None})).network("G_ema")


# What is refused ------------------------------------------------------------------------------------------------------

EVAL = Name("builtins", "eval")
DEEP = 100_000
RAW = {  # written by hand: opcodes that no pickler of data emits
    "inst": (b"\x80\x04(X\x02\x00\x00\x00:;ios\nsystem\n.", "INST"),
    "obj": (b"\x80\x04(cos\nsystem\nX\x02\x00\x00\x00:;o.", "os.system"),
    "obj of an allowed name": (b"\x80\x04(ccollections\nOrderedDict\no.", "OBJ"),
    "newobj_ex": (b"\x80\x04ccollections\nOrderedDict\n)}\x92.", "NEWOBJ_EX"),
    "extension registry, one byte": (b"\x80\x04\x82\x01.", "EXT1"),
    "extension registry, two bytes": (b"\x80\x04\x83\x01\x00.", "EXT2"),
    "extension registry, four bytes": (b"\x80\x04\x84\x01\x00\x00\x00.", "EXT4"),
    "persistent id, text": (b"\x80\x04Pos.system\n.", "PERSID"),
    "persistent id": (b"\x80\x04K\x01Q.", "BINPERSID"),
    "out-of-band buffer": (b"\x80\x05\x97.", "NEXT_BUFFER"),
    "huge byte array": (b"\x80\x05\x96" + struct.pack("<Q", 1 << 60), "BYTEARRAY8"),
    "huge bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62), "cut short"),
    "huge text": (b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62), "text of"),
    "huge frame": (b"\x80\x04\x95" + struct.pack("<Q", 1 << 63), "cut short"),
    "huge integer": (b"\x80\x04\x8b" + struct.pack("<i", 1 << 30), "LONG4"),
    "long integer": (b"\x80\x04\x8a\xff" + bytes(255) + b".", "integer of 255"),
    "decimal integer": (b"\x80\x04I1\n.", "opcode INT"),
    "memo index far away": (b"\x80\x04}r\xff\xff\xff\xff.", "memo entry 4294967295"),
    "memo entry never stored": (b"\x80\x04j\x09\x00\x00\x00.", "memo entry 9"),
    "empty stack": (b"\x80\x04.", "empty stack"),
    "group never begun": (b"\x80\x04t.", "did not begin"),
    "group never ended": (b"\x80\x04(N.", "unused values"),
    "deep groups": (b"\x80\x04" + b"(" * DEEP, "nested more than"),
    "deep tuples": (b"\x80\x04N" + b"\x85" * DEEP + b".", "nested more than"),
    "deep lists": (b"\x80\x04" + b"]" * DEEP + b"a" * (DEEP - 1) + b".", "nested more than"),
    "deep dict key": (b"\x80\x04})" + b"\x85" * DEEP + b"Ns.", "not texts"),
    "exponential tuples": (
        b"\x80\x04)" + b"\x942" * 0 + b"".join(b"q%ch%c\x86" % (i, i) for i in range(90)) + b".",
        "expected a dict",
    ),
    "exponential dict key": (b"\x80\x04})" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(90)) + b"Ns.", "not texts"),
    "colliding integer keys": (b"\x80\x04}(K\x01K\x02u.", "not texts"),
    "more instructions than needed": (b"\x80\x04" + b"N0" * 300_000 + b"N.", "more instructions"),
    "unknown opcode": (b"\x80\x04\xff.", "0xff"),
    "text pickle": (b"(dp0\n.", "it is a text that starts"),
    "protocol of the future": (b"\x80\x09N.", "protocol 9"),
    "name without an end": (b"\x80\x04c" + b"a" * 400, "without an end"),
    "name of two numbers": (b"\x80\x04K\x01K\x02\x93.", "not texts"),
    "text that is not utf-8": (b"\x80\x04\x8c\x02\xff\xfe.", "UTF-8"),
    "append to a tuple": (b"\x80\x04)Na.", "appends to a tuple"),
    "items of a list": (b"\x80\x04]\x8c\x01aNs.", "items of a list"),
    "add to a list": (b"\x80\x04](\x8c\x01a\x90.", "adds items to a list"),
    "unhashable in a set": (b"\x80\x04\x8f(]\x90.", "not texts"),
    "not a pickle": (b"P6\n1 1\n255\nabc", "it is a text that starts"),
    "random text": (b"Lorem ipsum dolor sit amet", "it is a text that starts"),
    "web page": (b"\n<!DOCTYPE html><html>", "web page"),
    "empty": (b"", "empty"),
    "only a header": (b"\x80\x04", "cut short"),
}
NAMED = {  # calls and objects; the message names what was found
    "os.system": (Call(Name("os", "system"), (":",)), "`os.system`"),
    "posix.system": (Call(Name("posix", "system"), (":",)), "`posix.system`"),
    "subprocess": (Call(Name("subprocess", "Popen"), ((":",),)), "`subprocess.Popen`"),
    "builtins.eval": (Call(EVAL, ("1",)), "`builtins.eval`"),
    "builtins.exec": (Call(Name("builtins", "exec"), ("1",)), "`builtins.exec`"),
    "builtins.getattr": (Call(Name("builtins", "getattr"), ("", "join")), "`builtins.getattr`"),
    "python 2's builtins": (Call(Name("__builtin__", "eval"), ("1",)), "`__builtin__.eval`"),
    "nested reduce": (Call(Call(EVAL, ("eval",)), ("1",)), "`builtins.eval`"),
    "reduce of an allowed result": (Call(Call(Name("collections", "OrderedDict"), ()), ("1",)), "calls a dict"),
    "torch.load": (Call(Name("torch", "load"), ("x",)), "`torch.load`"),
    "the unrestricted storage reader": (Call(Name("torch.serialization", "_legacy_load"), (b"",)), "_legacy_load"),
    "dotted name": (Call(Name("torch", "os.system"), (":",)), "`torch.os.system`"),
    "dotted name under an allowed one": (Name("collections", "OrderedDict.__init__.__globals__"), "__globals__"),
    "attribute of an allowed function": (
        Name("torch_utils.persistence", "_reconstruct_persistent_obj.__code__"),
        "__code__",
    ),
    "allowed name of another module": (Name("collections.abc", "OrderedDict"), "`collections.abc.OrderedDict`"),
    "control characters": (Name("os\x1b[2J\n", "system"), r"os\\x1b\[2J\\n.system"),
    "unknown class": (New(Name("training.triplane", "Other"), {}), "`training.triplane.Other`"),
    "call of a class": (Call(Name("training.triplane", "OSGDecoder"), (1,)), "calls `training.triplane.OSGDecoder`"),
    "object of a function": (New(TENSOR), "object of `torch._utils._rebuild_tensor_v2`"),
    "arguments of a dict": (Call(Name("collections", "OrderedDict"), ([("a", 1)],)), "makes a dict from"),
    "setstate of a dict": (Call(Name("collections", "OrderedDict"), (), {"__class__": 1}), "state of a dict"),
    "state with slots": (New(Name("training.triplane", "OSGDecoder"), (None, {"__class__": 1})), "unusual way"),
    "state of a tensor": (Call(TENSOR, tensor().arguments, {"__setstate__": EVAL}), "`builtins.eval`"),
    "second state": (Call(network().function, network().arguments, {"a": 1}), "unusual way"),
    "dict with a subclass's state": (New(Name("dnnlib.util", "EasyDict"), {"__dict__": {}}), "state of a dict"),
    "numpy object": (Call(Name("numpy", "dtype"), ("O8", False, True)), "type O8"),
    "numpy number of few bytes": (
        Call(Name("numpy._core.multiarray", "scalar"), (Call(Name("numpy", "dtype"), ("f8", False, True)), b"abc")),
        "in 3 bytes",
    ),
    "numpy number, big-endian": (
        Call(Name("numpy", "dtype"), ("f8", False, True), (3, ">", None, None, None, -1, -1, 0)),
        "layout",
    ),
    "set of tuples": (Call(Name("builtins", "set"), ([()],)), "set of something"),
    "set from a text": (Call(Name("builtins", "set"), ("abc",)), "makes a set from"),
    "record of another type": (persistent("A", {}, "", type="func"), "type 'func', version 6"),
    "record of another version": (persistent("A", {}, "", version=7), "version 7"),
    "record of version true": (persistent("A", {}, "", version=6.0), "version a float"),
    "record with more fields": (persistent("A", {}, "", hook="x"), "other fields"),
    "record without state": (persistent("A", None, ""), "unusual way"),
    "record of an odd name": (persistent("A B", {}, ""), "class name"),
    "record from nothing": (
        Call(Name("torch_utils.persistence", "_reconstruct_persistent_obj"), ()),
        "persistent object from",
    ),
    "code in a storage": (Call(STORAGE, (dumps(Call(Name("os", "system"), (":",))),)), "`os.system`"),
    "zip in a storage": (Call(STORAGE, (b"PK\x03\x04" + bytes(40),)), "binary pickle"),
    "storage cut short": (Call(STORAGE, (storage_bytes()[:-3],)), "in 5 bytes"),
    "storage with a tail": (Call(STORAGE, (storage_bytes(raw=bytes(12)),)), "in 12 bytes"),
    "huge storage": (Call(STORAGE, (storage_bytes(count=1 << 60),)), "hold 1152921504606846976"),
    "storage of negative size": (Call(STORAGE, (storage_bytes(count=-2, written=2),)), "-2"),
    "storage of two sizes": (Call(STORAGE, (storage_bytes(written=3),)), "2 and 3"),
    "storage of a foreign class": (Call(STORAGE, (storage_bytes(kind=Name("os", "system")),)), "`os.system`"),
    "storage from a text": (Call(STORAGE, ("abc",)), "makes a storage from"),
    "tensor, negative stride": (tensor(stride=(-1,)), r"\(0, 2, -1\)"),
    "tensor, negative offset": (tensor(offset=-1), r"\(-1, 2, 1\)"),
    "tensor, negative size": (tensor(size=(-2,)), r"\(0, -2, 1\)"),
    "tensor, fractional size": (tensor(size=(2.0,)), "float"),
    "tensor, true for one": (tensor(size=(True,)), "bool"),
    "tensor, huge size": (tensor(size=(1 << 60,)), "outside of its storage"),
    "tensor, huge without stride": (tensor(size=(1 << 60,), stride=(0,)), "cannot be"),
    "tensor, huge offset": (tensor(offset=1 << 60), "outside of its storage"),
    "tensor, one too far": (tensor(offset=1), "outside of its storage"),
    "tensor, empty and far away": (tensor(offset=9, size=(0,)), "outside of its storage"),
    "tensor, shape and stride differ": (tensor(size=(1, 2)), "cannot be"),
    "tensor, many dimensions": (tensor(size=(1,) * 9, stride=(1,) * 9), "cannot be"),
    "tensor, hooks": (tensor(hooks={"a": 1}), "cannot be"),
    "tensor, no storage": (Call(TENSOR, ("x", 0, (2,), (1,), False, {})), "makes a tensor from"),
    "parameter of a text": (Call(Name("torch._utils", "_rebuild_parameter"), ("x", False, {})), "parameter from"),
}
IN_A_STORAGE = {f"part{i}": dumps(Call(Name("os", "system"), (":",)), 2) for i in range(5)}


@pytest.mark.parametrize("name", RAW)
def test_refuses_raw(tmp_path: Path, name: str) -> None:
    data, message = RAW[name]
    with pytest.raises(UnsafeCheckpointError, match=message):
        read(tmp_path, data)


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("wrap", [dumps, holding], ids=["bare", "nested"])
def test_refuses_named(tmp_path: Path, name: str, wrap: Any) -> None:
    value, message = NAMED[name]
    with pytest.raises(UnsafeCheckpointError, match=message):
        read(tmp_path, wrap(value))


@pytest.mark.parametrize("part", IN_A_STORAGE)
def test_refuses_code_in_each_pickle_of_a_storage(tmp_path: Path, part: str) -> None:
    data = storage_bytes(**{part: IN_A_STORAGE[part]})
    with pytest.raises(UnsafeCheckpointError, match=r"`os\.system`"):
        read(tmp_path, dumps(Call(STORAGE, (data,))))
    with pytest.raises(UnsafeCheckpointError):
        read(tmp_path, dumps(Call(STORAGE, (storage_bytes(**{part: pickle.dumps({"a": 1}, 2)}),))))


def attacks(marker: Path) -> dict[str, Call]:
    """Pickles that create the file `marker` under Python's own reader."""
    touch = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    return {
        "system": Call(Name("os", "system"), (f"touch {marker}",)),
        "eval": Call(EVAL, (touch,)),
        "exec": Call(Name("builtins", "exec"), (touch,)),
        "getattr": Call(Call(Name("builtins", "getattr"), (Name("os", "path"), "exists")), (Call(EVAL, (touch,)),)),
        "dotted": Call(Name("pickle", "codecs.builtins.eval"), (touch,)),
        "storage": Call(STORAGE, (pickle.dumps(0x1950A86A20F9469CFC6C, 2) + dumps(Call(EVAL, (touch,)), 2),)),
    }


@pytest.mark.parametrize("name", ["system", "eval", "exec", "getattr", "dotted", "storage"])
@pytest.mark.parametrize("wrap", [dumps, holding], ids=["bare", "nested"])
def test_attacks_that_work_elsewhere_do_nothing_here(tmp_path: Path, name: str, wrap: Any) -> None:
    marker = tmp_path / "marker"
    attack = attacks(marker)[name]
    with pytest.raises(UnsafeCheckpointError, match="`"):
        read(tmp_path, wrap(attack))
    assert not marker.exists()
    try:  # the attack is a real one
        pickle.loads(dumps(attack))
    except Exception as error:
        assert name == "storage" or not isinstance(error, pickle.UnpicklingError), error
    assert marker.exists()


def test_reading_imports_nothing(tmp_path: Path) -> None:
    before = set(sys.modules)
    read(tmp_path, dumps({"G_ema": network()}))
    with pytest.raises(UnsafeCheckpointError):
        read(tmp_path, dumps(Name("antigravity", "geohash")))
    assert set(sys.modules) - before <= {"mmap"}


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data = dumps({"G": network(), "G_ema": network()})
    for length in range(0, len(data), 7):
        with pytest.raises(UnsafeCheckpointError):
            read(tmp_path, data[:length])


def test_a_zip_archive_is_called_by_its_name(tmp_path: Path) -> None:
    torch.save({"G_ema": torch.ones(2)}, tmp_path / "archive.pkl")
    with pytest.raises(UnsafeCheckpointError, match=r"zip archive, as torch\.save writes"):
        read_snapshot(tmp_path / "archive.pkl")
    torch.save({"G_ema": torch.ones(2)}, tmp_path / "old.pkl", _use_new_zipfile_serialization=False)
    with pytest.raises(UnsafeCheckpointError, match=r"torch\.save file in the format before"):
        read_snapshot(tmp_path / "old.pkl")


def test_modules_that_contain_themselves_or_too_much(tmp_path: Path) -> None:
    state = module_state()
    loop = persistent("Loop", state, "")
    inner = New(Name("torch.nn.modules.container", "Sequential"), state)
    state["_modules"]["again"] = inner
    with pytest.raises(UnsafeCheckpointError, match="contains itself"):
        tensors(read(tmp_path, dumps({"G": loop})).network("G"))
    doubled: Any = New(Name("torch.nn.modules.container", "Sequential"), module_state())
    for _ in range(20):
        doubled = New(doubled.kind, module_state(_modules={"a": doubled, "b": doubled}))
    with pytest.raises(UnsafeCheckpointError, match="more than 10000 modules"):
        tensors(read(tmp_path, dumps({"G": doubled})).network("G"))


@pytest.mark.parametrize(
    ("part", "content", "message"),
    [
        ("_parameters", {"weight": "text"}, "entry weight is a str"),
        ("_buffers", {"weight": Name("collections", "OrderedDict")}, "entry weight is `collections.OrderedDict`"),
        ("_modules", {"net": 3}, "module net is a int"),
        ("_modules", {"n" * 200: None}, "names of over"),
        ("_buffers", [], "no _buffers"),
    ],
)
def test_modules_with_something_else_inside(tmp_path: Path, part: str, content: Any, message: str) -> None:
    record = read(tmp_path, dumps({"G": persistent("G", module_state(**{part: content}), "")})).network("G")
    with pytest.raises(UnsafeCheckpointError, match=message):
        tensors(record)


BOMBS = """
    import resource, sys, time
    from pathlib import Path
    from eg3d.published import read_snapshot
    from eg3d.unpickle import UnsafeCheckpointError
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)
    for path in sorted(Path(sys.argv[1]).iterdir()):
        start = time.process_time()
        try:
            read_snapshot(path)
            print(path.name, "was read")
        except UnsafeCheckpointError:
            pass
        if time.process_time() - start > 5:
            print(path.name, "took", time.process_time() - start)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the use of memory from /proc")
def test_bombs_cost_little_time_and_memory(tmp_path: Path) -> None:
    big = {
        "sets": b"\x80\x04" + b"\x8f" * 1_000_000,
        "memo": b"\x80\x04N" + b"\x94" * 1_000_000,
        "names": b"\x80\x04" + b"ccollections\nOrderedDict\n)R" * 300_000,
        "storages": b"\x80\x04ctorch.storage\n_load_from_bytes\nq\x00"
        + (b"B" + struct.pack("<I", len(storage_bytes())) + storage_bytes() + b"\x85q\x01")
        + b"h\x00h\x01R" * 300_000,
        "copied sets": b"\x80\x04cbuiltins\nset\nq\x00]("
        + b"\x8c\x01a" * 100_000
        + b"e\x85q\x01"
        + b"h\x00h\x01R" * 100_000,
    }
    words = ("huge", "deep", "exponential", "far away", "more instructions")
    big |= {name: data for name, (data, _) in RAW.items() if any(word in name for word in words)}
    for name, data in big.items():
        (tmp_path / name.replace(" ", "_")).write_bytes(data)
    command = [sys.executable, "-c", textwrap.dedent(BOMBS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr[-2000:]
