"""Limits on files from outside, and the readers of JSON and zip archives that keep them.

A small file can ask for much: a zip member of 4 MB unpacks to 4 GB, 100 KB of brackets overflow the stack, 400 digits
overflow a float. Every reader of files takes its limits from here, so that memory and time stay in proportion to the
file, and a file beyond them is refused with its name and a remedy.
"""

import io
import json
import re
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

MAX_NESTING = 100  # of lists and dicts in each other; a generator nests about 30 deep
MAX_JSON = 256 << 20  # bytes; the labels of 245,862 images take 130 MB
MAX_VALUES = 8_000_000  # of one JSON file; the labels of 245,862 images have 6.9 million
MAX_DIGITS = 30  # of an integer
MAX_MEMBER = 512 << 20  # bytes of one member of an archive that is read into memory
MAX_RATIO, SMALL_MEMBER = 100, 64 << 20  # unpacked to packed size, and the size up to which any ratio passes
MAX_LIST = 64 << 20  # bytes of a zip's list of members; 140,000 images take 11 MB
MAX_PIXELS = 1 << 26  # of an image: 8192 x 8192

REMEDY = "Copy or download it again."
_UNSAFE = re.compile(r"\A[/\\]|\A[A-Za-z]:|\\|(?:\A|/)\.\.(?:/|\Z)|\0")
_LIST_SIZE = 5  # place of the size of the list of members in zipfile's end record
_DAMAGE = (  # what zipfile raises for damaged archives
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(NotImplementedError, RuntimeError, OverflowError, ValueError),
)


def read_json(source: bytes | Path, what: str = "", *, remedy: str = REMEDY) -> Any:
    """Read JSON in UTF-8, UTF-16 or UTF-32, with or without a byte-order mark.

    Args:
        source: the file, or its bytes.
        what: names the file in messages; may be left out for a path.
        remedy: a sentence for the message: how such a file is made again.
    Raises: ValueError if it is not JSON, names a key twice, or is beyond a limit; FileNotFoundError.
    """
    what = what or str(source)
    data = _read_bytes(source, what) if isinstance(source, Path) else source
    if len(data) > MAX_JSON or sum(map(data.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise ValueError(f"{what} is larger than {MAX_JSON} bytes, or has over {MAX_VALUES} values. {remedy}")
    try:
        content = json.loads(data, parse_int=_integer, object_pairs_hook=_unique)
        check_nesting(content)
    except RecursionError:
        raise ValueError(f"{what} is nested more than {MAX_NESTING} deep. {remedy}") from None
    except ValueError as error:
        raise ValueError(f"{what} cannot be read as JSON: {error}. {remedy}".rstrip()) from None
    return content


def check_nesting(content: Any) -> None:
    """Refuse lists and dicts that are nested more than `MAX_NESTING` deep. Raises: ValueError."""
    level, depth = [content], 0
    while level:
        if (depth := depth + 1) > MAX_NESTING:
            raise ValueError(f"it is nested more than {MAX_NESTING} deep")
        level = [
            child
            for item in level
            if type(item) in (dict, list)
            for child in (item.values() if type(item) is dict else item)
            if type(child) is dict or type(child) is list
        ]


def open_zip(source: bytes | Path, what: str = "", *, remedy: str = REMEDY) -> zipfile.ZipFile:
    """Open a zip after a look at all its members, see `check_member`; the caller closes it. Arguments: as `read_json`.

    Raises: ValueError naming the file if it is no zip, damaged, or beyond a limit; FileNotFoundError.
    """
    what, archive = what or str(source), None
    try:
        size = _check_list(source)
        archive = zipfile.ZipFile(source if isinstance(source, Path) else io.BytesIO(source))
        archive.filename = what
        _check_members(archive, size)
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        if archive:
            archive.close()
        raise ValueError(f"{what} cannot be read as a zip: {error}. {remedy}") from error
    return archive


def check_member(info: zipfile.ZipInfo) -> None:
    """Refuse a member that could be written outside of a folder, cannot be read, or unpacks to far more than it takes.

    Raises: ValueError.
    """
    name = ascii(info.orig_filename)[:80]
    if not info.filename or _UNSAFE.search(info.orig_filename) or stat.S_ISLNK(info.external_attr >> 16):
        raise ValueError(f"its member {name} has an unsafe name, or is a link; zip the folder again without it")
    if info.flag_bits & 0x41:
        raise ValueError(f"its member {name} is encrypted; unpack it with its password and zip it again without one")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"its member {name} is neither stored nor deflated; zip it again with one of these methods")
    if info.file_size > max(SMALL_MEMBER, MAX_RATIO * info.compress_size):
        raise ValueError(f"its member {name} unpacks from {info.compress_size} to {info.file_size} bytes")


def read_member(
    archive: zipfile.ZipFile, name: str, *, limit: int = MAX_MEMBER, size: int | None = None, remedy: str = REMEDY
) -> bytes:
    """Read one member of `open_zip`'s archive, or its first `size` bytes.

    Raises: KeyError if there is none of this name; ValueError if it is damaged or has more than `limit` bytes.
    """
    info = archive.getinfo(name)
    where = f"{name} in {archive.filename}"
    if info.file_size > limit:
        raise ValueError(f"{where} has {info.file_size} bytes; at most {limit} are read. {remedy}")
    wanted = info.file_size if size is None else min(size, info.file_size)
    try:
        with archive.open(info) as file:
            data = file.read(wanted)  # no more is unpacked than the size that was checked
    except _DAMAGE as error:
        raise ValueError(f"{where} is damaged: {error}. {remedy}") from error
    if len(data) != wanted:
        raise ValueError(f"{where} is damaged: it has {len(data)} of {info.file_size} bytes. {remedy}")
    return data


def _check_list(source: bytes | Path) -> int:
    """Refuse a list of members that is too long to be read. Returns: the size of the file."""
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
        if end and end[_LIST_SIZE] > MAX_LIST:
            raise ValueError(f"its list of members has {end[_LIST_SIZE]} bytes; at most {MAX_LIST} are read")
        return file.seek(0, 2)


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    members = archive.infolist()
    for info in members:
        check_member(info)
    if len({info.filename for info in members}) < len(members):
        raise ValueError("two of its members have the same name; zip the folder again")
    if sum(info.compress_size for info in members) > size:
        raise ValueError("its members overlap each other")


def _read_bytes(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_JSON + 1)
    except IsADirectoryError:
        raise ValueError(f"{what} is a folder; expected a JSON file") from None


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"it has an integer of {len(text)} digits")
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"it has the key {ascii(twice)[:80]} twice")
    return found
