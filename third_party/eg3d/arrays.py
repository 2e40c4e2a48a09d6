"""Reading NumPy's files, `.npy` and `.npz`: plain numbers only, and no more memory than the file has bytes."""

import io
import math
import struct
import tokenize
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from .limits import MAX_MEMBER, REMEDY, open_zip, read_member

_KINDS = "biufc"  # of numbers
_MAX_DIMENSIONS, _LARGEST = 16, 1 << 40
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_DAMAGE = (  # what NumPy's reader of headers raises
    *(ValueError, TypeError, KeyError, OverflowError, struct.error),
    *(SyntaxError, tokenize.TokenError, RecursionError, MemoryError),
)


def read_array(data: bytes, what: str, *, remedy: str = REMEDY) -> np.ndarray:
    """Read the bytes of a `.npy` file; what follows the numbers is ignored.

    Args:
        what: names the file in messages.
        remedy: a sentence for the message: how such a file is made again.
    Raises: ValueError if it is damaged, or holds something else than plain numbers.
    """
    try:
        file = io.BytesIO(data)
        shape, fortran, dtype = _HEADERS[npy.read_magic(file)](file)
        if dtype.kind not in _KINDS or dtype.itemsize > (16 if dtype.kind == "c" else 8):
            raise ValueError(f"it holds {ascii(dtype)[:80]}, expected plain numbers")
        if len(shape) > _MAX_DIMENSIONS or not all(0 <= size < _LARGEST for size in shape):
            raise ValueError(f"it has the shape {ascii(shape)[:80]}")
        if math.prod(shape) * dtype.itemsize > len(data) - file.tell():
            raise ValueError(f"its array of shape {shape} is cut short: {len(data) - file.tell()} bytes are left")
        flat = np.frombuffer(data, dtype, math.prod(shape), file.tell())
        return flat.reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("="))
    except _DAMAGE as error:
        told = str(error).partition("\n")[0].rstrip(".")  # NumPy's further lines advise to trust the file
        raise ValueError(f"{what} cannot be read as a NumPy array: {told}. {remedy}".rstrip()) from None


def read_arrays(source: bytes | Path, what: str = "", *, remedy: str = REMEDY) -> dict[str, np.ndarray]:
    """Read all arrays of an `.npz` file by name. Arguments and errors: as `read_array` and `limits.open_zip`."""
    what = what or str(source)
    with open_zip(source, what, remedy=remedy) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        if sum(sizes.values()) > MAX_MEMBER:
            raise ValueError(f"{what} has {sum(sizes.values())} bytes; at most {MAX_MEMBER} are read. {remedy}")
        return {
            name.removesuffix(".npy"): read_array(
                read_member(archive, name, remedy=remedy), f"{name} in {what}", remedy=remedy
            )
            for name in sizes
        }
