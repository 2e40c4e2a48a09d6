"""Resume state on disk: written atomically with a checksum, read without running code, the newest whole file wins."""

import logging
import re
from pathlib import Path
from typing import Any

import torch
from eg3d.integrity import save_object, verify
from eg3d.limits import open_zip
from eg3d.torch_files import read_torch

log = logging.getLogger(__name__)
KEEP = 2  # checkpoints of a stage
PATTERN = re.compile(r"step-(\d{9})\.pt")
DAMAGED = ".damaged"


def save(state: dict[str, Any], folder: Path, step: int, *, keep: int = KEEP) -> Path:
    """Write `folder/step-NNNNNNNNN.pt` so that a reader sees all of it or nothing, and drop all but the `keep` newest.

    Files of later steps are damaged, since training goes on from the newest that is not: `.damaged` is added to their
    names, so that they neither count as newest nor are lost.
    Raises: OSError if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:09d}.pt"
    save_object(state, path)
    for later in (file for file in _files(folder) if step_of(file) > step):
        later.replace(later.with_name(later.name + DAMAGED))
    for old in _files(folder)[:-keep]:
        old.unlink()
    return path


def reached(folder: Path) -> int | None:
    """The highest step of which a checkpoint was written to `folder`, damaged or not, or None."""
    names = [path.name.removesuffix(DAMAGED) for path in folder.iterdir()] if folder.is_dir() else []
    return max((int(match[1]) for match in map(PATTERN.fullmatch, names) if match), default=None)


def newest(folder: Path) -> Path | None:
    """The checkpoint of the highest step in `folder` that is whole, or None without checkpoints.

    Warns of each damaged one that is passed over.
    Raises: ValueError if all are damaged.
    """
    damaged: list[str] = []
    for path in reversed(_files(folder)):
        try:
            check(path)
        except (ValueError, OSError) as error:
            damaged.append(str(error))
            continue
        for told in damaged:
            log.warning("%s It is passed over for the checkpoint before it, %s.", told, path)
        return path
    if damaged:
        raise ValueError(
            f"No checkpoint in {folder} can be read. {' '.join(damaged)} Restore one of them from a copy, or delete "
            f"the folder to start the stage again."
        )
    return None


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    match = PATTERN.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path.name} is no checkpoint's name")
    return int(match[1])


def check(path: Path) -> None:
    """Compare a file with its checksum; one from before there were any with the CRC-32 that its zip has of each part.

    Raises: ValueError naming the file if it is damaged; OSError if it cannot be read.
    """
    if verify(path, remedy=""):
        return
    try:
        with open_zip(path) as archive:
            wrong = archive.testzip()
    except Exception as error:  # zipfile raises many kinds for a damaged file
        raise ValueError(f"{path} is damaged: {error}.") from error
    if wrong is not None:
        raise ValueError(f"{path} is damaged: the CRC-32 of its part {wrong} differs.")


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a resume state; only tensors and plain Python values are accepted.

    Raises: ValueError naming the file if it is damaged or cannot be read.
    """
    try:
        check(path)
        content = read_torch(path, device)
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, expected a dict")
        return content
    except (ValueError, OSError) as error:
        raise ValueError(
            f"The checkpoint {path} cannot be read ({error}). Restore it from a copy, or delete it to go on from the "
            f"one before it, or from the start where there is none."
        ) from error


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if PATTERN.fullmatch(path.name))
