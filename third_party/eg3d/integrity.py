"""Checksums of files on disk, so that damage (bit rot, a cut copy) is noticed when a file is loaded.

A file that we write carries the SHA-256 of all its bytes, taken with the digits of the checksum itself as zeros. It
stands in the metadata of a safetensors file, which names the SHA-256 of the .json beside it, too, and behind the end of
any other file, where torch.load and np.load do not look. Files that must stay as they are (shipped ones) are listed
beside them in `SHA256SUMS`, as `sha256sum` writes it. A file with neither was written by others or before there were
checksums, and passes. One damaged byte does not hide a checksum: it is known by its key and by the start of its value.

Checking takes a pass over the file before it is loaded: 0.7 s of one core for each GB, 0.35 s at 500 MB, where the CPU
has instructions for SHA-256. CRC-32 takes 0.25 s and would notice damage, too; SHA-256 is what `sha256sum -c` checks.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .formats import look

SUMS = "SHA256SUMS"
_KEY, _START = "eg3d.integrity", "sha256-of-file:"
_MARK = re.compile(rf'"{re.escape(_KEY)}":"{_START}([0-9a-f]{{64}})(?: json:([0-9a-f]{{64}}))?"'.encode())
_BLANK = "0" * 64
_CHUNK, _TAIL, _LONGEST_HEADER = 1 << 20, 128, 100_000_000
_REMEDY = "Copy it again from where it came, or write it again."


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a file beside `path` to write to, which takes its place when all is written.

    Raises: OSError naming `path`, whichever of the two could not be written.
    """
    partial = _partial(path)
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def replace_file(path: Path, content: str | bytes) -> Path:
    """Write a whole file in the place of what was there; returns `path`. Raises: as `replacing`."""
    with replacing(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def save_tensors(
    tensors: Mapping[str, Tensor],
    path: str | Path,
    *,
    metadata: Mapping[str, str] | None = None,
    beside: str | None = None,
) -> None:
    """Write a safetensors file with its checksum, and a text as the .json beside it, each replaced as a whole.

    The .json is left alone where it is the same already. Where both change, a kill between the two leaves the new .json
    under the name that it was first written to, where `verify_pair` finds it.
    """
    path, mark = Path(path), _START + _BLANK
    partial, other = _partial(path), path.with_suffix(".json")
    if beside is not None:
        mark += f" json:{hashlib.sha256(beside.encode()).hexdigest()}"
    with replacing(path):
        save_file(dict(tensors), partial, metadata={**(metadata or {}), _KEY: mark})
        _seal(partial)
        stale = beside is not None and not (other.is_file() and other.read_bytes() == beside.encode())
        if stale:
            _partial(other).write_bytes((beside or "").encode())
    if stale:
        _partial(other).replace(other)


def save_object(content: object, path: str | Path) -> None:
    """Write what `torch.save` takes, with its checksum, replaced as a whole."""
    with replacing(Path(path)) as partial:
        torch.save(content, partial)
        append_checksum(partial)


def append_checksum(path: Path) -> None:
    """Add its checksum to the end of a file, whose format must allow that."""
    with path.open("ab") as file:
        file.write(f'\n"{_KEY}":"{_START}{_BLANK}"\n'.encode())
    _seal(path)


def write_sums(folder: Path) -> Path:
    """List the weights of a folder and the .json beside each of them in its `SHA256SUMS`."""
    weights = [path for path in folder.iterdir() if path.suffix in (".safetensors", ".npy")]
    files = sorted({*weights, *(path.with_suffix(".json") for path in weights)})
    return replace_file(folder / SUMS, "".join(f"{_hash(path)}  {path.name}\n" for path in files if path.is_file()))


def verify(path: str | Path, *, remedy: str = _REMEDY) -> bool:
    """Compare a file with its checksum. Returns: whether it has one.

    Args:
        remedy: a sentence for the message: how such a file is made again.
    Raises: ValueError naming the file if it is damaged; OSError if it cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        found, start = _find_mark(file, path, remedy)
        if found is not None:
            good, told = _digest(file, start + found.start(1)) == found[1].decode(), "the one that it carries"
        else:
            listed = _listed(path)
            if listed is None:
                return False
            good, told = _digest(file) == listed, f"the one that {path.parent / SUMS} lists"
            remedy = f"Restore a shipped file with `git checkout -- {path}`, or install the package again."
    if not good:
        raise _damaged(path, f"its checksum differs from {told}", remedy)
    return True


def verify_pair(path: str | Path, *, remedy: str = _REMEDY) -> str:
    """Compare a safetensors file and the .json beside it with their checksums. Returns: the text of the .json.

    Raises: as `verify`; ValueError if the .json is not the one that the file was written with.
    """
    path = Path(path)
    other = path.with_suffix(".json")
    verify(path, remedy=remedy)
    listed = check_beside(path, remedy=remedy)
    if listed is None:
        verify(other, remedy=remedy)
        return _text(other, remedy)
    for candidate in (other, _partial(other)):
        if candidate.is_file() and _hash(candidate) == listed:
            return _text(candidate, remedy)
    raise _damaged(other, f"its checksum differs from the one that {path.name} carries", remedy)


def check_beside(path: Path, *, remedy: str = _REMEDY) -> str | None:
    """Check that the .json is there if a safetensors file was written with one.

    Returns: the checksum of the .json that the file carries; None without one.
    Raises: FileNotFoundError naming the .json.
    """
    other = path.with_suffix(".json")
    with path.open("rb") as file:
        found, _ = _find_mark(file, path, remedy)
    if found is None or found[2] is None:
        return None
    if not other.is_file() and not _partial(other).is_file():
        raise FileNotFoundError(f"{path} was written with {other.name} beside it, which is missing. {remedy}")
    return found[2].decode()


def load_tensors(
    path: str | Path, *, remedy: str = _REMEDY, device: torch.device | str = "cpu"
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata of a safetensors file after a look at its checksum. Raises: as `verify`."""
    verify(path, remedy=remedy)
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            metadata = {key: value for key, value in (file.metadata() or {}).items() if key != _KEY}
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged, or no safetensors file: {look(Path(path)) or error}. {remedy}") from error


def _text(path: Path, remedy: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise _damaged(path, "it is no text in UTF-8", remedy) from None


def _damaged(path: Path, why: str, remedy: str) -> ValueError:
    return ValueError(f"{path} is damaged: {why}. {remedy}".rstrip())


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _find_mark(file: BinaryIO, path: Path, remedy: str) -> tuple[re.Match[bytes] | None, int]:
    """The checksum in a file and where its surroundings start, which are a safetensors header or the file's end."""
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(9)
    length = int.from_bytes(head[:8], "little")
    if head[8:] == b"{" and 8 + length <= size and length <= _LONGEST_HEADER:
        start = 8
    else:
        start, length = max(0, size - _TAIL), _TAIL
    file.seek(start)
    text = file.read(length)
    found = _MARK.search(text)
    if found is None and (_KEY.encode() in text or _START.encode() in text):
        raise _damaged(path, "its checksum cannot be read", remedy)
    return found, start


def _seal(path: Path) -> None:
    """Fill in the checksum of a file whose mark is blank, and wait until the file is on disk."""
    with path.open("r+b") as file:
        found, start = _find_mark(file, path, _REMEDY)
        assert found is not None
        digest = _digest(file)
        file.seek(start + found.start(1))
        file.write(digest.encode())
        file.flush()
        os.fsync(file.fileno())


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return _digest(file)


def _digest(file: BinaryIO, blank: int | None = None) -> str:
    """SHA-256 of a file, the 64 bytes from `blank` on taken as zeros."""
    digest = hashlib.sha256()
    file.seek(0)
    if blank is not None:
        while (left := blank - file.tell()) > 0:
            digest.update(file.read(min(left, _CHUNK)))
        digest.update(_BLANK.encode())
        file.seek(len(_BLANK), 1)
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _listed(path: Path) -> str | None:
    """The checksum of a file in the `SHA256SUMS` beside it."""
    sums = path.parent / SUMS
    lines = sums.read_text(errors="replace").splitlines() if sums.is_file() else []
    return next((line[:64] for line in lines if line[64:66] in ("  ", " *") and line[66:] == path.name), None)
