"""Reading single members of source archives and wheels; nothing is unpacked to disk and nothing in them is run."""

import bz2
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from eg3d.limits import MAX_MEMBER, MAX_RATIO, SMALL_MEMBER, open_zip
from eg3d.limits import read_member as read_zip_member

MAX_MEMBERS = 100_000  # of a tar
MAX_UNPACKED = 4 << 30  # bytes of a tar that are passed over to find a member
_UNPACK: dict[bytes, Callable[[BinaryIO], object]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
_DAMAGE = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError, OverflowError)


def read_member(archive: Path, member: str) -> bytes:
    """Read one regular file of a .tar, .tar.gz, .whl or .zip.

    Raises: ValueError naming the archive if there is no such regular file, if the safe filter refuses it, if it is
        damaged or unpacks to far more than it takes, or if the member is larger than 512 MB; FileNotFoundError.
    """
    try:
        return _from_zip(archive, member) if zipfile.is_zipfile(archive) else _from_tar(archive, member)
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        told = str(error)
        raise ValueError(told if archive.name in told else f"{archive.name} cannot be read: {told}") from error


class _Bounded:
    """A stream that gives so many bytes and no more."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self.file, self.left = file, limit

    def read(self, size: int) -> bytes:
        """The next bytes."""
        data = self.file.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise ValueError("it unpacks to far more than it takes")
        return data


def _from_tar(archive: Path, member: str) -> bytes:
    with archive.open("rb") as raw:
        head, size = raw.read(6), archive.stat().st_size
        raw.seek(0)
        unpack = next((unpack for magic, unpack in _UNPACK.items() if head.startswith(magic)), None)
        file = cast(BinaryIO, unpack(raw) if unpack else raw)
        bounded = _Bounded(file, min(MAX_UNPACKED, max(SMALL_MEMBER, MAX_RATIO * size)))
        with tarfile.open(fileobj=bounded, mode="r|") as tar:  # type: ignore[call-overload]
            return _search(tar, archive, member)


def _search(tar: tarfile.TarFile, archive: Path, member: str) -> bytes:
    for number, info in enumerate(tar):
        if number >= MAX_MEMBERS:
            raise ValueError(f"it has more than {MAX_MEMBERS} members")
        if info.name != member:
            continue
        safe = tarfile.data_filter(info, str(archive.parent))  # refuses links, devices and paths that lead outside
        if not safe.isreg():
            raise ValueError(f"{member} in {archive.name} is not a regular file")
        if safe.size > MAX_MEMBER:
            raise ValueError(f"{member} in {archive.name} has {safe.size} bytes; at most {MAX_MEMBER} are read")
        file = tar.extractfile(safe)
        assert file is not None  # regular files have content
        data = file.read()
        if len(data) != safe.size:
            raise ValueError(f"{member} in {archive.name} is cut short")
        return data
    raise ValueError(f"{archive.name} has no member {member}")


def _from_zip(archive: Path, member: str) -> bytes:
    with open_zip(archive) as folder:
        if member not in folder.namelist() or folder.getinfo(member).is_dir():
            raise ValueError(f"{archive.name} has no member {member}")
        return read_zip_member(folder, member, limit=MAX_MEMBER)
