"""Measured numbers in one JSON file, each section of it written by the job that measured it.

`goae/assets/mini/metrics.json` holds those of the mini world; documents and tables read them there.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eg3d.integrity import replace_file
from eg3d.limits import read_json


def update_section(path: Path, section: str, values: Mapping[str, Any]) -> None:
    """Set keys of a section, dots leading inwards ("canonical.left"), and take out those that are None.

    All else in the file stays as it is. It is replaced whole, so that a reader never sees half of it, and jobs that end
    at once wait for each other.

    Raises: ValueError if the file is not an object of JSON, if the section is a number there, or for a number that is
        not finite.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        content = read_records(path) if path.exists() else {}
        inner = content
        for name in section.split("."):
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise ValueError(f"{section} in {path} leads through {name}, which is {inner!r}, not a section")
        inner |= values
        for name in [name for name, value in values.items() if value is None]:
            del inner[name]
        replace_file(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_records(path: Path) -> dict[str, Any]:
    """Everything that is recorded.

    Raises: FileNotFoundError; ValueError if it is no object of JSON.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; scripts/check_meters.py and its kind write it")
    content = read_json(path, remedy="Restore it, or delete it and measure again.")
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected an object with sections")
    return content


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder against other writers; the lock ends with the process at the latest."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
