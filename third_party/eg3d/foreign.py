"""The one reader of tensors in files from outside: safetensors, `torch.save`, NumPy; nothing in them is executed.

The kind of a file is told by its first bytes, whatever its suffix says. What cannot be read is refused with the file's
name, with what it looks like, and with what to do.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .arrays import read_array
from .formats import HEAD, SAFETENSORS, ZIP, looks_like
from .integrity import check_beside, verify
from .limits import REMEDY
from .torch_files import read_torch

_NUMPY = b"\x93NUMPY"


def read_tensors(path: str | Path, *, remedy: str = REMEDY, device: torch.device | str = "cpu") -> object:
    """Read a file after a look at its checksum.

    Args:
        remedy: a sentence for the message: where such a file comes from.
    Returns: what the file holds: a tensor, or tensors in dicts, lists and tuples, with texts and numbers.
    Raises: FileNotFoundError if it, or the .json that it was written with, is missing; ValueError naming the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: {'it is a folder' if path.is_dir() else 'there is none'}. {remedy}")
    verify(path, remedy=remedy)
    try:
        return _read(path, device)
    except (SafetensorError, ValueError) as error:
        why = str(error).partition("\n")[0].rstrip(".")
        raise ValueError(
            f"{path} cannot be read as tensors: {why}. Nothing in it was executed. {remedy}".rstrip()
        ) from None


def _read(path: Path, device: torch.device | str) -> object:
    with path.open("rb") as file:
        head = file.read(HEAD)
    told = looks_like(head)
    if head.startswith(_NUMPY):
        return torch.from_numpy(read_array(path.read_bytes(), "it", remedy="")).to(device)
    if told == SAFETENSORS:
        check_beside(path, remedy="Copy both again.")
        return load_file(path, device=str(device))
    if told and not head.startswith(ZIP):
        raise ValueError(told)
    return read_torch(path, device)
