"""NumPy's files are read as NumPy reads them, or refused by name."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from eg3d.arrays import read_array, read_arrays
from mutations import bounded, survives

ARRAYS = [
    np.arange(6).astype(dtype).reshape(2, 3) for dtype in ("<f4", ">f4", "f2", "f8", "i1", "u2", "i8", "?", "c8")
] + [np.float64(3), np.zeros((0, 4)), np.asfortranarray(np.ones((2, 3))), np.ones((1, 14, 512), "f4")]


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_are_as_saved(array: np.ndarray) -> None:
    found = read_array(saved(array) + b"\nchecksum", "x")
    assert np.array_equal(found, array) and found.dtype == array.dtype.newbyteorder("=") and found.flags.writeable


def test_npz_files_are_as_saved(tmp_path: Path) -> None:
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", depth=ARRAYS[0], parts=ARRAYS[5])
        for source in (tmp_path / "x.npz", (tmp_path / "x.npz").read_bytes()):
            found = read_arrays(source)
            assert list(found) == ["depth", "parts"] and np.array_equal(found["depth"], ARRAYS[0])


def header(text: str, version: bytes = b"\1\0") -> bytes:
    size = len(text).to_bytes(2 if version[0] == 1 else 4, "little")
    return b"\x93NUMPY" + version + size + text.encode() + bytes(64)


FIELDS = "{{'descr': {}, 'fortran_order': False, 'shape': {}}}"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(200),
        saved(ARRAYS[0])[:-1],
        b"\x93NUMPY\1\0",
        header("{'descr':"),
        header("("),
        header("[" * 5000),
        header("{" * 9000),
        header("-" * 9000 + "1"),
        header("1"),
        header(FIELDS.format("'|O'", "(1,)")),
        header(FIELDS.format("'<f4'", "(1000000000000,)")),
        header(FIELDS.format("'<f4'", "(-2, -2)")),
        header(FIELDS.format("'<f4'", "(10000000000000000000000, 0)")),
        header(FIELDS.format("[('a', '<f4')]", "(1,)")),
        header(FIELDS.format("'V100000000'", "(0,)")),
        header(FIELDS.format("None", "None")),
        header("x" * 70_000, b"\2\0"),
        header("1", b"\3\0"),
        header("1", b"\x09\0"),
    ],
    ids=lambda data: repr(data[:40]),
)
def test_other_files_are_refused_by_name(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"a\.npy cannot be read .*again"):
        bounded(lambda: read_array(data, "a.npy"), memory=200 << 20, seconds=10)


def test_mutated_arrays() -> None:
    file = io.BytesIO()
    np.savez_compressed(file, depth=ARRAYS[0], parts=ARRAYS[3])
    assert survives(lambda data: read_array(data, "x"), [saved(ARRAYS[0]), saved(ARRAYS[-1])]).accepted
    assert survives(lambda data: read_arrays(data, "x"), [file.getvalue()]).accepted

    def inside(data: bytes) -> None:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("depth.npy", data)
        read_arrays(file.getvalue(), "x")

    assert survives(inside, [saved(ARRAYS[0])]).accepted
