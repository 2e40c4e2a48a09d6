"""Stage 1 on the rival encoders: what is trained, what stays, whose codes their discriminator takes for real."""

from functools import partial

import pytest
import torch
from eg3d.cameras import canonical_label
from tiny import tiny_images, tiny_labels, tiny_rival
from torch import Tensor, nn

from goae.losses.image import ImageLosses, ImageWeights
from goae.models.discriminator import LatentDiscriminator, LatentDiscriminatorConfig
from goae.models.pyramid_encoder import unlocked_at
from goae.training.encoder_stage import EncoderStage, EncoderStageConfig, LatentAdversaryConfig, Schedule
from goae.training.loop import FitConfig
from goae.training.phases import Draw, Phase

SCHEDULES: dict[str, Schedule] = {
    "psp": lambda step: 0,
    "e4e": partial(unlocked_at, start=2, every=3, num_ws=8),
    "ide3d": lambda step: 0,
}


def rival_stage(method: str, *, adv: float = 0.05, dw: float = 0.001, real_pose: str = "images") -> EncoderStage:
    weights = ImageWeights(l2=1.0, lpips=0.0, id=0.0)
    adversary = LatentAdversaryConfig(rows="random_row", pool=0, real_pose=real_pose)
    fit = FitConfig(batch_size=2)
    config = EncoderStageConfig(weights=weights, fit=fit, adv=adv, bg=0.0, dw=dw, adversary=adversary)
    losses = ImageLosses(weights, resolution=32, lpips=None, embed=None)
    discriminator = LatentDiscriminator(LatentDiscriminatorConfig(w_dim=32))
    return EncoderStage(tiny_rival(method), discriminator, losses, None, config, SCHEDULES[method])


def batch() -> dict[str, Tensor]:
    return {"image": tiny_images(), "c": tiny_labels()}


def phase(stage: EncoderStage, name: str) -> Phase:
    return next(p for p in stage.phases if p.name == name)


def reached(module: nn.Module) -> list[bool]:
    return [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in module.parameters()]


@pytest.mark.parametrize("method", SCHEDULES)
def test_encoder_phase_trains_every_part_of_the_encoder_and_nothing_else(method: str) -> None:
    stage = rival_stage(method)
    stage.begin(1000)
    found = phase(stage, "e").losses(batch(), Draw(0, 1000, 0))
    assert set(found) == {"l2", "adv", "dw"}
    torch.stack(list(found.values())).sum().backward()
    assert all(reached(stage.goae.encoder))
    assert not any(reached(stage.discriminator)) and not any(reached(stage.goae.generator))


def test_without_adversary_and_deltas_reconstruction_is_left() -> None:
    stage = rival_stage("psp", adv=0.0, dw=0.0)
    stage.begin(0)
    assert [p.name for p in stage.phases] == ["e"]
    assert set(phase(stage, "e").losses(batch(), Draw(0, 0, 0))) == {"l2"}


def test_rows_are_unlocked_by_the_schedule() -> None:
    stage = rival_stage("e4e")
    levels, terms = [], []
    for step in (0, 1, 2, 4, 5, 19, 20, 1000):
        stage.begin(step)
        levels.append(stage.level)
        terms.append("dw" in phase(stage, "e").losses(batch(), Draw(0, step, 0)))
    assert levels == [0, 0, 1, 1, 2, 6, 7, 7]
    assert terms == [level > 0 for level in levels]


def test_previews_show_the_rows_that_are_trained() -> None:
    stage = rival_stage("e4e")
    seen = []
    for garbage in (0.0, 1e3):
        with torch.no_grad():
            for style in stage.goae.encoder.pyramid.styles[3:]:
                style.linear.bias += garbage
        stage.begin(8)  # where row 3 is unlocked
        assert (stage.level, stage.trained_level, stage.complete) == (3, 2, False)
        seen.append(stage.preview(batch()))
    assert torch.equal(*seen)
    stage.begin(9)
    assert not torch.equal(stage.preview(batch()), seen[0])


@pytest.mark.parametrize("name", ["d", "r1"])
def test_discriminator_phases_train_the_discriminator_and_leave_statistics(name: str) -> None:
    """BatchNorm is in training mode; the encoder's own phase alone moves its running statistics."""
    stage = rival_stage("e4e")
    stage.begin(1000)
    before = {n: b.clone() for n, b in stage.goae.encoder.named_buffers()}
    assert stage.goae.encoder.pyramid.trunk.input_layer[1].training and any("running_mean" in n for n in before)
    torch.stack(list(phase(stage, name).losses(batch(), Draw(0, 1000, 0)).values())).sum().backward()
    assert any(reached(stage.discriminator))
    assert not any(reached(stage.goae.encoder)) and not any(reached(stage.goae.generator))
    assert all(torch.equal(b, before[n]) for n, b in stage.goae.encoder.named_buffers())
    phase(stage, "e").losses(batch(), Draw(0, 1000, 0))
    assert any(not torch.equal(b, before[n]) for n, b in stage.goae.encoder.named_buffers())


@pytest.mark.parametrize("real_pose", ["images", "canonical"])
def test_real_codes_are_mapped_under_the_configured_pose(real_pose: str) -> None:
    stage, draw = rival_stage("e4e", real_pose=real_pose), Draw(0, 7, 0)
    z = torch.randn(2, 16, generator=draw.generator("real codes"))
    pose = batch()["c"] if real_pose == "images" else canonical_label().expand(2, -1)
    assert torch.equal(stage._real_codes(batch(), draw), stage.goae.generator.mapping(z, pose)[:, 0])
    with pytest.raises(ValueError, match=r"adversary\.real_pose"):
        LatentAdversaryConfig(real_pose="zeros")


def test_previews_leave_modes_alone() -> None:
    stage = rival_stage("ide3d")
    stage.begin(0)
    shown = stage.preview(batch())
    assert shown.shape == (10, 3, 32, 32) and torch.equal(shown[5], batch()["image"][1])
    assert stage.goae.encoder.training and not stage.goae.generator.training
