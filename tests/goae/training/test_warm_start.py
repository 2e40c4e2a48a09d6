"""The warm start on a tiny generator: the mapping's own learning rate, the fall of both, and the term by parts."""

import pytest
import torch
from tiny import tiny_generator

from goae.training.loop import FitConfig
from goae.training.optim import OptimizerConfig
from goae.training.prior import WarmStartConfig, WarmStartStage, part_error


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


def test_a_small_part_counts_as_much_as_a_large_one() -> None:
    parts = torch.zeros(2, 1, 4, 4)
    parts[0, 0, 0, 0] = 10  # one pixel of the 32; labels between are not there
    target = torch.zeros(2, 3, 4, 4)
    image = target.clone().requires_grad_(True)
    small, large = torch.zeros_like(target), torch.zeros_like(target)
    small[0, :, 0, 0] = 1.0
    large[(parts == 0).expand_as(target)] = 1.0
    assert part_error(image + small, target, parts).item() == pytest.approx(0.5)
    assert part_error(image + large, target, parts).item() == pytest.approx(0.5)
    part_error(image + small + large, target, parts).backward()
    assert image.grad is not None
    assert image.grad[0, :, 0, 0].sum().item() == pytest.approx(image.grad.sum().item() / 2)
