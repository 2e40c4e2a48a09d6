"""From the records of a published generator to its `GeneratorConfig`.

A module's attributes hold what was in force when the file was written, and win over the arguments that it was once
constructed with: a generator that renders at 128 was constructed with 64 and changed later. The axes of the planes
stand in the renderer alone. Sizes that the released code hard-wires are taken from the tensors' shapes.
"""

import logging
import math
from collections.abc import Mapping

from .generator import GeneratorConfig
from .nn.superresolution import VARIANTS
from .records import Record, TensorRecord
from .rendering.planes import PUBLISHED_AXES, axes_from_matrix
from .rendering.renderer import RenderingConfig
from .unpickle import UnsafeCheckpointError, kind, quote

Shape = tuple[int, ...]
_LARGEST = 1 << 16  # of any count or size
_MAX_DEPTH, _MAX_VALUES, _MAX_LETTERS = 8, 1000, 100_000  # of keyword arguments, all texts together
_log = logging.getLogger(__name__)


class Settings:
    """Typed access to keyword arguments from a file; `where` names them in errors."""

    def __init__(self, values: Mapping[str, object], where: str) -> None:
        self.values, self.where = values, where

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._error(key, value, "a finite number")
        return float(value)

    def count(self, key: str, default: int | None = None) -> int:
        """An integer from 0 to 65536."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST:
            raise self._error(key, value, f"an integer from 0 to {_LARGEST}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """True or False."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._error(key, value, "True or False")
        return value

    def text(self, key: str, default: str) -> str:
        """A text."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._error(key, value, "a text")
        return value

    def group(self, key: str) -> "Settings":
        """Nested keyword arguments; empty where there are none."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise self._error(key, value, "a dict")
        return Settings(value, f"{self.where}.{key}")

    def _get(self, key: str, default: object) -> object:
        if key in self.values:
            return self.values[key]
        if default is None:
            raise ValueError(f"the checkpoint's {self.where} has no {key!r}, which is needed to build the generator")
        return default

    def _error(self, key: str, value: object, expected: str) -> ValueError:
        return ValueError(f"the checkpoint's {self.where}.{key} is {quote(repr(value))}, expected {expected}")


def plain(value: object, what: str) -> dict[str, object]:
    """Keyword arguments of a file as dicts, lists, texts and numbers, copied.

    Raises: UnsafeCheckpointError for anything else, and for too many or too deeply nested values.
    """
    if type(value) is not dict:
        raise UnsafeCheckpointError(f"its {what} is {kind(value)}, expected a dict")
    copied = _plain(value, what, 0, [_MAX_VALUES, _MAX_LETTERS])
    assert isinstance(copied, dict)
    return copied


def _plain(value: object, what: str, depth: int, left: list[int]) -> object:
    left[0] -= 1
    left[1] -= sum(map(len, value)) if isinstance(value, dict) else len(value) if isinstance(value, str) else 0
    if depth > _MAX_DEPTH or min(left) < 0:
        raise UnsafeCheckpointError(
            f"its {what} holds more than {_MAX_VALUES} values or {_MAX_LETTERS} letters, or nests them too deep"
        )
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {key: _plain(item, what, depth + 1, left) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, what, depth + 1, left) for item in value]
    raise UnsafeCheckpointError(f"its {what} holds {kind(value)}, expected texts and numbers")


def init_kwargs(record: Record) -> dict[str, object]:
    """The keyword arguments that the module was constructed with."""
    return plain((record.state or {}).get("_init_kwargs"), "_init_kwargs")


def rendering_kwargs(record: Record) -> dict[str, object]:
    """The rendering settings in force: the attribute, or else what the module was constructed with."""
    state = record.state or {}
    value = state["rendering_kwargs"] if "rendering_kwargs" in state else init_kwargs(record).get("rendering_kwargs")
    return plain(value, "rendering_kwargs")


def plane_axes(record: Record) -> str | None:
    """The axes that the generator's renderer holds, such as "xy,xz,zx"; None if it holds none."""
    renderer = record.part("_modules").get("renderer")
    if not isinstance(renderer, Record):
        return None
    state = renderer.state or {}
    matrix = state.get("plane_axes", renderer.part("_buffers").get("plane_axes"))
    if matrix is None:
        return None
    if not isinstance(matrix, TensorRecord) or matrix.shape != (3, 3, 3):
        raise UnsafeCheckpointError(f"its plane_axes is {kind(matrix)}, expected a tensor of shape (3, 3, 3)")
    try:
        return axes_from_matrix(matrix.read())
    except RuntimeError:  # a matrix without an inverse
        raise ValueError("the checkpoint's plane_axes has a matrix without an inverse, so it names no axes") from None


def superresolution_class(record: Record) -> str:
    """The class of the super-resolution module, such as "SuperresolutionHybrid8XDC"."""
    module = record.part("_modules").get("superresolution")
    if not isinstance(module, Record):
        raise UnsafeCheckpointError("its generator has no super-resolution module")
    return module.class_name


def generator_config(record: Record, shapes: Mapping[str, Shape]) -> GeneratorConfig:
    """The configuration of a published generator.

    Args:
        record: of the class TriPlaneGenerator.
        shapes: of its tensors, by name.
    Raises: ValueError for values that are missing, of a wrong type, or that this implementation does not have.
    """
    if record.class_name != "TriPlaneGenerator":
        raise ValueError(f"the network is a {quote(record.class_name)}, expected a TriPlaneGenerator")
    attributes = {name: value for name, value in (record.state or {}).items() if isinstance(value, int | float)}
    settings = Settings(init_kwargs(record) | attributes, "init_kwargs")
    rendering = Settings(rendering_kwargs(record), "rendering_kwargs")
    _refuse_unsupported(settings, rendering)
    axes = plane_axes(record)
    if axes is None:
        _log.warning(
            "the checkpoint does not say its plane axes; taking those of the published models, %s", PUBLISHED_AXES
        )
    resolution = _plane_resolution(shapes)
    return GeneratorConfig(
        z_dim=settings.count("z_dim"),
        c_dim=settings.count("c_dim"),
        w_dim=settings.count("w_dim"),
        mapping_layers=settings.group("mapping_kwargs").count("num_layers", 8),
        image_resolution=settings.count("img_resolution"),
        plane_resolution=resolution,
        plane_channels=_size(shapes, f"backbone.synthesis.b{resolution}.torgb.weight", 0) // 3,
        channel_base=settings.count("channel_base", 32768),
        channel_max=settings.count("channel_max", 512),
        neural_rendering_resolution=settings.count("neural_rendering_resolution", 64),
        **_superresolution(record, shapes),  # type: ignore[arg-type]
        sr_num_fp16_res=settings.count("sr_num_fp16_res"),
        sr_antialias=rendering.flag("sr_antialias", True),
        superresolution_noise_mode=rendering.text("superresolution_noise_mode", "none"),
        decoder_lr_mul=rendering.number("decoder_lr_mul", 1.0),
        c_scale=rendering.number("c_scale", 0.0),
        c_gen_conditioning_zero=rendering.flag("c_gen_conditioning_zero", False),
        **_camera(rendering),  # type: ignore[arg-type]
        rendering=_rendering(rendering, axes or PUBLISHED_AXES),
    )


def _refuse_unsupported(settings: Settings, rendering: Settings) -> None:
    """Refuse settings that change what is computed and that no published model has."""
    fixed = {
        "img_channels": (settings, 3),
        "num_fp16_res": (settings, 0),
        "conv_clamp": (settings, None),
        "clamp_mode": (rendering, "softplus"),
        "density_noise": (rendering, 0),
    }
    for key, (where, expected) in fixed.items():
        value = where.values.get(key, expected)
        if value != expected:
            raise ValueError(
                f"the checkpoint's {where.where}.{key} is {quote(repr(value))}; only {expected} is supported"
            )


def _plane_resolution(shapes: Mapping[str, Shape]) -> int:
    """The largest resolution that the backbone has a block for."""
    present = [r for r in (2**k for k in range(2, 13)) if f"backbone.synthesis.b{r}.conv1.weight" in shapes]
    if not present:
        raise ValueError("the checkpoint's generator has no tensors backbone.synthesis.b*.conv1.weight")
    return present[-1]


def _size(shapes: Mapping[str, Shape], name: str, dimension: int) -> int:
    shape = shapes.get(name, ())
    if len(shape) <= dimension or not 0 < shape[dimension] <= _LARGEST:
        raise ValueError(f"the checkpoint's tensor {name} is missing or has the shape {shape}")
    return shape[dimension]


def _superresolution(record: Record, shapes: Mapping[str, Shape]) -> dict[str, object]:
    """Variant by class name; input resolution and channels where they are not the variant's own."""
    name = superresolution_class(record)
    variant = name.removeprefix("SuperresolutionHybrid")
    if variant not in VARIANTS:
        known = ", ".join(f"SuperresolutionHybrid{v}" for v in VARIANTS)
        raise ValueError(f"the checkpoint's super-resolution is {quote(name)}, expected one of {known}")
    own = VARIANTS[variant]
    resolution = _size(shapes, "superresolution.block0.conv0.noise_const", 0) // own.up
    channels = tuple(_size(shapes, f"superresolution.block{i}.conv1.weight", 0) for i in (0, 1))
    return {
        "superresolution": variant,
        "superresolution_input": None if resolution == own.input_resolution else resolution,
        "superresolution_channels": None if channels == own.hidden_channels else list(channels),
    }


def _camera(rendering: Settings) -> dict[str, object]:
    pivot = rendering.values.get("avg_camera_pivot", [0.0, 0.0, 0.0])
    if not isinstance(pivot, list) or len(pivot) != 3:
        raise ValueError(f"the checkpoint's avg_camera_pivot is {quote(repr(pivot))}, expected three numbers")
    numbers = Settings({str(i): value for i, value in enumerate(pivot)}, "rendering_kwargs.avg_camera_pivot")
    return {
        "avg_camera_radius": rendering.number("avg_camera_radius", 2.7),
        "avg_camera_pivot": [numbers.number(str(i)) for i in range(3)],
    }


def _rendering(rendering: Settings, axes: str) -> RenderingConfig:
    automatic = [rendering.values.get(key) == "auto" for key in ("ray_start", "ray_end")]
    if automatic[0] != automatic[1]:
        raise ValueError("the checkpoint's ray_start and ray_end are a number and 'auto', expected two of one kind")
    return RenderingConfig(
        ray_start=None if automatic[0] else rendering.number("ray_start"),
        ray_end=None if automatic[1] else rendering.number("ray_end"),
        box_warp=rendering.number("box_warp"),
        depth_resolution=rendering.count("depth_resolution"),
        depth_resolution_importance=rendering.count("depth_resolution_importance"),
        disparity_space_sampling=rendering.flag("disparity_space_sampling", False),
        white_back=rendering.flag("white_back", False),
        plane_axes=axes,
    )
