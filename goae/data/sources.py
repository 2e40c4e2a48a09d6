"""Where a data set's files lie: a folder, or a zip that every process opens for itself."""

import os
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any, Protocol


class Source(Protocol):
    """Files by their path relative to the data set's root, with forward slashes."""

    path: Path

    def names(self) -> list[str]:
        """All files, sorted."""

    def read(self, name: str) -> bytes:
        """The content of one file; KeyError if there is none of this name."""


def open_source(path: str | Path) -> Source:
    """A folder or zip as a source. Raises: FileNotFoundError, or ValueError if it is neither."""
    path = Path(path).expanduser()
    if path.is_dir():
        return FolderSource(path)
    if not path.exists():
        raise FileNotFoundError(
            f"there is no data set at {path}: expected a folder or zip in EG3D's format. Give another path, or make "
            "it: scripts/make_mini_data.py for the mini world, scripts/prepare_*.py for the full one"
        )
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is neither a folder nor a readable zip; give the folder, or download the zip again")
    return ZipSource(path)


class FolderSource:
    """Files under a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        return sorted(p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file())

    def read(self, name: str) -> bytes:
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or name.startswith("/"):
            raise KeyError(name)
        try:
            return self.path.joinpath(*parts).read_bytes()
        except (FileNotFoundError, IsADirectoryError):
            raise KeyError(name) from None


class ZipSource:
    """Members of a zip. The handle is opened on first use in each process and does not travel by pickle or fork."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: tuple[int, zipfile.ZipFile] | None = None

    def names(self) -> list[str]:
        return sorted(name for name in self._zip().namelist() if not name.endswith("/"))

    def read(self, name: str) -> bytes:
        try:
            return self._zip().read(name)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{name} in {self.path} is damaged ({error}); download or make the zip again") from error

    def _zip(self) -> zipfile.ZipFile:
        if self._handle is None or self._handle[0] != os.getpid():
            self._handle = (os.getpid(), zipfile.ZipFile(self.path))
        return self._handle[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_handle": None}
