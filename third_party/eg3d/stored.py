"""Our own files: `X.safetensors` with the tensors and the checksums of both files, and `X.json` with the configuration.

Files of version 1 have no checksums, see `eg3d.integrity`, but a hash of the tensors as float32 in the JSON.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .formats import look
from .generator import GeneratorConfig
from .integrity import save_tensors, verify_pair
from .limits import read_json
from .rendering.renderer import RenderingConfig
from .unpickle import quote

FORMAT, VERSION = "eg3d", 2
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
    meta = {"format": FORMAT, "version": VERSION, "config": asdict(config)}
    save_tensors(stored, path, beside=json.dumps(meta, indent=2) + "\n")


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors by name. Raises: ValueError for a damaged file, or tensors of another type."""
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            wrong = [name for name, entry in slices.items() if entry.get_dtype() not in _DTYPES]
            shapes = {name: tuple(entry.get_shape()) for name, entry in slices.items()}
    except SafetensorError as error:
        why = look(path) or error
        raise ValueError(f"{path} is damaged or no safetensors file: {why}. Copy or convert it again.") from None
    if wrong:
        raise ValueError(f"{path} has tensors that are neither float32 nor float16: {some(wrong)}")
    return shapes


def read_tensors(path: Path, digest: str | None) -> dict[str, Tensor]:
    """The tensors by name, float32. Raises: ValueError if they do not have this hash, None of files with checksums."""
    with safe_open(path, "pt") as file:
        state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    if digest is not None and state_hash(state) != digest:
        beside = path.with_suffix(".json").name
        raise ValueError(
            f"the tensors in {path} are not those that {beside} was written for: one of the two files is damaged or "
            "was exchanged; copy or convert both again"
        )
    return state


def read_config(path: Path) -> tuple[GeneratorConfig, str | None]:
    """Configuration and, of a file of version 1, hash from the JSON beside `path`, after a look at the checksums.

    Raises: FileNotFoundError if there is none; ValueError if a file is damaged, or has unknown keys or wrong types.
    """
    beside = path.with_suffix(".json")
    if not beside.is_file():
        raise FileNotFoundError(f"{path} needs {beside.name} with its configuration beside it; copy or convert both")
    text = verify_pair(path, remedy="Copy or convert both again.")
    try:
        meta = read_json(text.encode(), "it", remedy="")
        kind = meta["format"], meta["version"]
        digest = meta["sha256"] if kind[1] == 1 else None
        if kind not in ((FORMAT, 1), (FORMAT, VERSION)) or not isinstance(digest, str | None):
            raise ValueError(f"expected format {FORMAT!r}, version {VERSION}, or version 1 and a hash")
        values = dict(meta["config"])
        rendering = _build(RenderingConfig, dict(values.pop("rendering")))
        return _build(GeneratorConfig, values, rendering=rendering), digest
    except (ValueError, TypeError, KeyError) as error:
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
