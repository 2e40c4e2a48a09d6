"""The warm start's learning rates on a tiny generator: the mapping's own, and their fall at the end."""

import pytest
from tiny import tiny_generator

from goae.training.loop import FitConfig
from goae.training.optim import OptimizerConfig
from goae.training.prior import WarmStartConfig, WarmStartStage


@pytest.fixture
def stage() -> WarmStartStage:
    config = WarmStartConfig(
        fit=FitConfig(steps=100), optimizer=OptimizerConfig(lr=0.01), lpips=0.0, mapping_gain=50.0, lr_decay_steps=40
    )
    return WarmStartStage(tiny_generator(), None, config)


def test_every_parameter_is_trained_once_and_the_mapping_apart(stage: WarmStartStage) -> None:
    rest, mapping = ({id(p) for p in group["params"]} for group in stage.optimizer.param_groups)
    assert mapping == {id(p) for p in stage.generator.backbone.mapping.parameters()}
    assert rest | mapping == {id(p) for p in stage.generator.parameters()} and not rest & mapping


@pytest.mark.parametrize(("step", "rate"), [(0, 0.01), (60, 0.01), (80, 0.01 * 0.55), (100, 0.001)])
def test_the_mapping_learns_faster_and_both_rates_fall_to_a_tenth(
    stage: WarmStartStage, step: int, rate: float
) -> None:
    stage.begin(step)
    rest, mapping = (group["lr"] for group in stage.optimizer.param_groups)
    assert rest == pytest.approx(rate) and mapping == pytest.approx(50 * rate)
