"""Our own files: `X.safetensors` with the tensors, and `X.json` with the configuration and a hash.

The hash is that of the tensors as float32, which is how they are loaded, so that neither file can be damaged, nor mixed
up with another, unnoticed.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .generator import GeneratorConfig
from .rendering.renderer import RenderingConfig
from .unpickle import quote

FORMAT, VERSION = "eg3d", 1
SUFFIX = ".safetensors"
_DTYPES = {"F32": torch.float32, "F16": torch.float16}
_LISTED = 8
T = TypeVar("T")


def state_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256, in hexadecimal, over the names, types, shapes and bytes of the tensors in order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write(path: Path, config: GeneratorConfig, state: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Write both files, each replaced as a whole. Arguments and errors as in `eg3d.checkpoint.save`."""
    if path.suffix != SUFFIX or dtype not in _DTYPES.values():
        raise ValueError(f"cannot save {path} as {dtype}: expected a path that ends in {SUFFIX}, float32 or float16")
    stored = {name: tensor.detach().cpu().to(dtype, copy=True).contiguous() for name, tensor in state.items()}
    lost = [name for name, tensor in stored.items() if bool((tensor.isinf() & state[name].cpu().isfinite()).any())]
    if lost:
        raise ValueError(f"cannot save as {dtype}: too large are values of {some(lost)}; save as float32 instead")
    digest = state_hash({name: tensor.float() for name, tensor in stored.items()})
    meta = {"format": FORMAT, "version": VERSION, "sha256": digest, "config": asdict(config)}
    unfinished = path.with_suffix(f"{SUFFIX}.part"), path.with_suffix(".json.part")
    save_file(stored, unfinished[0])
    unfinished[1].write_text(json.dumps(meta, indent=2) + "\n")
    os.replace(unfinished[0], path)
    os.replace(unfinished[1], path.with_suffix(".json"))


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors by name. Raises: ValueError for a damaged file, or tensors of another type."""
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            wrong = [name for name, entry in slices.items() if entry.get_dtype() not in _DTYPES]
            shapes = {name: tuple(entry.get_shape()) for name, entry in slices.items()}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error}); copy or convert it again") from None
    if wrong:
        raise ValueError(f"{path} has tensors that are neither float32 nor float16: {some(wrong)}")
    return shapes


def read_tensors(path: Path, digest: str) -> dict[str, Tensor]:
    """The tensors by name, float32. Raises: ValueError if they do not have this hash."""
    with safe_open(path, "pt") as file:
        state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    if state_hash(state) != digest:
        beside = path.with_suffix(".json").name
        raise ValueError(
            f"the tensors in {path} are not those that {beside} was written for: one of the two files is damaged or "
            "was exchanged; copy or convert both again"
        )
    return state


def read_config(path: Path) -> tuple[GeneratorConfig, str]:
    """Configuration and hash from the JSON beside `path`.

    Raises: FileNotFoundError if there is none; ValueError if it is damaged, or has unknown keys or wrong types.
    """
    beside = path.with_suffix(".json")
    if not beside.is_file():
        raise FileNotFoundError(f"{path} needs {beside.name} with its configuration beside it; copy or convert both")
    try:
        meta = json.loads(beside.read_text())
        if (meta["format"], meta["version"]) != (FORMAT, VERSION) or not isinstance(meta["sha256"], str):
            raise ValueError(f"expected format {FORMAT!r}, version {VERSION} and a hash")
        values = dict(meta["config"])
        rendering = _build(RenderingConfig, dict(values.pop("rendering")))
        return _build(GeneratorConfig, values, rendering=rendering), meta["sha256"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        what = f"{type(error).__name__}: {quote(str(error))}"
        raise ValueError(f"{beside} is not the configuration of an EG3D generator ({what})") from None


def some(names: list[str]) -> str:
    """The first names of a list for a message, and how many more there are."""
    shown = ", ".join(quote(name) for name in names[:_LISTED])
    return f"{shown} and {len(names) - _LISTED} more" if len(names) > _LISTED else shown


def _build(cls: type[T], values: dict[str, object], **nested: object) -> T:
    """A config from values out of a file; keys are known, types those of the defaults, and absent keys keep them."""
    defaults = cls()
    for key, value in values.items():
        if not hasattr(defaults, key) or not _alike(value, getattr(defaults, key)):
            raise ValueError(f"{key} = {value!r} is unknown or of a wrong type")
    return cls(**values, **nested)


def _alike(value: object, default: object) -> bool:
    """Whether a value has the type of the default; a limit of the rays may be absent, sizes may be given or not."""
    if isinstance(default, bool | str):
        return type(value) is type(default)
    if isinstance(default, int):
        return type(value) is int
    if isinstance(default, float):
        return value is None or (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        )
    if isinstance(value, list):
        like = default[0] if isinstance(default, list) else 0
        return len(value) <= _LISTED and all(_alike(item, like) for item in value)
    return not isinstance(default, list) and (value is None or type(value) is int)
