"""Weights on disk: the published pickles, read without running code from the file, and files of our own.

`load` and `describe` take both; `save` writes our own, see `eg3d.stored`. A pickle is read by `eg3d.unpickle` and
`eg3d.published`, and becomes a configuration in `eg3d.published_config`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from . import stored
from .generator import GeneratorConfig, TriPlaneGenerator
from .published import Snapshot, read_snapshot, tensors
from .published_config import Shape, generator_config, init_kwargs, plane_axes, rendering_kwargs, superresolution_class
from .records import TensorRecord
from .stored import SUFFIX, some
from .uninitialized import Uninitialized
from .unpickle import UnsafeCheckpointError, quote

__all__ = ["Description", "UnsafeCheckpointError", "describe", "generator_hash", "load", "save"]

_UNUSED = "dataset_label_std"  # statistics of the training labels, saved with the generator and never read
_LARGEST, _MAX_LAYERS = 1 << 16, 64


@dataclass
class Description:
    """What a checkpoint holds.

    Attributes:
        class_name: of the network described.
        networks: which networks the file has.
        init_kwargs, rendering_kwargs: as they stand in a pickle; empty for our own files.
        superresolution_class: the released name of the super-resolution module.
        num_tensors, num_elements: of the network, without what is not used.
        plane_axes: None if the file does not say them; `config` then has those of the published models.
        numpy_names: which names a pickle has for numpy's numbers: "old" (before 2.0), "new", "old and new", "none".
        config: what the generator is built from; has all resolutions.
    """

    class_name: str
    networks: list[str]
    init_kwargs: dict[str, object]
    rendering_kwargs: dict[str, object]
    superresolution_class: str
    num_tensors: int
    num_elements: int
    plane_axes: str | None
    numpy_names: str
    config: GeneratorConfig

    def __str__(self) -> str:
        config = self.config
        lines = {
            "class": self.class_name,
            "networks": ", ".join(self.networks),
            "tensors": f"{self.num_tensors} with {self.num_elements:,} elements",
            "plane axes": self.plane_axes or f"not said, taken as {config.rendering.plane_axes}",
            "numpy names": self.numpy_names,
            "resolutions": f"image {config.image_resolution}, neural rendering {config.neural_rendering_resolution}, "
            f"planes {config.plane_resolution}",
            "super-resolution": self.superresolution_class,
            "init kwargs": _indented({k: v for k, v in self.init_kwargs.items() if k != "rendering_kwargs"}),
            "rendering kwargs": _indented(self.rendering_kwargs),
            "set since init": _indented(self._changed()),
        }
        return "\n".join(f"{name + ':':<18}{value}" for name, value in lines.items())

    def _changed(self) -> dict[str, object]:
        """Rendering settings that are not those of the constructor."""
        first = self.init_kwargs.get("rendering_kwargs")
        first = first if isinstance(first, dict) else {}
        return {k: v for k, v in self.rendering_kwargs.items() if k not in first or first[k] != v}


def load(path: str | Path, *, which: str = "G_ema", impl: str = "auto", force_fp32: bool = False) -> TriPlaneGenerator:
    """Load a generator: evaluation mode, float32, on the CPU, without gradients.

    Args:
        path: a published pickle, or `X.safetensors` with `X.json` beside it.
        which: network of a pickle, "G_ema" (the moving average, what everyone uses) or "G".
        impl: of the operators, see `eg3d.ops`.
        force_fp32: compute in float32 on CUDA, too, where the super-resolution would run in half precision.
    Raises:
        UnsafeCheckpointError (a ValueError) if a pickle holds anything but the data of a published file.
        ValueError if the tensors do not fit the configuration, listing what differs, or a file is damaged.
        FileNotFoundError if a file is missing.
    """
    path = _existing(path)
    config, state = _load_stored(path) if path.suffix == SUFFIX else _load_published(path, which)
    with Uninitialized():
        generator = TriPlaneGenerator(config, impl=impl, force_fp32=force_fp32)
    generator.load_state_dict(state)
    return generator.eval().requires_grad_(False)


def describe(path: str | Path, *, which: str = "G_ema") -> Description:
    """Say what a checkpoint holds, without building a generator. Arguments and errors as in `load`."""
    path = _existing(path)
    return _describe_stored(path) if path.suffix == SUFFIX else _describe_published(path, which)


def save(generator: TriPlaneGenerator, path: str | Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write `X.safetensors` and `X.json`, each replaced as a whole.

    Args:
        path: ends in .safetensors; its folder exists.
        dtype: float32, or float16 for half the size; `load` makes float32 of both.
    Raises: ValueError for another ending or dtype, or a tensor with values too large for float16.
    """
    stored.write(Path(path), generator.config, generator.state_dict(), dtype)


def generator_hash(generator: TriPlaneGenerator) -> str:
    """SHA-256, in hexadecimal, over the names, types, shapes and bytes of all tensors in order of their names."""
    return stored.state_hash(generator.state_dict())


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        why = "it is a folder" if path.is_dir() else "there is no such file"
        raise FileNotFoundError(f"no checkpoint at {path}: {why}")
    return path


def _indented(values: dict[str, object]) -> str:
    return "".join(f"\n    {quote(name)}: {quote(repr(value))}" for name, value in values.items()) or "none"


def _check_fit(path: Path, config: GeneratorConfig, found: Mapping[str, Shape]) -> None:
    """Compare names and shapes with those of a generator of this configuration, before any memory is taken for it."""
    values = asdict(config) | asdict(config.rendering)
    sizes = [
        v for value in values.values() for v in (value if isinstance(value, list) else [value]) if isinstance(v, int)
    ]
    if max(sizes) > _LARGEST or config.mapping_layers > _MAX_LAYERS:
        raise ValueError(f"the configuration in {path} has implausible sizes: {config}")
    with torch.device("meta"):
        expected = {name: tuple(t.shape) for name, t in TriPlaneGenerator(config, impl="ref").state_dict().items()}
    missing, unexpected = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    shapes = [f"{n} {found[n]} (expected {expected[n]})" for n in expected if n in found and found[n] != expected[n]]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    if any(problems.values()):
        listed = "; ".join(f"{what}: {some(names)}" for what, names in problems.items() if names)
        raise ValueError(f"the tensors in {path} do not fit its configuration. {listed}")


def _load_stored(path: Path) -> tuple[GeneratorConfig, dict[str, Tensor]]:
    config, digest = stored.read_config(path)
    _check_fit(path, config, stored.read_shapes(path))
    return config, stored.read_tensors(path, digest)


def _describe_stored(path: Path) -> Description:
    config, _ = stored.read_config(path)
    shapes = stored.read_shapes(path)
    _check_fit(path, config, shapes)
    return Description(
        class_name="TriPlaneGenerator",
        networks=["G_ema"],
        init_kwargs={},
        rendering_kwargs={},
        superresolution_class=f"SuperresolutionHybrid{config.superresolution}",
        num_tensors=len(shapes),
        num_elements=sum(torch.Size(shape).numel() for shape in shapes.values()),
        plane_axes=config.rendering.plane_axes,
        numpy_names="none",
        config=config,
    )


def _load_published(path: Path, which: str) -> tuple[GeneratorConfig, dict[str, Tensor]]:
    _, config, entries = _inspect(path, which)
    return config, {name: entry.read().float() for name, entry in entries.items()}


def _describe_published(path: Path, which: str) -> Description:
    snapshot, config, entries = _inspect(path, which)
    record = snapshot.network(which)
    return Description(
        class_name=record.class_name,
        networks=snapshot.networks(),
        init_kwargs=init_kwargs(record),
        rendering_kwargs=rendering_kwargs(record),
        superresolution_class=superresolution_class(record),
        num_tensors=len(entries),
        num_elements=sum(entry.num_elements for entry in entries.values()),
        plane_axes=plane_axes(record),
        numpy_names=snapshot.numpy_names,
        config=config,
    )


def _inspect(path: Path, which: str) -> tuple[Snapshot, GeneratorConfig, dict[str, TensorRecord]]:
    """The file, the generator's configuration, and its tensors, which fit and are no larger than the file."""
    try:
        snapshot = read_snapshot(path)
        record = snapshot.network(which)
        entries = {name: entry for name, entry in tensors(record).items() if name != _UNUSED}
        if sum(entry.num_elements * entry.data.itemsize for entry in entries.values()) > path.stat().st_size:
            raise UnsafeCheckpointError("its tensors unfold to more bytes than the file has")
        shapes = {name: entry.shape for name, entry in entries.items()}
        config = generator_config(record, shapes)
    except ValueError as error:
        raise _refusal(path, error) from None
    wrong = [name for name, entry in entries.items() if entry.data.dtype.kind != "f"]
    if wrong:
        raise ValueError(f"{path} has tensors that are not floating-point: {some(wrong)}")
    _check_fit(path, config, shapes)
    return snapshot, config, entries


def _refusal(path: Path, error: ValueError) -> UnsafeCheckpointError:
    return UnsafeCheckpointError(
        f"{path} was refused as an EG3D checkpoint: {error}. Pickles are read by a fixed list of what the published "
        "files consist of; nothing that this file names was imported or executed. If it should be a published model, "
        "download it again and compare its size; if it comes from a fork, save its tensors and settings as "
        ".safetensors + .json with the code it belongs to, and only if you trust that file."
    )
