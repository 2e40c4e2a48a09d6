"""Baselines by their names, with the settings of configs/baselines."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny import CONFIGS, tiny_generator, tiny_images, tiny_labels

from goae.baselines.optimization import LatentOptimization, OptimizationConfig
from goae.baselines.pose_optimization import PoseOptimization, PoseOptimizationConfig
from goae.baselines.pti import PTI, PTIConfig
from goae.baselines.tuning import TuningConfig
from goae.build import BASELINES, build_baseline, build_pose_opt
from goae.camera.regressor import CameraRegressor, RegressorConfig, save_regressor
from goae.config import BaselinesConfig
from goae.models.storage import restore

SEARCH = OptimizationConfig(steps=1, lpips=0.0)
TUNING = TuningConfig(steps=1, lpips=0.0, stop_lpips=0.0)
BRIEF = BaselinesConfig(
    SEARCH, SEARCH, PTIConfig(SEARCH, TUNING), PoseOptimizationConfig(SEARCH, tuning=TUNING), regressor=""
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> BaselinesConfig:
    path = tmp_path_factory.mktemp("regressor") / "camera.safetensors"
    torch.manual_seed(0)
    save_regressor(CameraRegressor(RegressorConfig(16, [8], 8)), path)
    return replace(BRIEF, regressor=str(path))


@pytest.mark.parametrize("name", list(BASELINES))
def test_every_baseline_inverts_and_renders(name: str, config: BaselinesConfig) -> None:
    kinds = {"w": LatentOptimization, "w_plus_opt": LatentOptimization, "pti": PTI, "pose_opt": PoseOptimization}
    method = build_baseline(name, config, tiny_generator(), None)
    assert type(method) is kinds[name]
    if isinstance(method, LatentOptimization):
        assert method.space == name.removesuffix("_opt")
    with torch.no_grad():
        view = method.render(method.invert(tiny_images(1), tiny_labels(1)), tiny_labels(1))
    assert view.image.shape == (1, 3, 32, 32) and bool(torch.isfinite(view.image).all())


def test_pose_opt_takes_an_encoder_and_wants_a_regressor(config: BaselinesConfig) -> None:
    generator = tiny_generator()
    ws = generator.w_avg.expand(1, generator.num_ws, -1) + 1
    none = replace(config, pose_opt=replace(config.pose_opt, pivot=replace(SEARCH, steps=0)))
    method = build_pose_opt(none, generator, None, encode=lambda image: ws)
    assert torch.equal(method.search(tiny_images(1))[0], ws)
    with pytest.raises(ValueError, match=r"baselines\.regressor is empty"):
        build_pose_opt(BRIEF, generator, None)


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(ValueError, match="no baseline 'hfgi'; expected one of w, w_plus_opt, pti, pose_opt"):
        build_baseline("hfgi", BRIEF, tiny_generator(), None)


@pytest.mark.parametrize(("world", "stop"), [("mini", 0.0), ("full", 0.06)])
def test_settings_have_the_papers_iterations(world: str, stop: float) -> None:
    """R38, R39; in the mini world all of them are run."""
    values: dict[str, Any] = yaml.safe_load(Path(CONFIGS / "baselines" / f"{world}.yaml").read_text())
    made = restore(BaselinesConfig, values)
    assert (made.pti.pivot.steps, made.pti.tuning.steps) == (450, 350)
    assert (made.pose_opt.pivot.steps, made.pose_opt.tuning.steps) == (400, 400)
    assert made.pti.tuning == replace(made.pose_opt.tuning, steps=350)
    assert (made.pti.pivot.lr, made.pti.tuning.lr, made.pti.tuning.stop_lpips) == (5e-3, 3e-4, stop)
