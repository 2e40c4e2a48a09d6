"""Our own files of networks: X.safetensors with the weights, X.json beside it with the class and its configuration."""

import json
import typing
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from eg3d.formats import look
from eg3d.integrity import save_tensors, verify_pair
from eg3d.limits import read_json
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

FORMAT = "goae-model-1"
REMEDY = (
    "Copy both files again, or delete them and give the command of their training again: it goes on from the newest "
    "checkpoint and writes them anew."
)
T = TypeVar("T")


@dataclass(frozen=True)
class Stored:
    """A file's content: class name, configuration as plain values, other facts, weights."""

    name: str
    config: dict[str, Any]
    facts: dict[str, Any]
    state: dict[str, Tensor]


def save_model(module: nn.Module, path: str | Path, **facts: Any) -> None:
    """Write a module that keeps its dataclass as `module.config`.

    Args:
        path: of the .safetensors file; the JSON gets the same stem.
        facts: plain values that are stored beside the configuration, e.g. constructor arguments.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"cannot save a model as {path.name}: expected the suffix .safetensors")
    config = asdict(module.config)  # type: ignore[call-overload]
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    _write(Stored(type(module).__name__, config, facts, state), path)


def halve_model(source: str | Path, path: str | Path) -> None:
    """Write the model of one file to another in half precision, which rounds its weights; both files load alike.

    Raises: as `read_model`; ValueError if a weight is too large for half precision.
    """
    stored = read_model(source)
    state = {n: t.half() if t.is_floating_point() else t for n, t in stored.state.items()}
    beyond = [name for name, tensor in state.items() if not bool(tensor.isfinite().all())]
    if beyond:
        raise ValueError(f"{source} has weights that half precision cannot hold: {', '.join(beyond)}")
    _write(replace(stored, state=state), Path(path))


def is_stored(path: str | Path) -> bool:
    """Whether `path` is a file of ours: .safetensors with the JSON beside it."""
    return Path(path).suffix == ".safetensors" and Path(path).with_suffix(".json").is_file()


def read_model(path: str | Path) -> Stored:
    """Read what `save_model` wrote.

    Raises: FileNotFoundError; ValueError naming the file if it is damaged or none of ours.
    """
    path = Path(path)
    for part in (path, path.with_suffix(".json")):
        if not part.is_file():
            raise FileNotFoundError(f"no file {part}; a model of ours is a .safetensors file and the .json of its stem")
    text = verify_pair(path, remedy=REMEDY)
    try:
        content = read_json(text.encode(), "it", remedy="")
        if content.pop("format", None) != FORMAT:
            raise ValueError(f"its format is not {FORMAT!r}")
        name, config = content.pop("class"), content.pop("config")
        if not isinstance(name, str) or not isinstance(config, dict):
            raise ValueError("its class or its configuration is none")
        return Stored(name, config, content, load_file(path))
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        why = look(path) if isinstance(error, SafetensorError) else ""
        raise ValueError(
            f"{path} or the .json beside it is damaged, or no model of ours: {why or error}. {REMEDY}"
        ) from None


def restore(schema: type[T], values: dict[str, Any], where: str = "") -> T:
    """A (nested) dataclass from plain values.

    Raises: ValueError naming keys that the dataclass does not have.
    """
    hints = typing.get_type_hints(schema)
    unknown = sorted(set(values) - {field.name for field in fields(schema)})  # type: ignore[arg-type]
    if unknown:
        raise ValueError(f"{schema.__name__} has no {', '.join(where + name for name in unknown)}")
    made = {
        name: restore(hints[name], value, f"{where}{name}.")
        if is_dataclass(hints[name]) and isinstance(value, dict)
        else value
        for name, value in values.items()
    }
    return schema(**made)


def _write(stored: Stored, path: Path) -> None:
    """The two files of a model."""
    content = {"format": FORMAT, "class": stored.name, "config": stored.config, **stored.facts}
    save_tensors(stored.state, path, beside=json.dumps(content, indent=1) + "\n")
