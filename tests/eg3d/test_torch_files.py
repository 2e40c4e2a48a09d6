"""Files of torch.save are read as torch.load reads them; hostile and foreign ones are refused by name."""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eg3d.foreign import read_tensors
from mutations import bounded, on_file, survives
from pickling import Call, Name, dumps
from torch import Tensor, nn

DTYPES = ["float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64"]
REBUILD = Name("torch._utils", "_rebuild_tensor_v2")


def contents() -> dict[str, Any]:
    """Give examples of what files of weights and checkpoints hold."""
    base = torch.arange(24.0)
    trained = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(trained.parameters())
    trained(torch.randn(5, 3, generator=torch.Generator().manual_seed(0))).sum().backward()
    optimizer.step()
    return {
        "dtypes": {name: torch.arange(6).reshape(2, 3).to(getattr(torch, name)) for name in DTYPES},
        "strides": [base.view(4, 6).T, base[3:9:2], base.view(2, 3, 4).permute(2, 0, 1)[1:], base[:2].expand(3, 2)],
        "shared": OrderedDict(a=base, b=base.view(4, 6), c=base[5:7]),
        "odd": (torch.zeros(0, 4), torch.tensor(3.0), {0: "ü", "n": None, "flag": True, "big": 1 << 90, "x": -1.5}),
        "trained": {"modules": trained.state_dict(), "optimizers": [optimizer.state_dict()], "step": 3},
        "parameters": {"w": nn.Parameter(base[:3]), "frozen": nn.Parameter(base[:2], requires_grad=False)},
        "size": base.view(4, 6).shape,
        "tensor": torch.randn(1, 14, 512, generator=torch.Generator().manual_seed(0)),
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return (
            type(a) is type(b)
            and (a.dtype, a.shape, a.stride(), a.requires_grad) == (b.dtype, b.shape, b.stride(), b.requires_grad)
            and torch.equal(a, b)
        )
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", contents())
def test_files_are_read_as_torch_reads_them(tmp_path: Path, name: str, protocol: int, zipped: bool) -> None:
    path = tmp_path / "x.pt"
    torch.save(contents()[name], path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert same(read_tensors(path), torch.load(path, weights_only=False))


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_share_their_storage_and_not_the_file(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "x.pt"
    torch.save(contents()["shared"], path, _use_new_zipfile_serialization=zipped)
    before, found = path.read_bytes(), read_tensors(path)
    assert isinstance(found, dict)
    found["a"].zero_()
    assert not found["b"].any() and not found["c"].any() and path.read_bytes() == before


def test_a_zip_that_was_packed_again_is_read(tmp_path: Path) -> None:
    content = contents()["dtypes"]
    torch.save(content, tmp_path / "x.pt")
    (tmp_path / "y.pt").write_bytes(repacked((tmp_path / "x.pt").read_bytes(), method=zipfile.ZIP_DEFLATED))
    assert same(read_tensors(tmp_path / "y.pt"), content)


def repacked(data: bytes, method: int = zipfile.ZIP_STORED, **changes: bytes) -> bytes:
    """The zip with its members compressed, or with another content; `data_pkl` names `archive/data.pkl`."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, changes.get(name.rpartition("/")[2].replace(".", "_"), old.read(name)))
    return file.getvalue()


def zip_of(pickled: bytes, storage: bytes = bytes(8), method: int = zipfile.ZIP_STORED) -> bytes:
    """A torch file with this pickle and one storage, "0"."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/data/0", storage)
    return file.getvalue()


STORAGE = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0000X\3\0\0\0cpu%stQ"


def storage(count: bytes = b"K\2") -> bytes:
    """Opcodes of a storage of two floats."""
    return STORAGE % count


def tensor(shape: bytes, stride: bytes, offset: bytes = b"K\0", held: bytes = storage()) -> bytes:
    """Opcodes of a tensor."""
    names = b"ctorch._utils\n_rebuild_tensor_v2\n"
    return names + b"(" + held + offset + shape + stride + b"\x89ccollections\nOrderedDict\n)RtR"


def doubled(times: int) -> bytes:
    """Opcodes of a value that is put into a pair with itself again and again: 2^times values from 10 bytes a time."""
    pairs = (b"h%ch%c\x86q%c0" % (i, i, i + 1) for i in range(times))
    return b"K\1q\0000" + b"".join(pairs) + b"h%c" % times


def chain(length: int) -> bytes:
    """Opcodes of a tuple of lists, each of which holds the one before it: flat at first sight, and deep."""
    links = (b"]q%ch%ca0" % (i, i - 1) for i in range(1, length))
    return b"]q\0000" + b"".join(links) + b"(" + b"".join(b"h%c" % i for i in range(length)) + b"t"


HOSTILE: dict[str, tuple[bytes, str]] = {
    "itself in a dict": (zip_of(b"\x80\2}q\0X\5\0\0\0stateh\0s."), "contains itself"),
    "itself as its state dict": (zip_of(b"\x80\2}q\0X\n\0\0\0state_dicth\0s."), "contains itself"),
    "itself in a list": (zip_of(b"\x80\2]q\0h\0a."), "contains itself"),
    "shared tuples": (zip_of(b"\x80\2" + doubled(60) + b"."), "unfolds to more than"),
    "shared tuples as keys": (zip_of(b"\x80\2}" + doubled(60) + b"K\1s."), "keys that are not texts"),
    "shared tuple as shape": (zip_of(b"\x80\2" + tensor(doubled(40), b")") + b"."), "cannot be|reaches outside"),
    "huge count": (zip_of(b"\x80\2" + storage(b"\x8a\x08" + b"\xff" * 7 + b"\x7f") + b"."), "said to have"),
    "negative count": (zip_of(b"\x80\2" + storage(b"J\xff\xff\xff\xff") + b"."), "storage of -1 numbers"),
    "huge text": (zip_of(b"\x80\2X\xff\xff\xff\x7f."), "text of 2147483647 bytes"),
    "huge bytes": (zip_of(b"\x80\4\x8e\xff\xff\xff\xff\xff\xff\xff\x7f."), "cut short"),
    "huge memo": (zip_of(b"\x80\2K\1r\xff\xff\xff\x7f."), "stores memo entry"),
    "expanded": (zip_of(b"\x80\2" + tensor(b"J\xff\xff\xff\x7f\x85", b"K\0\x85") + b"."), "unfolds to more bytes"),
    "many expanded": (
        zip_of(b"\x80\2](" + 9 * tensor(b"J\xff\xff\x7f\0\x85", b"K\0\x85") + b"e."),
        "unfolds to more bytes",
    ),
    "outside": (zip_of(b"\x80\2" + tensor(b"K\3\x85", b"K\1\x85") + b"."), "outside of its storage"),
    "missing storage": (zip_of(b"\x80\2" + storage().replace(b"0X\3", b"9X\3") + b"."), "part data/9 is missing"),
    "call": (zip_of(b"\x80\2cos\nsystem\nX\2\0\0\0id\x85R."), "`os.system`"),
    "deflated zeros": (zip_of(b"\x80\2N.", bytes(70 << 20), zipfile.ZIP_DEFLATED), "unpacks from"),
    "many opcodes": (zip_of(b"\x80\2" + b"N0" * 1_000_001 + b"N.", method=zipfile.ZIP_DEFLATED), "instructions"),
    "deep": (zip_of(b"\x80\2" + b"]" * 5000 + b"a" * 4999 + b"."), "nested more than"),
    "long chain": (zip_of(b"\x80\2" + chain(200) + b"."), "nested more than"),
    "web page": (b"\n<!DOCTYPE html><html>Sign in</html>", "it is a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
    "empty": (b"", "it is empty"),
    "zeros": (bytes(5000), "nothing but zeros"),
    "json": (b'{"message": "Not Found"}', "JSON"),
    "text": (b"Access denied", "a text that starts with 'Access denied'"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5 .*TensorFlow"),
    "gzip": (b"\x1f\x8b\x08" + bytes(100), "gzip"),
    "tar": (b"a.pt" + bytes(253) + b"ustar" + bytes(300), "tar archive; unpack"),
    "plain pickle": (pickle.dumps({"a": 1}), "plain pickle, none that torch.save wrote"),
    "StyleGAN2": (
        dumps({"G": Call(Name("torch_utils.persistence", "_reconstruct_persistent_obj"), ({},))}),
        "StyleGAN2",
    ),
    "TensorFlow": (dumps(Call(Name("dnnlib.tflib.network", "Network"), ())), "TensorFlow's StyleGAN"),
    "other zip": (zip_of(b"").replace(b"data.pkl", b"datb.pkl"), "none that torch.save wrote"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_and_foreign_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    data, told = HOSTILE[name]
    path = tmp_path / "x.pt"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"x\.pt cannot be read as tensors: .*(?:{told}).*Ask for it") as error:
        bounded(lambda: read_tensors(path, remedy="Ask for it."), memory=512 << 20, seconds=10)
    assert "weights_only" not in str(error.value)


def test_whole_modules_and_programs_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(ValueError, match=r"module\.pt .*`torch\.nn\.modules\.linear\.Linear`.*state_dict\(\)"):
        read_tensors(tmp_path / "module.pt")
    torch.save({"opts": np.float64(1)}, tmp_path / "numpy.pt")
    with pytest.raises(ValueError, match=r"numpy\.pt .*NumPy objects; save them as tensors"):
        read_tensors(tmp_path / "numpy.pt")
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(tmp_path / "script.pt"))
    with pytest.raises(ValueError, match=r"script\.pt .*TorchScript"):
        read_tensors(tmp_path / "script.pt")


def saved(content: Any, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def inside(load: Callable[[bytes], object], whole: bytes) -> Callable[[bytes], object]:
    """A reader of the pickle in a zip."""
    return lambda data: load(repacked(whole, data_pkl=data))


def test_mutated_files(tmp_path: Path) -> None:
    load, content = on_file(tmp_path / "x.pt", read_tensors), {**contents()["dtypes"], **contents()["trained"]}
    survives(load, [saved(content), saved(contents()["tensor"])])
    survives(load, [saved(content, zipped=False), saved(contents()["shared"], zipped=False)])
    whole = saved(content)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        survives(inside(load, whole), [archive.read("archive/data.pkl")])
