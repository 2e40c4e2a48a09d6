"""The procedural people of the mini world: what a head is described by, and how heads are drawn at random.

A head is a row of standard-normal *factors*, one per field of `Head`, in four groups: `identity` (constant for a
person), `expression`, `style` (glasses, clothes) and `scene` (light, background). `describe` maps a row to the physical
values the renderer reads; the map is fixed, so the factors determine the picture up to the camera. Being independent
and standard normal they can serve as the z of a generator.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

GROUPS = ("identity", "expression", "style", "scene")
LIMIT = 2.5  # factors are clamped to ±LIMIT standard deviations before they are mapped to physical values


class Part(IntEnum):
    """Semantic labels of a rendered head."""

    BACKGROUND = 0
    SKIN = 1
    HAIR = 2
    EYES = 3
    BROWS = 4
    NOSE = 5
    LIPS = 6
    EARS = 7
    NECK = 8
    CLOTHES = 9
    GLASSES = 10


def _normal(group: str, mean: float, std: float, *, odd: bool = False) -> Any:
    """A field that is mean + std * factor; `odd` fields change sign in a mirror."""
    return field(metadata={"group": group, "value": lambda u: mean + std * u, "odd": odd})


def _uniform(group: str, low: float, high: float) -> Any:
    """A field that is uniform in [low, high]: low + (high - low) * Phi(factor)."""
    return field(metadata={"group": group, "value": lambda u: low + (high - low) * _phi(u), "odd": False})


def _phi(u: float) -> float:
    return 0.5 * (1.0 + math.erf(u / math.sqrt(2.0)))


@dataclass(frozen=True)
class Head:
    """Physical description of one head; lengths in scene units, angles in radians, shares in [0, 1]."""

    # identity: skin and skull
    skin_tone: float = _uniform("identity", 0.0, 1.0)  # 0 palest, 1 darkest
    skin_hue: float = _normal("identity", 0.0, 0.35)  # + redder, - more olive
    age: float = _uniform("identity", 0.0, 1.0)  # 0 young, 1 old: grey hair, folds
    head_width: float = _normal("identity", 0.146, 0.006)
    head_height: float = _normal("identity", 0.160, 0.006)
    head_depth: float = _normal("identity", 0.182, 0.006)
    jaw_width: float = _normal("identity", 0.098, 0.010)
    chin_length: float = _normal("identity", 0.0, 0.009)
    chin_forward: float = _normal("identity", 0.0, 0.009)
    cheeks: float = _normal("identity", 0.0, 0.007)
    # identity: nose
    nose_length: float = _normal("identity", 0.098, 0.009)
    nose_width: float = _normal("identity", 0.019, 0.003)
    nose_out: float = _normal("identity", 0.048, 0.008)
    nose_bridge: float = _normal("identity", 0.0, 0.005)
    # identity: eyes and brows
    eye_size: float = _normal("identity", 0.033, 0.0022)
    eye_spacing: float = _normal("identity", 0.061, 0.0035)
    eye_height: float = _normal("identity", 0.018, 0.006)
    eye_tilt: float = _normal("identity", 0.06, 0.09)
    iris: float = _uniform("identity", 0.0, 1.0)  # 0 blue, 0.35 green, 1 dark brown
    brow_thickness: float = _normal("identity", 0.0075, 0.0016)
    brow_height: float = _normal("identity", 0.046, 0.004)
    brow_arch: float = _normal("identity", 0.010, 0.005)
    # identity: mouth and ears
    lip_fullness: float = _normal("identity", 0.0135, 0.0026)
    lip_redness: float = _uniform("identity", 0.0, 1.0)
    mouth_width: float = _normal("identity", 0.050, 0.005)
    mouth_height: float = _normal("identity", -0.128, 0.006)
    ear_size: float = _normal("identity", 0.046, 0.005)
    ear_out: float = _normal("identity", 0.014, 0.005)
    neck_width: float = _normal("identity", 0.082, 0.007)
    # identity: hair
    hair_dark: float = _uniform("identity", 0.0, 1.0)  # 0 blond, 1 black; darker skin raises it
    hair_red: float = _normal("identity", 0.0, 1.0)
    hair_length: float = _uniform("identity", 0.0, 1.0)  # 0 cropped, 0.5 chin, 1 below the shoulders
    hair_volume: float = _normal("identity", 0.026, 0.008)
    hair_curl: float = _normal("identity", 0.0, 1.0)
    hair_line: float = _normal("identity", 0.118, 0.016)  # height of its middle
    hair_part: float = _normal("identity", 0.0, 0.35, odd=True)  # tilt of the hairline
    beard: float = _normal("identity", 0.0, 1.0)  # grows above 0.8
    # expression
    smile: float = _normal("expression", 0.35, 0.5)  # 1 broad, 0 neutral, -1 sad
    mouth_open: float = _normal("expression", -0.1, 0.5)  # closed below 0, 1 wide
    eye_open: float = _normal("expression", 1.0, 0.15)
    brow_raise: float = _normal("expression", 0.0, 0.006)
    brow_frown: float = _normal("expression", 0.0, 0.12)  # slope of the brows, + angry
    gaze_x: float = _normal("expression", 0.0, 0.14, odd=True)
    gaze_y: float = _normal("expression", 0.0, 0.08)
    # style
    glasses: float = _normal("style", 0.0, 1.0)  # worn above 0.85 (one shot in five)
    frame_size: float = _normal("style", 0.044, 0.003)
    frame_shade: float = _uniform("style", 0.0, 1.0)
    clothes_hue: float = _uniform("style", 0.0, 1.0)
    clothes_shade: float = _uniform("style", 0.05, 0.9)
    collar: float = _normal("style", 0.0, 1.0)  # + a higher neckline
    # scene
    light_yaw: float = _normal("scene", 0.0, 0.55, odd=True)
    light_pitch: float = _normal("scene", 0.5, 0.2)
    light_power: float = _normal("scene", 1.0, 0.10)
    light_ambient: float = _uniform("scene", 0.35, 0.6)
    light_warmth: float = _normal("scene", 0.0, 0.05)
    backdrop_hue: float = _uniform("scene", 0.0, 1.0)
    backdrop_saturation: float = _uniform("scene", 0.0, 0.45)
    backdrop_shade: float = _uniform("scene", 0.12, 0.92)
    backdrop_tilt: float = _normal("scene", 0.0, 0.12, odd=True)  # brightness change from left to right
    backdrop_fall: float = _normal("scene", 0.08, 0.12)  # brightness change from bottom to top

    @property
    def wears_glasses(self) -> bool:
        return self.glasses > 0.85

    @property
    def has_beard(self) -> bool:
        return self.beard > 0.8


FACTORS = tuple(f.name for f in fields(Head))
NUM_FACTORS = len(FACTORS)
_VALUES: tuple[Callable[[float], float], ...] = tuple(f.metadata["value"] for f in fields(Head))
_ODD = tuple(f.metadata["odd"] for f in fields(Head))
COLUMNS = {g: tuple(i for i, f in enumerate(fields(Head)) if f.metadata["group"] == g) for g in GROUPS}

ATTRIBUTES = ("smile", "mouth_open", "glasses", "hair_length", "hair_dark", "age", "beard", "skin_tone", "eye_open")

# Factor values of the five expressions of the multi-view split; columns that are not named are 0.
EXPRESSIONS: dict[str, dict[str, float]] = {
    "neutral": {"smile": -0.7, "mouth_open": -1.0},
    "happy": {"smile": 1.7, "mouth_open": 0.7, "eye_open": -0.7},
    "surprised": {"smile": -0.7, "mouth_open": 1.8, "eye_open": 2.0, "brow_raise": 2.0},
    "angry": {"smile": -1.5, "mouth_open": -1.0, "eye_open": -0.8, "brow_raise": -1.2, "brow_frown": 2.2},
    "sad": {"smile": -2.2, "mouth_open": -1.0, "eye_open": -1.2, "brow_raise": 0.5, "brow_frown": -2.2},
}
# A plain, evenly lit, grey studio.
STUDIO: dict[str, float] = {"backdrop_saturation": -2.5, "backdrop_shade": 0.6, "backdrop_fall": -0.66}


@dataclass(frozen=True)
class HeadParams:
    """A batch of heads: `latents` (B, NUM_FACTORS) float32, standard normal, columns in the order of `FACTORS`."""

    latents: Tensor

    def __post_init__(self) -> None:
        if self.latents.ndim != 2 or self.latents.shape[1] != NUM_FACTORS:
            raise ValueError(f"head factors have shape {tuple(self.latents.shape)}; expected (B, {NUM_FACTORS})")

    def __len__(self) -> int:
        return self.latents.shape[0]

    def __getitem__(self, index: slice | Tensor) -> "HeadParams":
        return HeadParams(self.latents[index])


def sample_heads(num: int, generator: torch.Generator) -> HeadParams:
    """Draw `num` independent heads: people, expressions, styles and scenes."""
    return HeadParams(torch.randn(num, NUM_FACTORS, generator=generator))


def with_group(params: HeadParams, group: str, donor: HeadParams) -> HeadParams:
    """Replace one group of factors by the donor's (one row, or as many as `params`)."""
    if group not in COLUMNS:
        raise ValueError(f"group {group!r} is not one of {', '.join(GROUPS)}")
    latents = params.latents.clone()
    columns = list(COLUMNS[group])
    latents[:, columns] = donor.latents[:, columns]
    return HeadParams(latents)


def with_factors(params: HeadParams, values: dict[str, float]) -> HeadParams:
    """Set factors (in standard deviations) by name, for every row."""
    latents = params.latents.clone()
    for name, value in values.items():
        latents[:, _column(name)] = value
    return HeadParams(latents)


def with_expression(params: HeadParams, name: str) -> HeadParams:
    """Give every head one of the named `EXPRESSIONS`."""
    if name not in EXPRESSIONS:
        raise ValueError(f"expression {name!r} is not one of {', '.join(EXPRESSIONS)}")
    return with_factors(params, {FACTORS[i]: 0.0 for i in COLUMNS["expression"]} | EXPRESSIONS[name])


def in_studio(params: HeadParams) -> HeadParams:
    """Put every head before the same plain backdrop, in the same light."""
    return with_factors(params, {FACTORS[i]: 0.0 for i in COLUMNS["scene"]} | STUDIO)


def mirror(params: HeadParams) -> HeadParams:
    """The heads as seen in a mirror (x -> -x): factors with a left and a right change sign."""
    return HeadParams(params.latents * mirror_signs())


def mirror_signs(group: str | None = None) -> Tensor:
    """What a mirror multiplies factors by: -1 for those with a left and a right. Returns: (F,) of a group or of all."""
    signs = torch.tensor([-1.0 if odd else 1.0 for odd in _ODD])
    return signs if group is None else signs[list(COLUMNS[group])]


def factors(params: HeadParams, width: int = NUM_FACTORS) -> Tensor:
    """All factors, clamped as the renderer clamps them and padded with zeros to `width`. Returns: (B, width)."""
    if width < NUM_FACTORS:
        raise ValueError(f"width={width} cannot hold {NUM_FACTORS} factors")
    return torch.nn.functional.pad(params.latents.clamp(-LIMIT, LIMIT), (0, width - NUM_FACTORS))


def identity(params: HeadParams) -> Tensor:
    """The standardised factors that are constant for a person. Returns: (B, 37) for the present `Head`."""
    return factors(params)[:, list(COLUMNS["identity"])]


def attributes(params: HeadParams) -> Tensor:
    """The `ATTRIBUTES` as physical values; `glasses` and `beard` are 0 or 1. Returns: (B, len(ATTRIBUTES)) float32."""
    rows = []
    for head in describe(params):
        flags = {"glasses": float(head.wears_glasses), "beard": float(head.has_beard)}
        rows.append([flags.get(name, getattr(head, name)) for name in ATTRIBUTES])
    return torch.tensor(rows, dtype=torch.float32).reshape(len(params), len(ATTRIBUTES))


def describe(params: HeadParams) -> list[Head]:
    """The physical description of every head of the batch."""
    heads = []
    for row in factors(params).tolist():
        head = Head(*(value(u) for value, u in zip(_VALUES, row, strict=True)))
        # Blond hair over very dark skin does not occur in photographs.
        heads.append(replace(head, hair_dark=max(head.hair_dark, min(1.0, 1.6 * head.skin_tone - 0.3))))
    return heads


def _column(name: str) -> int:
    if name not in FACTORS:
        raise ValueError(f"factor {name!r} is not one of {', '.join(FACTORS)}")
    return FACTORS.index(name)
