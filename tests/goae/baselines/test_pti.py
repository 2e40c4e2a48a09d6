"""PTI: the tuned generator comes nearer, belongs to its image alone, and leaves the shared one as it was."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from eg3d.checkpoint import generator_hash
from safetensors.torch import save_file
from tiny import tiny_generator, tiny_images, tiny_labels
from torch import Tensor

from goae.baselines.optimization import OptimizationConfig
from goae.baselines.pti import PTI, PTIConfig
from goae.baselines.tuning import PARTS, GeneratorTuning, Tuned, TuningConfig
from goae.evaluation.image_metrics import mse

PIVOT = OptimizationConfig(steps=6, lr=0.05, lpips=0.0)
TUNING = TuningConfig(steps=6, lr=3e-3, lpips=0.0, stop_lpips=0.0)


def near(a: Tensor, b: Tensor) -> Tensor:
    """A distance of images that is no mean squared error."""
    return (a - b).abs().mean((1, 2, 3))


def pti(tuning: TuningConfig = TUNING, pivot: OptimizationConfig = PIVOT, **more: Any) -> PTI:
    return PTI(tiny_generator(), PTIConfig(pivot, tuning), **({"lpips": None} | more))


@pytest.fixture(scope="module")
def method() -> PTI:
    return pti()


@pytest.fixture(scope="module")
def inversion(method: PTI) -> Tuned:
    with torch.no_grad():  # as evaluation calls it
        return method.invert(tiny_images(2), tiny_labels(2))


def same(a: Tuned, b: Tuned) -> bool:
    """Bit by bit."""
    plain = (a.code_steps, a.tuning_steps, a.generator) == (b.code_steps, b.tuning_steps, b.generator)
    tensors = all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("ws", "c", "given"))
    weights = all(
        x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x)
        for x, y in zip(a.weights, b.weights, strict=True)
    )
    return plain and tensors and weights


def test_tuning_comes_nearer_than_the_pivot(method: PTI, inversion: Tuned) -> None:
    image, c = tiny_images(2), tiny_labels(2)
    pivot = mse(method.pivot.render(method.pivot.restore(inversion.ws), c).image, image)
    tuned = mse(method.render(inversion, c).image, image)
    assert bool((tuned < 0.9 * pivot).all())
    assert torch.equal(inversion.ws, inversion.ws[:, :1].expand_as(inversion.ws))  # W, not W+
    assert (inversion.code_steps, inversion.tuning_steps) == (6, (6, 6))
    assert torch.equal(inversion.c, c) and torch.equal(inversion.given, c)


def test_the_shared_generator_is_untouched(method: PTI, inversion: Tuned) -> None:
    assert generator_hash(method.generator) == generator_hash(tiny_generator()) == inversion.generator
    assert not any(p.requires_grad or p.grad is not None for p in method.generator.parameters())
    own = method.generator.state_dict()
    for weights in inversion.weights:
        assert weights and all(not torch.equal(tensor, own[name]) for name, tensor in weights.items())
        assert {next(p for p in PARTS if name.startswith(PARTS[p])) for name in weights} == set(PARTS)
    assert not same(inversion, replace(inversion, weights=inversion.weights[::-1]))


def test_images_inverted_together_equal_those_alone(method: PTI, inversion: Tuned) -> None:
    image, c = tiny_images(2), tiny_labels(2)
    alone = [method.invert(image[i : i + 1], c[i : i + 1]) for i in (1, 0)][::-1]
    for i, one in enumerate(alone):
        assert torch.equal(one.ws, inversion.ws[i : i + 1])
        assert one.weights[0].keys() == inversion.weights[i].keys()
        assert all(torch.equal(one.weights[0][name], tensor) for name, tensor in inversion.weights[i].items())


def test_the_order_of_renders_and_inversions_does_not_matter(method: PTI, inversion: Tuned) -> None:
    c = tiny_labels(2)
    first = method.render(inversion, c)
    other = method.invert(-tiny_images(1), c[:1])
    assert not torch.equal(method.render(other, c[:1]).image, first.image[:1])
    again = method.render(inversion, c)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_many_cameras_see_one_image_and_one_camera_all_images(method: PTI, inversion: Tuned) -> None:
    c = tiny_labels(2)
    one = method.invert(tiny_images(1), c[:1])
    views = method.render(one, torch.cat([c, c[:1]])).image
    assert views.shape == (3, 3, 32, 32) and not torch.equal(views[0], views[1])
    # the kernels of a batch add in another order
    assert torch.allclose(views[1], method.render(one, c[1:]).image[0], atol=1e-5)
    assert torch.equal(method.render(inversion, c[:1]).image[0], method.render(inversion, c).image[0])
    with pytest.raises(ValueError, match="3 cameras were given for 2 images"):
        method.render(inversion, tiny_labels(3))


def test_tuning_stops_early_where_the_distance_is_small() -> None:
    heard: list[int] = []
    tuning = replace(TUNING, lpips=1.0)
    image, c = tiny_images(1), tiny_labels(1)
    whole = pti(tuning, lpips=near)
    full = whole.invert(image, c)
    start = float(near(whole.pivot.render(whole.pivot.restore(full.ws), c).image, image))
    end = float(near(whole.render(full, c).image, image))
    threshold = (start + end) / 2
    early = pti(
        replace(tuning, stop_lpips=threshold), lpips=near, progress=lambda step, losses: heard.append(step)
    ).invert(image, c)
    assert 0 < early.tuning_steps[0] < full.tuning_steps[0] == 6
    assert heard == [*range(1, 7), *range(1, early.tuning_steps[0] + 1)]
    at_once = pti(replace(tuning, stop_lpips=2.0), lpips=near).invert(image, c)
    assert at_once.tuning_steps == (0,) and at_once.weights == ({},)


@pytest.mark.parametrize("part", list(PARTS))
def test_only_the_chosen_parts_are_tuned(part: str) -> None:
    found = pti(replace(TUNING, steps=1, parts=[part])).invert(tiny_images(1), tiny_labels(1))
    assert found.weights[0] and all(name.startswith(PARTS[part]) for name in found.weights[0])


def test_locality_keeps_images_of_other_codes() -> None:
    image, c, generator = tiny_images(1), tiny_labels(1), tiny_generator()
    ws = generator.w_avg.expand(1, generator.num_ws, -1)
    changes = []
    for weight in (0.0, 100.0):
        tuning = GeneratorTuning(generator, replace(TUNING, locality=weight, locality_distance=1.0, seed=3), lpips=None)
        weights, steps = tuning.tune(ws, c, image)
        step = torch.nn.functional.normalize(torch.ones_like(ws), dim=-1)
        elsewhere = Tuned(ws + step, c, c, (weights,), 0, (steps,), tuning.generator_hash)
        with torch.no_grad():
            changes.append(float(mse(tuning.render(elsewhere, c).image, generator.synthesis(ws + step, c).image)))
    assert 0 < changes[1] < 0.7 * changes[0]


def test_fewer_samples_while_tuning_all_in_the_render() -> None:
    tuning = GeneratorTuning(tiny_generator(), replace(TUNING, samples=4), lpips=None)
    assert tuning.draft.generator.config.rendering.depth_resolution == 4
    assert tuning.shown.generator.config.rendering.depth_resolution == 6
    weights, _ = tuning.tune(tuning.generator.w_avg.expand(1, 8, -1), tiny_labels(1), tiny_images(1))
    assert weights


def test_a_seed_repeats_and_another_differs(method: PTI, inversion: Tuned) -> None:
    image, c = tiny_images(1), tiny_labels(1)
    again = pti().invert(tiny_images(2), tiny_labels(2))
    assert same(again, inversion)
    other = pti(replace(TUNING, seed=1)).invert(image, c)
    assert torch.equal(other.ws, inversion.ws[:1]) and not same(other, method.invert(image, c))


def test_an_inversion_comes_back_from_its_file(method: PTI, inversion: Tuned, tmp_path: Path) -> None:
    inversion.save(tmp_path / "a.safetensors")
    loaded = Tuned.load(tmp_path / "a.safetensors", method.generator)
    assert same(loaded, inversion)
    assert torch.equal(method.render(loaded, tiny_labels()).image, method.render(inversion, tiny_labels()).image)
    other = tiny_generator()
    with torch.no_grad():
        other.decoder.net[0].weight.mul_(2)  # type: ignore[operator, union-attr]
    with pytest.raises(ValueError, match="made with a generator whose weights have hash"):
        Tuned.load(tmp_path / "a.safetensors", other)
    with pytest.raises(ValueError, match="made with another generator"):
        GeneratorTuning(other, TUNING, lpips=None).render(inversion, tiny_labels())
    with pytest.raises(FileNotFoundError, match="no inversion at"):
        Tuned.load(tmp_path / "b.safetensors", method.generator)
    (tmp_path / "c.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged"):
        Tuned.load(tmp_path / "c.safetensors", method.generator)
    save_file({"ws": inversion.ws.contiguous()}, tmp_path / "d.safetensors")
    with pytest.raises(ValueError, match="no tuned inversion"):
        Tuned.load(tmp_path / "d.safetensors", method.generator)


def test_wrong_input_and_settings_are_named(method: PTI) -> None:
    image, c = tiny_images(2), tiny_labels(2)
    with pytest.raises(ValueError, match=r"expected float \(B, 3, 32, 32\)"):
        method.invert(tiny_images(2, size=16), c)
    with pytest.raises(ValueError, match=r"expected \(2, 25\)"):
        method.invert(image, c[:1])
    with pytest.raises(ValueError, match="last rows"):
        method.invert(image, c * 2)
    with pytest.raises(FloatingPointError, match="at step 0"):
        method.invert(torch.full_like(image, float("nan")), c)
    with pytest.raises(FloatingPointError, match="at tuning step 0"):
        method.tuning.tune(torch.full((1, 8, 32), float("nan")), c[:1], image[:1])
    with pytest.raises(ValueError, match="no perceptual network"):
        pti(TuningConfig())
    wrong: tuple[dict[str, Any], ...] = (
        {"steps": -1},
        {"lr": 0.0},
        {"l2": 0.0, "lpips": 0.0, "stop_lpips": 0.0},
        {"lpips": 0.0},
        {"parts": []},
        {"parts": ["mapping"]},
    )
    for values in wrong:
        with pytest.raises(ValueError, match=r"tuning\."):
            TuningConfig(**values)


def test_the_defaults_are_the_papers_and_the_official_ones() -> None:
    """R38, 7.19."""
    config = PTIConfig()
    assert (config.pivot.steps, config.tuning.steps) == (450, 350)
    assert (config.pivot.lr, config.tuning.lr, config.tuning.stop_lpips) == (5e-3, 3e-4, 0.06)
    assert (config.tuning.l2, config.tuning.lpips, config.tuning.locality) == (1.0, 1.0, 0.0)
