"""Reading single members of source archives and wheels; nothing is unpacked to disk and nothing in them is run."""

import tarfile
import zipfile
from pathlib import Path

MAX_MEMBER = 512 << 20  # bytes


def read_member(archive: Path, member: str) -> bytes:
    """The bytes of one regular file of a .tar.gz, .whl or .zip.

    Raises: ValueError if there is no such regular file, if the safe filter refuses it, or if it is larger than 512 MB.
    """
    try:
        return _from_zip(archive, member) if zipfile.is_zipfile(archive) else _from_tar(archive, member)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{archive.name} cannot be read: {error}") from error


def _from_tar(archive: Path, member: str) -> bytes:
    with tarfile.open(archive, "r:*") as tar:
        for info in tar:
            if info.name != member:
                continue
            safe = tarfile.data_filter(info, str(archive.parent))  # refuses links, devices and paths that lead outside
            _check(safe.isreg(), safe.size, archive, member)
            file = tar.extractfile(safe)
            assert file is not None  # regular files have content
            return file.read()
    raise ValueError(f"{archive.name} has no member {member}")


def _from_zip(archive: Path, member: str) -> bytes:
    with zipfile.ZipFile(archive) as folder:
        if member not in folder.namelist():
            raise ValueError(f"{archive.name} has no member {member}")
        info = folder.getinfo(member)
        _check(not info.is_dir(), info.file_size, archive, member)
        return folder.read(info)


def _check(regular: bool, size: int, archive: Path, member: str) -> None:
    if not regular:
        raise ValueError(f"{member} in {archive.name} is not a regular file")
    if size > MAX_MEMBER:
        raise ValueError(f"{member} in {archive.name} has {size} bytes; at most {MAX_MEMBER} are read")
