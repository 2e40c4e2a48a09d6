"""Optimisers: their names, Ranger's first steps, the average of weights."""

from pathlib import Path

import pytest
import torch
from torch import nn

from goae.training.ema import WeightAverage
from goae.training.optim import OptimizerConfig, build_optimizer


def step(config: OptimizerConfig, steps: int) -> torch.Tensor:
    weight = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]]))
    optimizer = build_optimizer(config, [weight])
    for _ in range(steps):
        optimizer.zero_grad()
        (weight - torch.tensor([[0.0, 1.0], [2.0, 0.0]])).square().sum().backward()
        optimizer.step()
    return weight.detach()


def reference_ranger(lr: float, steps: int) -> torch.Tensor:
    """RAdam (threshold 5, betas 0.95 and 0.999, eps 1e-5), gradient centralisation, Lookahead (k 6, alpha 0.5)."""
    x = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
    goal = torch.tensor([[0.0, 1.0], [2.0, 0.0]], dtype=torch.float64)
    slow, m, v, b1, b2 = x.clone(), torch.zeros_like(x), torch.zeros_like(x), 0.95, 0.999
    limit = 2 / (1 - b2) - 1
    for t in range(1, steps + 1):
        g = 2 * (x - goal)
        g = g - g.mean(1, keepdim=True)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        rho = limit - 2 * t * b2**t / (1 - b2**t)
        if rho > 5:
            r = ((1 - b2**t) * (rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)) ** 0.5
            x = x - lr * r / (1 - b1**t) * m / (v.sqrt() + 1e-5)
        else:
            x = x - lr / (1 - b1**t) * m
        if t % 6 == 0:
            slow = slow + 0.5 * (x - slow)
            x = slow.clone()
    return x


def test_ranger_is_the_reference_one_from_the_first_step() -> None:
    for steps in (1, 5, 6, 30):
        got = step(OptimizerConfig("ranger", lr=1e-2), steps)
        # float32 arithmetic of the optimiser; measured differences stay below 1e-6
        assert torch.allclose(got.double(), reference_ranger(1e-2, steps), atol=1e-5), steps


def test_ranger_counts_from_the_first_gradient_of_each_parameter(tmp_path: Path) -> None:
    """What is unlocked late moves as if training had begun then, stopped and resumed or not."""
    goal = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    early, late = (nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]])) for _ in range(2))
    optimizer = build_optimizer(OptimizerConfig("ranger", lr=1e-2), [early, late])
    for i in range(43):
        optimizer.zero_grad()
        active = [early] if i < 20 else [early, late]
        torch.stack([(x - goal).square().sum() for x in active]).sum().backward()
        optimizer.step()
        if i == 29:
            torch.save(optimizer.state_dict(), tmp_path / "state.pt")
            optimizer = build_optimizer(OptimizerConfig("ranger", lr=1e-2), [early, late])
            optimizer.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.allclose(early.detach().double(), reference_ranger(1e-2, 43), atol=1e-5)
    assert torch.allclose(late.detach().double(), reference_ranger(1e-2, 23), atol=1e-5)


@pytest.mark.parametrize("name", ["adam", "radam", "ranger"])
def test_each_optimizer_descends(name: str) -> None:
    far, near = step(OptimizerConfig(name, lr=1e-2), 1), step(OptimizerConfig(name, lr=1e-2), 50)
    goal = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    assert (near - goal).square().sum() < (far - goal).square().sum()


@pytest.mark.parametrize("wrong", [{"name": "sgd"}, {"lr": 0.0}, {"betas": [0.9]}])
def test_wrong_values_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        OptimizerConfig(**wrong)  # type: ignore[arg-type]


def test_average_moves_parameters_and_statistics_and_copies_other_buffers() -> None:
    module = nn.BatchNorm1d(2)
    module.register_buffer("w_avg", torch.zeros(2))
    average = WeightAverage(module)
    with torch.no_grad():
        module.weight.fill_(5.0)
        module.running_mean.fill_(3.0)
        module.num_batches_tracked.fill_(7)
        module.w_avg.fill_(2.0)
    average.update(module, 0.75)
    assert torch.allclose(average.module.weight, torch.full((2,), 0.75 * 1 + 0.25 * 5))
    assert torch.allclose(average.module.running_mean, torch.full((2,), 0.25 * 3))
    assert average.module.num_batches_tracked == 7 and torch.equal(average.module.w_avg, module.w_avg)


def test_averaged_weights_are_lent_and_given_back() -> None:
    module = nn.BatchNorm1d(2)
    average = WeightAverage(module)
    with torch.no_grad():
        module.weight.fill_(5.0)
        module.running_mean.fill_(3.0)
    with average.lent_to(module):
        assert torch.equal(module.weight, torch.ones(2)) and torch.equal(module.running_mean, torch.zeros(2))
    assert torch.equal(module.weight, torch.full((2,), 5.0)) and torch.equal(module.running_mean, torch.full((2,), 3.0))
