"""Resume state on disk: written atomically, read without running code, the newest file wins."""

import os
import re
from pathlib import Path
from typing import Any

import torch

PATTERN = re.compile(r"step-(\d{9})\.pt")


def save(state: dict[str, Any], folder: Path, step: int, *, keep: int = 2) -> Path:
    """Write `folder/step-NNNNNNNNN.pt` so that a reader sees all of it or nothing, and drop all but the `keep` newest.

    Raises: OSError if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:09d}.pt"
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    for old in _files(folder)[:-keep]:
        old.unlink()
    return path


def newest(folder: Path) -> Path | None:
    """The checkpoint of the highest step in `folder`, or None."""
    files = _files(folder)
    return files[-1] if files else None


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    match = PATTERN.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path.name} is no checkpoint's name")
    return int(match[1])


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a resume state; only tensors and plain Python values are accepted.

    Raises: ValueError naming the file if it cannot be read.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise ValueError(
            f"The checkpoint {path} cannot be read ({type(error).__name__}: {str(error).splitlines()[0]}). Delete this "
            f"file to resume from the one before it in the same folder, or delete the folder to start the stage again."
        ) from error


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if PATTERN.fullmatch(path.name))
