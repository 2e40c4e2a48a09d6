"""The methods under test."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any

import torch
from eg3d.generator import TriPlaneGenerator
from torch import Tensor

from goae.baselines.encoder_only import EncoderOnly
from goae.baselines.floors import AverageCode
from goae.baselines.optimization import LatentOptimization
from goae.baselines.pose_optimization import PoseOptimization
from goae.baselines.pti import PTI
from goae.camera.regressor import load_regressor
from goae.config import BaselinesConfig
from goae.evaluation.results import module_hash
from goae.evaluation.runner import Method
from goae.evaluation.timing import Steps, goae_steps
from goae.extractors.lpips import LPIPS
from goae.inversion import Inverter
from goae.loading import load_inverter


@dataclass(frozen=True)
class Tested:
    """A method under test: what its numbers depend on, and its parts for the timing where it tells them apart."""

    method: Method[Any]
    settings: dict[str, Any]
    steps: Steps | None = None


class Given:
    """The weights that methods under test are built from, loaded when a method first asks for them."""

    def __init__(self, *, generator: str, encoder: str, refiner: str, preset: str, device: torch.device) -> None:
        """Paths; `preset` may be empty, see `load_inverter`."""
        self.files, self.preset, self.device = (generator, encoder, refiner), preset, device

    @cached_property
    def inverter(self) -> Inverter:
        """GOAE in full."""
        generator, encoder, refiner = self.files
        preset = self.preset or None
        return load_inverter(generator=generator, encoder=encoder, refiner=refiner, preset=preset, device=self.device)


def _full(given: Given) -> Tested:
    goae = given.inverter.goae
    settings = _generator_settings(given) | {
        "encoder": module_hash(goae.encoder),
        "refiner": module_hash(goae.afa),
        "goae": asdict(goae.config),
    }
    return Tested(given.inverter, settings, partial(goae_steps, goae, refine=True))


def _w_plus(given: Given) -> Tested:
    goae = given.inverter.goae
    settings = _generator_settings(given) | {"encoder": module_hash(goae.encoder)}
    return Tested(EncoderOnly(goae), settings, partial(goae_steps, goae, refine=False))


def _w_avg(given: Given) -> Tested:
    return Tested(AverageCode(given.inverter.goae.generator), _generator_settings(given))


def _generator_settings(given: Given) -> dict[str, Any]:
    return {"generator": given.inverter.generator_hash}


# Methods that the protocols can measure; a further one is one entry.
METHODS: dict[str, Callable[[Given], Tested]] = {"w_avg": _w_avg, "w_plus": _w_plus, "full": _full}


def build_method(name: str, given: Given) -> Tested:
    """A method under test."""
    if name not in METHODS:
        raise ValueError(f"methods has {name!r}; expected some of {', '.join(METHODS)}")
    return METHODS[name](given)


def build_w(config: BaselinesConfig, generator: TriPlaneGenerator, lpips: LPIPS | None) -> LatentOptimization:
    """Optimisation in W."""
    return LatentOptimization(generator, config.w, space="w", lpips=lpips)


def build_w_plus_opt(config: BaselinesConfig, generator: TriPlaneGenerator, lpips: LPIPS | None) -> LatentOptimization:
    """Optimisation in W+."""
    return LatentOptimization(generator, config.w_plus, space="w_plus", lpips=lpips)


def build_pti(config: BaselinesConfig, generator: TriPlaneGenerator, lpips: LPIPS | None) -> PTI:
    """PTI."""
    return PTI(generator, config.pti, lpips=lpips)


def build_pose_opt(
    config: BaselinesConfig,
    generator: TriPlaneGenerator,
    lpips: LPIPS | None,
    *,
    encode: Callable[[Tensor], Tensor] | None = None,
) -> PoseOptimization:
    """Pose Opt., from the camera of `baselines.regressor` and the code of `encode`, images -> ws; None: w_avg."""
    if not config.regressor:
        raise ValueError(
            "baselines.regressor is empty, but Pose Opt. starts from an estimated camera: train one with "
            "scripts/train_camera.py and give its camera.safetensors"
        )
    regressor = load_regressor(config.regressor, generator.w_avg.device)
    sphere = regressor.config.sphere
    return PoseOptimization(
        generator, config.pose_opt, estimate=regressor.estimate, sphere=sphere, lpips=lpips, encode=encode
    )


BASELINES: dict[str, Callable[[BaselinesConfig, TriPlaneGenerator, LPIPS | None], Method[Any]]] = {
    "w": build_w,
    "w_plus_opt": build_w_plus_opt,
    "pti": build_pti,
    "pose_opt": build_pose_opt,
}


def build_baseline(
    name: str, config: BaselinesConfig, generator: TriPlaneGenerator, lpips: LPIPS | None
) -> Method[Any]:
    """The method `name` of `BASELINES` on the generator's device. Raises: ValueError for another name."""
    if name not in BASELINES:
        raise ValueError(f"there is no baseline {name!r}; expected one of {', '.join(BASELINES)}")
    return BASELINES[name](config, generator, lpips)
