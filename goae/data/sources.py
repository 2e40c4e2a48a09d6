"""Read a data set's files from a folder, or a zip that every process opens for itself; tell which are images."""

import logging
import os
import zipfile
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from eg3d.limits import MAX_MEMBER, open_zip, read_member

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
OTHER_SUFFIXES = (  # of images that are not read
    *(".tif", ".tiff", ".gif", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".jfif"),
    *(".tga", ".ppm", ".exr", ".hdr", ".psd", ".dng"),
)
LONGEST_NAME = 200  # letters of a name from a file that a message shows


class Source(Protocol):
    """Files by their path relative to the data set's root, with forward slashes."""

    path: Path

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""

    def links(self) -> list[str]:
        """Return the names of what is passed over, sorted: dangling links, linked folders, pipes and the like."""

    def read(self, name: str) -> bytes:
        """Read one file. Raises: KeyError if there is none of this name; ValueError if it is damaged or too large."""

    def head(self, name: str, size: int | None) -> bytes:
        """Read the first `size` bytes of one file, fewer if it is shorter; None: all of it. Raises: as `read`."""


def open_source(path: str | Path) -> Source:
    """Open a folder or zip. Raises: FileNotFoundError, or ValueError if it is neither."""
    path = Path(path).expanduser()
    if path.is_dir():
        return FolderSource(path)
    if not path.exists():
        raise FileNotFoundError(
            f"there is no data set at {path}: expected a folder or zip in EG3D's format. Give another path, or make "
            "it: scripts/make_mini_data.py for the mini world, scripts/prepare_*.py for the full one"
        )
    if not path.is_file() or not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is neither a folder nor a readable zip; give the folder, or download the zip again")
    return ZipSource(path)


class FolderSource:
    """Files under a folder. They are listed once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        return list(self._listing[0])

    def links(self) -> list[str]:
        return list(self._listing[1])

    def read(self, name: str) -> bytes:
        return self.head(name, None)

    def head(self, name: str, size: int | None) -> bytes:
        parts = PurePosixPath(name).parts
        path = self.path.joinpath(*parts)
        if not parts or ".." in parts or name.startswith("/") or not path.is_file():
            raise KeyError(name)
        with path.open("rb") as file:
            data = file.read(MAX_MEMBER + 1 if size is None else size)
        if len(data) > MAX_MEMBER:
            raise ValueError(f"{name} in {self.path} is larger than {MAX_MEMBER} bytes; make or download it again")
        return data

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    @cached_property
    def _listing(self) -> tuple[list[str], list[str]]:
        """Files, links to files among them; and what is passed over."""
        files: list[str] = []
        others: list[str] = []
        folders = [self.path]
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    else:
                        path = Path(entry.path)
                        is_file = entry.is_file(follow_symlinks=False) or path.is_file()
                        (files if is_file else others).append(path.relative_to(self.path).as_posix())
        return sorted(files), sorted(others)


class ZipSource:
    """Members of a zip. The handle is opened on first use in each process and does not travel by pickle or fork."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: tuple[int, zipfile.ZipFile] | None = None

    def names(self) -> list[str]:
        return sorted(name for name in self._zip().namelist() if not name.endswith("/"))

    def links(self) -> list[str]:
        return []  # a zip with links is refused

    def read(self, name: str) -> bytes:
        return self.head(name, None)

    def head(self, name: str, size: int | None) -> bytes:
        return read_member(self._zip(), name, size=size)

    def _zip(self) -> zipfile.ZipFile:
        if self._handle is None or self._handle[0] != os.getpid():
            self._handle = (os.getpid(), open_zip(self.path))
        return self._handle[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_handle": None}


def list_images(source: Source) -> tuple[list[str], list[str]]:
    """List the images of a folder or zip, without hidden files and the litter of macOS.

    Returns: their names, sorted; and a note on each kind of files that were left out, for `warn_of_left_out`.
    Raises: FileNotFoundError if there is none.
    """
    shown = [name for name in source.names() if not is_hidden(name)]
    images = [name for name in shown if _suffix(name) in IMAGE_SUFFIXES]
    others = [name for name in shown if _suffix(name) in OTHER_SUFFIXES]
    links = [name for name in source.links() if not is_hidden(name)]
    notes = [note("files of other formats than " + ", ".join(IMAGE_SUFFIXES), others)] if others else []
    notes += [note("links to folders or to nothing", links)] if links else []
    if not images:
        raise FileNotFoundError(
            f"no images ({', '.join(IMAGE_SUFFIXES)}) in {source.path}; check the path and its unpacking"
            + "".join(f"; it holds {text}" for text in notes)
        )
    return images, notes


def note(what: str, names: list[str]) -> str:
    """Say how many names of a kind there are, with an example."""
    return f"{len(names)} {what}, e.g. {names[0][:LONGEST_NAME]}"


@lru_cache  # the same set is opened by many
def warn_of_left_out(path: Path, notes: tuple[str, ...]) -> None:
    """Log what was left out of a data set, once."""
    if notes:
        log.warning("%s: left out were %s", path, "; ".join(notes))


def is_hidden(name: str) -> bool:
    """Check for hidden files and folders, and those that macOS puts into zips."""
    return "/." in f"/{name}" or "__MACOSX" in name.split("/")


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # many times faster than a path's
