"""Both stages on a tiny GOAE: what is trained, what stays frozen, what a weight of 0 skips."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from tiny import tiny_goae, tiny_images, tiny_labels
from torch import Tensor, nn

from goae.evaluation.validation import Validation
from goae.losses.image import ImageLosses, ImageWeights
from goae.models.discriminator import LatentDiscriminator, LatentDiscriminatorConfig
from goae.models.encoder import stage_at
from goae.runs.train import trained_level
from goae.training.background import BackgroundConfig, BackgroundDepth
from goae.training.canonical import CanonicalStats
from goae.training.encoder_stage import EncoderStage, EncoderStageConfig, LatentAdversaryConfig
from goae.training.loop import FitConfig
from goae.training.phases import Draw, Phase
from goae.training.refiner_stage import RefinerStage, RefinerStageConfig

ONLY_L2 = ImageWeights(l2=1.0, lpips=0.0, id=0.0)


def batch() -> dict[str, Tensor]:
    return {"image": tiny_images(), "c": tiny_labels()}


def background(generator: Any, config: BackgroundConfig | None = None) -> BackgroundDepth:
    stats = CanonicalStats(torch.tensor(2.9), torch.full((1, 1, 16, 16), 2.9), generator.w_avg, 1, "", "")
    return BackgroundDepth(generator, lambda image, depth: (depth > 2.6).float(), stats, config or BackgroundConfig())


def encoder_stage(weights: ImageWeights = ONLY_L2, **overrides: Any) -> EncoderStage:
    goae = tiny_goae()
    values: dict[str, Any] = {"stage_steps": [1, 2, 3], "fit": FitConfig(batch_size=2)} | overrides
    config = EncoderStageConfig(weights=weights, **values)
    losses = ImageLosses(weights, resolution=32, lpips=None, embed=None)
    discriminator = LatentDiscriminator(LatentDiscriminatorConfig(w_dim=32))
    depth = background(goae.generator) if config.bg else None
    return EncoderStage(goae, discriminator, losses, depth, config, partial(stage_at, thresholds=config.stage_steps))


def phase(stage: Any, name: str) -> Phase:
    return next(p for p in stage.phases if p.name == name)


def gradients(module: nn.Module) -> int:
    return sum(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in module.parameters())


def backward(found: dict[str, Tensor]) -> None:
    torch.stack(list(found.values())).sum().backward()


def test_encoder_phase_gives_all_terms_and_trains_the_encoder_alone() -> None:
    stage = encoder_stage()
    stage.begin(10)
    found = phase(stage, "e").losses(batch(), Draw(0, 10, 0))
    assert set(found) == {"l2", "adv", "bg", "bg_share", "dw"}
    assert all(torch.isfinite(v) and v.ndim == 0 for v in found.values())
    backward(found)
    assert gradients(stage.goae.encoder) > 0
    assert gradients(stage.discriminator) == gradients(stage.goae.generator) == gradients(stage.goae.afa) == 0


@pytest.mark.parametrize("name", ["d", "r1"])
def test_discriminator_phases_train_the_discriminator_alone(name: str) -> None:
    """T12, on the stage as it is trained."""
    stage = encoder_stage()
    stage.begin(10)
    backward(phase(stage, name).losses(batch(), Draw(0, 10, 0)))
    assert gradients(stage.discriminator) > 0
    assert gradients(stage.goae.encoder) == gradients(stage.goae.generator) == 0


@pytest.mark.parametrize(("overrides", "absent"), [({"adv": 0.0}, "adv"), ({"bg": 0.0}, "bg"), ({"dw": 0.0}, "dw")])
def test_a_weight_of_zero_skips_the_term(overrides: dict[str, float], absent: str) -> None:
    stage = encoder_stage(**overrides)
    stage.begin(10)
    assert absent not in phase(stage, "e").losses(batch(), Draw(0, 10, 0))
    assert ("d" in [p.name for p in stage.phases]) == (absent != "adv")


def test_levels_follow_the_schedule() -> None:
    stage = encoder_stage()
    levels = []
    for step in range(5):
        stage.begin(step)
        levels.append(stage.level)
    assert levels == [0, 1, 2, 2, 3]
    stage.begin(0)
    assert "dw" not in phase(stage, "e").losses(batch(), Draw(0, 0, 0))


def plant_garbage(encoder: nn.Module, levels: tuple[str, ...]) -> None:
    """Large weights in all parts of these levels, as if they had never been trained."""
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if any(level in name for level in levels):
                parameter.mul_(30).add_(1)


@pytest.mark.parametrize(
    ("step", "untrained"),
    [(0, ("coarse", "mid", "fine")), (2, ("coarse", "mid", "fine")), (3, ("mid", "fine")), (6, ("fine",)), (7, ())],
)
def test_previews_and_validation_see_the_rows_that_are_trained(step: int, untrained: tuple[str, ...]) -> None:
    """The level of the last update: at a threshold itself the next rows have not been trained yet."""
    stage = encoder_stage(stage_steps=[2, 4, 5])
    samples = [{"image": image, "c": c} for image, c in zip(*batch().values(), strict=True)]
    validation = Validation(stage.goae, samples, None, resolution=32, batch_size=2, refine=False)

    def seen() -> tuple[Tensor, dict[str, float]]:
        stage.begin(step)
        return stage.preview(batch()), validation(stage.goae.encoder, level=trained_level(stage))

    pictures, values = seen()
    with torch.no_grad():
        code = stage.goae.eval().invert_w(**batch(), stage=stage.trained_level)
    assert torch.equal(pictures[1::5], code.view.image)
    assert values["mse"] == pytest.approx(float((code.view.image.clamp(-1, 1) - batch()["image"]).square().mean()))
    plant_garbage(stage.goae.encoder, untrained)
    again, unchanged = seen()
    assert torch.equal(again, pictures) and unchanged == values
    assert stage.complete == (not untrained)
    plant_garbage(stage.goae.encoder, ("coarse", "mid", "fine")[: 3 - len(untrained)] or ("base",))
    assert seen()[1] != values


def test_background_is_measured_at_its_interval() -> None:
    stage = encoder_stage(background=BackgroundConfig(every=3))
    stage.begin(10)
    assert ["bg" in phase(stage, "e").losses(batch(), Draw(0, step, 0)) for step in (3, 4, 5, 6)] == [1, 0, 0, 1]


def test_the_weight_of_a_background_term_that_is_seldom_measured_is_larger() -> None:
    seldom = BackgroundConfig(every=3)
    for stages in (
        (encoder_stage(), encoder_stage(background=seldom)),
        (refiner_stage(), refiner_stage(background=seldom)),
    ):
        plain, lazy = (stage.phases[-1].weights for stage in stages)
        assert (plain["bg"], lazy["bg"]) == (5.0, 15.0)


def test_pools_are_part_of_the_state() -> None:
    stage, other = encoder_stage(), encoder_stage()
    stage.begin(10)
    phase(stage, "d").losses(batch(), Draw(0, 10, 0))
    other.load_slot_state(stage.slot_state())
    saved = zip(stage.pools[0], other.pools[0], strict=True)
    assert all(torch.equal(a.state_dict()["codes"], b.state_dict()["codes"]) for a, b in saved)


def test_one_random_row_per_image_can_be_shown_instead() -> None:
    stage = encoder_stage(adversary=LatentAdversaryConfig(rows="random_row", pool=0))
    stage.begin(10)
    real, fake = stage._codes(batch(), Draw(0, 10, 0))
    assert real.shape == fake.shape == (2, 32)
    with pytest.raises(ValueError, match=r"adversary\.rows"):
        LatentAdversaryConfig(rows="none")


def refiner_stage(**overrides: Any) -> RefinerStage:
    goae = tiny_goae()
    config = RefinerStageConfig(weights=ONLY_L2, **overrides)
    losses = ImageLosses(ONLY_L2, resolution=32, lpips=None, embed=None)
    return RefinerStage(goae, losses, background(goae.generator), config)


def test_refiner_phase_trains_feature_alignment_alone() -> None:
    stage = refiner_stage()
    stage.begin(0)
    assert not stage.goae.encoder.training and stage.goae.afa.training
    found = stage.phases[0].losses(batch(), Draw(0, 0, 0))
    assert set(found) == {"l2", "bg", "bg_share", "df"}
    backward(found)
    assert gradients(stage.goae.afa) > 0
    assert gradients(stage.goae.encoder) == gradients(stage.goae.generator) == 0


@pytest.mark.parametrize("make", [encoder_stage, refiner_stage])
def test_previews_show_five_pictures_a_row_and_leave_modes_alone(make: Callable[[], Any]) -> None:
    stage = make()
    stage.begin(10)
    before = stage.goae.afa.training
    shown = stage.preview(batch())
    assert shown.shape == (10, 3, 32, 32)
    assert torch.equal(shown[0], batch()["image"][0])
    assert stage.goae.afa.training == before


def test_background_reference_may_be_a_map() -> None:
    generator = tiny_goae().generator
    scalar, mapped = background(generator), background(generator, BackgroundConfig(davg="map"))
    ws = generator.w_avg.expand(1, generator.num_ws, -1)
    planes = generator.planes(generator.features(ws, 8), ws)
    assert torch.allclose(scalar(planes, ws, None)["bg"], mapped(planes, ws, None)["bg"])
    assert torch.isfinite(mapped(planes, ws, None, 8)["bg"])


@pytest.mark.parametrize("wrong", [{"loss": "l1"}, {"davg": "none"}, {"erode": -1}, {"every": 0}])
def test_background_values_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="background"):
        BackgroundConfig(**wrong)


def test_image_losses_want_the_networks_their_weights_ask_for() -> None:
    for name in ("lpips", "id"):
        weights = ImageWeights(**({"l2": 0.0, "lpips": 0.0, "id": 0.0} | {name: 1.0}))
        with pytest.raises(ValueError, match=f"weights.{name}"):
            ImageLosses(weights, resolution=32, lpips=None, embed=None)
    losses = ImageLosses(
        ImageWeights(),
        resolution=16,
        lpips=lambda a, b: (a - b).abs().mean((1, 2, 3)),
        embed=lambda x: nn.functional.normalize(x.mean((2, 3)), dim=1),
    )
    assert set(losses(tiny_images(), tiny_images())) == {"l2", "lpips", "id"}
    assert float(losses(tiny_images(), tiny_images())["lpips"]) == 0.0
