"""The methods that optimise, with the settings of configs/baselines."""

from collections.abc import Callable
from typing import Any

import torch
from eg3d.generator import TriPlaneGenerator
from torch import Tensor

from goae.baselines.optimization import LatentOptimization
from goae.baselines.pose_optimization import PoseOptimization
from goae.baselines.pti import PTI
from goae.camera.regressor import load_regressor
from goae.config import BaselinesConfig
from goae.evaluation.runner import Method
from goae.extractors.lpips import LPIPS
from goae.models.latent_inverter import LatentInverter


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


def codes_of(goae: LatentInverter) -> Callable[[Tensor], Tensor]:
    """The encoder's ws (B, num_ws, w_dim) of images (B, 3, H, H), without gradients."""

    @torch.no_grad()
    def encode(image: Tensor) -> Tensor:
        ws: Tensor = goae.encode(goae.encoder_input(image))
        return ws

    return encode


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
