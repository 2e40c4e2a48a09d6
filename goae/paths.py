"""Paths in configurations: which fields hold one, and where it leads.

The command line takes the values of these fields as the shell gives them. `~` is the home folder, and shipped files,
named `goae/assets/...`, are found from every working folder.
"""

from collections.abc import Iterator
from dataclasses import Field, field, fields, is_dataclass
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
SHIPPED = "goae/assets/"  # how configurations and users name the shipped files
READ, WRITTEN = "read", "written"


def path(default: str = "", *, written: bool = False) -> Any:
    """Declare a field of a configuration that holds a path; `written`: of what the job writes."""
    return field(default=default, metadata={"path": WRITTEN if written else READ})


def is_path(declared: Field) -> bool:
    """Check whether a field was declared by `path`."""
    return "path" in declared.metadata


def shipped(given: str) -> str:
    """Return the path of a shipped file beside the package, where the working folder has none of that name."""
    beside = PACKAGE.parent / given
    elsewhere = given.startswith(SHIPPED) and not Path(given).exists() and beside.exists()
    return str(beside) if elsewhere else given


def settle(config: Any) -> None:
    """Replace the paths of a configuration, nested ones too, by where they lead."""
    for part in _parts(config):
        for declared in fields(part):
            given = getattr(part, declared.name)
            if is_path(declared) and isinstance(given, str):
                found = str(Path(given).expanduser()) if given.startswith("~") else given
                setattr(part, declared.name, found if declared.metadata["path"] == WRITTEN else shipped(found))


def _parts(value: Any) -> Iterator[Any]:
    """List the dataclasses within a value, itself first."""
    if is_dataclass(value):
        yield value
        inner = [getattr(value, declared.name) for declared in fields(value)]
    else:
        inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    for other in inner:
        yield from _parts(other)
