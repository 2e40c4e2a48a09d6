"""The adversarial stage on a tiny generator: what each phase trains, what it draws, and the bridge's shares."""

from typing import Any

import pytest
import torch
from eg3d.discriminator import DualDiscriminator
from eg3d.losses import Schedule
from tiny import tiny_generator, tiny_images, tiny_labels
from torch import Tensor, nn

from goae.training.adversarial import AdversarialConfig, AdversarialStage, BridgeConfig, lazy, progress
from goae.training.loop import FitConfig
from goae.training.phases import Draw, Phase
from goae.training.prior import SupervisedLosses, WarmStartConfig

BRIDGE = BridgeConfig(discriminator_steps=2, fade_steps=4, release_steps=10, supervised_floor=0.2)


def batch() -> dict[str, Tensor]:
    factors = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    return {"image": tiny_images(4), "c": tiny_labels(4), "factors": factors}


def stage(bridge: BridgeConfig | None = None, **overrides: Any) -> AdversarialStage:
    generator = tiny_generator()
    torch.manual_seed(0)
    discriminator = DualDiscriminator(32, channel_base=128, channel_max=8, mapping_layers=2)
    bridge = bridge or BridgeConfig()
    supervised = SupervisedLosses(generator, None, WarmStartConfig(lpips=0.0)) if bridge.supervised else None
    values: dict[str, Any] = {
        "fit": FitConfig(batch_size=8, micro_batch=4),
        "schedule": Schedule(resolution=16, blur_sigma=1.0, blur_kimg=0.016, density_interval=2, r1_interval=3),
    }
    config = AdversarialConfig(bridge=bridge, **(values | overrides))
    return AdversarialStage(generator, discriminator, tiny_labels(9), supervised, config)


def phase(made: AdversarialStage, name: str) -> Phase:
    return next(p for p in made.phases if p.name == name)


def run(made: AdversarialStage, name: str, draw: Draw) -> dict[str, Tensor]:
    found = phase(made, name).losses(batch(), draw)
    assert all(torch.isfinite(v) and v.ndim == 0 for v in found.values())
    torch.stack(list(found.values())).sum().backward()
    return found


def trained(module: nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "terms", "generator"),
    [("g", {"adv"}, True), ("density", {"density"}, True), ("d", {"real", "fake"}, False), ("r1", {"r1"}, False)],
)
def test_each_phase_trains_its_own_network_alone(name: str, terms: set[str], generator: bool) -> None:
    made = stage()
    made.begin(0)
    run(made, "d", Draw(0, 0, 0))  # leaves the discriminator ready for gradients
    made.discriminator.zero_grad()
    assert set(run(made, name, Draw(0, 0, 0))) == terms
    assert trained(made.generator) == generator and trained(made.discriminator) != generator


def test_w_avg_moves_in_the_discriminator_phase_alone() -> None:
    made = stage(BRIDGE)
    made.begin(4)
    before = made.generator.w_avg.clone()
    for name in ("g", "density", "r1"):
        run(made, name, Draw(0, 4, 0))
        assert torch.equal(made.generator.w_avg, before)
    run(made, "d", Draw(0, 4, 0))
    assert not torch.equal(made.generator.w_avg, before)


def test_latents_and_labels_are_fresh_in_each_phase_and_apart_from_the_images() -> None:
    made = stage()
    draws = [Draw(0, 0, 0), Draw(0, 0, 1), Draw(0, 1, 0), Draw(1, 0, 0)]
    latents = [made._latents(batch(), draw, name) for draw in draws for name in ("g", "density", "d")]
    assert len({float(z.sum()) for z, _ in latents}) == 12
    labels = {tuple(row.tolist()) for _, c in latents for row in c}
    assert labels <= {tuple(row.tolist()) for row in made.labels} and len(labels) > 4
    again = made._latents({"image": torch.zeros(4, 3, 32, 32)}, draws[0], "g")
    assert torch.equal(latents[0][0], again[0]) and torch.equal(latents[0][1], again[1])


def test_lazy_phases_are_weighted_by_their_interval_and_share_an_optimiser() -> None:
    """EG3D: lr k / (k + 1), beta_2^(k / (k + 1)), and the loss times k."""
    made = stage()
    assert [p.name for p in made.phases] == ["g", "density", "d", "r1"]
    g, density, d, r1 = made.phases
    assert (density.every, dict(density.weights), r1.every, dict(r1.weights)) == (2, {"density": 2.0}, 3, {"r1": 3.0})
    assert g.optimizer is density.optimizer and d.optimizer is r1.optimizer
    assert g.optimizer.param_groups[0]["lr"] == pytest.approx(0.0025 * 2 / 3)
    assert d.optimizer.param_groups[0]["betas"] == (0.0, pytest.approx(0.99**0.75))
    assert lazy(0.1, [0.0, 0.9], 0).lr == 0.1


def test_regularisations_of_weight_zero_have_no_phase() -> None:
    made = stage(gamma=0.0, density=0.0)
    assert [p.name for p in made.phases] == ["g", "d"]
    assert made.phases[0].optimizer.param_groups[0]["lr"] == 0.0025


def test_schedules_follow_the_images_seen() -> None:
    made = stage()
    sigmas = []
    for step in (0, 1, 2, 3):
        made.begin(step)
        sigmas.append(made.now.blur_sigma)
    assert sigmas == [1.0, 0.5, 0.0, 0.0]  # 8 images a step, over 16


def test_the_bridge_fades_one_loss_in_and_the_others_out() -> None:
    assert [BRIDGE.shares(step) for step in (0, 2, 4, 6)] == [(0, 1), (0, 1), (0.5, 1), (1, 1)]
    assert BRIDGE.shares(11) == (1, pytest.approx(0.6))
    assert BRIDGE.shares(16) == BRIDGE.shares(99) == (1, pytest.approx(0.2))
    assert BridgeConfig().shares(0) == (1, 0)  # no bridge
    beside = BridgeConfig(fade_steps=4, supervised_floor=1.0, adversarial_ceiling=0.2)
    assert [beside.shares(step) for step in (2, 4, 99)] == [(pytest.approx(0.1), 1), (0.2, 1), (0.2, 1)]
    assert BridgeConfig(fade_steps=2).shares(2) == (1, 0)  # released at once
    assert [progress(step, 0) for step in (-1, 0, 1)] == [0.0, 1.0, 1.0]


def test_terms_and_weights_follow_the_bridge() -> None:
    made = stage(BRIDGE)
    g = phase(made, "g")
    assert [step for step in range(4) if g.due(step)] == [2, 3] and phase(made, "d").due(0)
    assert [step for step in range(6) if phase(made, "density").due(step)] == [2, 4]
    supervised = {"l2", "l1", "raw"}
    for step, terms in ((2, supervised), (4, {"adv", *supervised}), (16, {"adv", *supervised})):
        made.begin(step)
        assert set(run(made, "g", Draw(0, step, 0))) == terms
    assert g.weights["adv"] == 1.0 and g.weights["l1"] == pytest.approx(0.2 * 0.3)


def test_released_supervision_costs_nothing() -> None:
    made = stage(BridgeConfig(fade_steps=1))
    made.begin(1)
    assert set(run(made, "g", Draw(0, 1, 0))) == {"adv"}


def test_previews_show_fixed_scenes_from_three_sides_with_depth() -> None:
    made = stage()
    made.begin(0)
    shown = made.preview(batch())
    assert shown.shape == (4 * made.preview_columns, 3, 32, 32) and made.generator.training
    assert torch.equal(shown, made.preview({"image": torch.zeros(4, 3, 32, 32)}))
    assert not torch.equal(shown[0], shown[2]) and torch.equal(shown[3][0], shown[3][1])  # yaws differ; depth is grey


@pytest.mark.parametrize(
    "wrong",
    [
        {"discriminator_steps": -1},
        {"supervised_floor": 1.5},
        {"adversarial_ceiling": 0.0},
        {"fit": FitConfig(batch_size=12, micro_batch=6)},
    ],
)
def test_wrong_values_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"bridge|micro_batch"):
        AdversarialConfig(**wrong) if "fit" in wrong else BridgeConfig(**wrong)
