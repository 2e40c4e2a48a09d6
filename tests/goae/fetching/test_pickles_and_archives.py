"""Nothing that a fetched file holds is run: hostile pickles, archives and network files."""

import gzip
import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mutations import bounded, on_file, survives
from pickling import Call, Name, dumps

from goae.fetching.archives import read_member
from goae.fetching.convert import ALEX, alex_trunk
from goae.fetching.dlib_net import face_resnet, layers
from goae.fetching.pickles import load_arrays


def test_arrays_come_back_as_they_went_in() -> None:
    rng = np.random.default_rng(0)
    content = {
        "a": {"b": rng.standard_normal((2, 3)).astype("f4")},
        "c": np.asfortranarray(rng.standard_normal((3, 2))),
    }
    content["d"] = np.arange(4, dtype="i8")
    for protocol in (3, 4):  # with inline bytes, as the archives have them
        read = load_arrays(pickle.dumps(content, protocol))
        assert read.keys() == {"a.b", "c", "d"}
        np.testing.assert_array_equal(read["a.b"], content["a"]["b"])
        np.testing.assert_array_equal(read["c"], content["c"])
        assert read["d"].dtype == np.int64 and read["d"].flags.writeable


class _Call:
    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def _doubled(value: Any, times: int) -> Any:
    for _ in range(times):
        value = {"a": value, "b": value}
    return value


def _deep(name: str, depth: int) -> Any:
    value: Any = {"x": np.zeros(2)}
    for _ in range(depth):
        value = {name: value}
    return value


def _array(data: bytes) -> Call:
    """An array with these bytes, which the pickle has once, however many arrays have them."""
    dtype = Call(Name("numpy", "dtype"), ("u1", False, True), (3, "|", None, None, None, -1, -1, 0))
    made = (Name("numpy", "ndarray"), (0,), b"b")
    return Call(Name("numpy._core.multiarray", "_reconstruct"), made, state=(1, (len(data),), dtype, False, data))


ZEROS = bytes(9_000_000)
HOSTILE = {
    "system": pickle.dumps(_Call(os.system, "touch made")),
    "eval": pickle.dumps({"a": _Call(eval, "open('made', 'w')")}),
    "nested": pickle.dumps({"a": _Call(getattr, _Call(__import__, "os"), "system")}),
    "frombuffer": pickle.dumps(_Call(np.frombuffer, b"1234")),
    "objects": pickle.dumps({"a": np.array([{}], dtype=object)}),
    "text": pickle.dumps({"a": np.array(["x"])}),
    "list": pickle.dumps([1]),
    "number": pickle.dumps({"a": 1}),
    "keys": pickle.dumps({1: np.zeros(2)}),
    "big endian": pickle.dumps({"a": np.zeros(2, ">f4")}),
    "short": pickle.dumps({"a": np.zeros(100)})[:-50],
    "empty": b"",
    "persistent": b"\x80\x02X\x01\x00\x00\x00aQ.",
    # BUILD with a slot state on a class, which would replace one of its methods
    "class attribute": b"\x80\x02cnumpy\nndarray\nN}X\x01\x00\x00\x00xX\x01\x00\x00\x00ys\x86b.",
    "huge count": b"\x80\x02B\xff\xff\xff\x7fabc.",
    # 9 bytes that made Python's own reader take 4.5 GB: the place of a memo entry, and the length of a text
    "far memo": b"\x80\x02Nr\xff\xff\xff\x0f.",
    "long text": b"\x80\x04\x8c\xff\x8d\xff\xff\xff\xff\0\0\0\0.",
    "shared dicts": pickle.dumps(_doubled({"x": np.zeros(2)}, 30), 4),
    "long names": pickle.dumps(_deep("n" * 4_000_000, 50), 4),
    "shared bytes": dumps({str(i): _array(ZEROS) for i in range(500)}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_everything_but_plain_arrays_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"x\.ckpt cannot be read"):
        bounded(lambda: load_arrays(HOSTILE[kind], "x.ckpt"), memory=256 << 20, seconds=10)
    assert not list(tmp_path.iterdir())
    assert load_arrays(pickle.dumps({"a": np.ones(2)}))["a"].sum() == 2.0  # the reader is as it was


def test_a_refusal_names_what_was_asked_for() -> None:
    with pytest.raises(ValueError, match=r"names `(posix|nt)\.system`, which is not on the list"):
        load_arrays(HOSTILE["system"])
    with pytest.raises(ValueError, match=r"sets the state of `numpy\.ndarray`"):
        load_arrays(HOSTILE["class attribute"])


def _flax(shapes: list[tuple[int, ...]]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    convs = {
        f"Conv_{i}": {"kernel": rng.standard_normal(s).astype("f4"), "bias": np.zeros(s[-1], "f4")}
        for i, s in enumerate(shapes)
    }
    return {"AlexNet_0": convs}


def test_a_trunk_is_transposed_and_renamed() -> None:
    tree = _flax([(11, 11, 3, 4), (5, 5, 4, 6), (3, 3, 6, 8), (3, 3, 8, 8), (3, 3, 8, 8)])
    state = alex_trunk(pickle.dumps(tree))
    assert set(state) == {f"net.{name}.{what}" for name in ALEX for what in ("weight", "bias")}
    kernel = tree["AlexNet_0"]["Conv_1"]["kernel"]
    assert state["net.slice2.3.weight"].shape == (6, 4, 5, 5)
    assert state["net.slice2.3.weight"][5, 3, 1, 2] == kernel[1, 2, 3, 5]
    with pytest.raises(ValueError, match=r"no convolution AlexNet_0\.Conv_4"):
        alex_trunk(pickle.dumps(_flax([(3, 3, 3, 3)] * 4)))


def _tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_single_members_are_read_without_unpacking(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar.gz", [(tarfile.TarInfo("p/setup.py"), b"boom"), (tarfile.TarInfo("p/x"), b"data")])
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("p/x", b"data")
    assert read_member(archive, "p/x") == read_member(tmp_path / "a.whl", "p/x") == b"data"
    assert len(list(tmp_path.iterdir())) == 2
    for file in (archive, tmp_path / "a.whl"):
        with pytest.raises(ValueError, match="has no member p/y"):
            read_member(file, "p/y")


def test_links_and_paths_that_lead_outside_are_refused(tmp_path: Path) -> None:
    link = tarfile.TarInfo("p/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    outside, device = tarfile.TarInfo("../x"), tarfile.TarInfo("p/dev")
    device.type = tarfile.CHRTYPE
    archive = _tar(tmp_path / "a.tar.gz", [(link, b""), (outside, b"x"), (device, b"")])
    for member in ("p/link", "../x", "p/dev"):
        with pytest.raises(ValueError):
            read_member(archive, member)


def test_damaged_and_oversized_archives_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = _tar(tmp_path / "a.tar.gz", [(tarfile.TarInfo("x"), os.urandom(5000))])
    monkeypatch.setattr("goae.fetching.archives.MAX_MEMBER", 4000)
    with pytest.raises(ValueError, match="5000 bytes; at most 4000"):
        read_member(archive, "x")
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"a\.tar\.gz"):
        read_member(archive, "y")


def test_archives_that_unpack_to_far_more_are_left_alone(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    with gzip.open(archive, "wb", compresslevel=1) as file:
        for _ in range(8):
            file.write(_header("zeros", size=10 << 20) + bytes(10 << 20))
        file.write(_header("x", size=1) + bytes(512))
    with pytest.raises(ValueError, match=r"a\.tar\.gz cannot be read: it unpacks to far more than it takes"):
        bounded(lambda: read_member(archive, "x"), memory=256 << 20, seconds=10)
    archive.write_bytes(_header("long", size=3 << 30, kind=tarfile.XHDTYPE) + bytes(2048))
    with pytest.raises(ValueError, match=r"a\.tar\.gz cannot be read"):
        bounded(lambda: read_member(archive, "x"), memory=256 << 20, seconds=10)


def _header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.USTAR_FORMAT)


def test_mutated_files_of_all_kinds(tmp_path: Path) -> None:
    arrays = pickle.dumps({"a": {"b": np.ones((2, 3), "f4")}, "c": np.arange(4)}, 4)
    survives(load_arrays, [arrays, pickle.dumps({"a": np.zeros(3)}, 3)])
    members = [(tarfile.TarInfo(name), data) for name, data in (("p/x", b"data" * 50), ("p/y", b"more"))]
    archive = _tar(tmp_path / "a.tar.gz", members)
    with zipfile.ZipFile(tmp_path / "a.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("p/x", b"data" * 50)
    zipped, plain = archive.read_bytes(), gzip.decompress(archive.read_bytes())
    load = on_file(tmp_path / "mutated", lambda path: read_member(path, "p/x"))
    survives(load, [zipped, (tmp_path / "a.whl").read_bytes()])
    survives(load, [plain[:3072]])  # without the padding
    layer = b"\x01\x01\x01\x0dloss_metric_2" + _layer("con_4", np.zeros(40)) + _layer("fc_2", np.ones(6), 2, 3)
    survives(layers, [layer])


def _whole(value: int) -> bytes:
    data = value.to_bytes((value.bit_length() + 7) // 8 or 1, "little")
    return bytes([len(data)]) + data


def _layer(kind: str, values: np.ndarray, *before: int) -> bytes:
    sizes = b"".join(_whole(n) for n in (2, values.size, 1, 1, 1))
    name = kind.encode()
    return (
        b"\x01\x00" + _whole(len(name)) + name + b"".join(map(_whole, before)) + sizes + values.astype("<f4").tobytes()
    )


def _dlib_file(rng: np.random.Generator) -> tuple[bytes, list[np.ndarray]]:
    """The face-recognition network's layers in dlib's layout, with random numbers."""
    widths = [32] * 7 + [64] * 8 + [128] * 6 + [256] * 8
    arrays, channels, data = [], 3, b"\x01\x01\x01\x0dloss_metric_2"
    for i, width in enumerate(widths):
        arrays += [rng.standard_normal(width * (channels * (49 if i == 0 else 9) + 1)), rng.standard_normal(2 * width)]
        data += _layer("con_4", arrays[-2]) + b"\x01\x07" + _layer("affine_", arrays[-1]) + b"\x01\x05relu_"
        channels = width
    arrays.append(rng.standard_normal(256 * 128))
    return data + _layer("fc_2", arrays[-1], 128, 256), arrays


def test_a_network_file_of_dlib_becomes_our_state() -> None:
    data, arrays = _dlib_file(np.random.default_rng(0))
    state = face_resnet(data)
    np.testing.assert_array_equal(state["stem.conv.weight"], arrays[0][:-32].astype("f4").reshape(32, 3, 7, 7))
    np.testing.assert_array_equal(state["blocks.3.unit1.scale"], arrays[15][:64].astype("f4"))
    np.testing.assert_array_equal(state["blocks.13.unit2.shift"], arrays[57][256:].astype("f4"))
    np.testing.assert_array_equal(state["embedding.weight"], arrays[58].astype("f4").reshape(256, 128).T)
    assert sum(a.size for a in state.values()) == sum(a.size for a in arrays)


def test_other_and_damaged_network_files_are_refused() -> None:
    data, _ = _dlib_file(np.random.default_rng(0))
    for broken, message in [
        (b"nothing", "no layers were found"),
        (data[:2000], "no tensor before byte"),
        (data[: data.rindex(b"fc_2") + 4], "ends inside layer"),
        (_layer("con_4", np.zeros(10)), "not the face-recognition network"),
        (b"\x01\x05con_4\x09" + b"1" * 20, "does not start a whole number"),
    ]:
        with pytest.raises(ValueError, match=message):
            face_resnet(broken)
    assert [kind for kind, _ in layers(data)] == ["con", "affine"] * 29 + ["fc"]
