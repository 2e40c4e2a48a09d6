"""Pose Opt.: it finds the camera of a render, tunes, and takes targets relative to the input camera."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from eg3d.cameras import check_label, split_label
from eg3d.checkpoint import generator_hash
from tiny import tiny_generator, tiny_images, tiny_labels
from torch import Tensor

from goae.baselines.optimization import OptimizationConfig
from goae.baselines.pose_optimization import PoseOptimization, PoseOptimizationConfig, rigid_motion
from goae.baselines.tuning import Tuned, TuningConfig
from goae.camera.regressor import CameraRegressor, RegressorConfig
from goae.camera.sphere import SphereConfig, camera_errors, label_from_angles, relative_camera
from goae.evaluation.image_metrics import mse
from goae.evaluation.runner import reconstruct

SPHERE = SphereConfig()
PIVOT = OptimizationConfig(steps=5, lr=0.05, lpips=0.0)
TUNING = TuningConfig(steps=3, lr=3e-3, lpips=0.0, stop_lpips=0.0)
CONFIG = PoseOptimizationConfig(PIVOT, camera_lr=0.02, tuning=TUNING)


def believes(c: Tensor) -> Callable[[Tensor], Tensor]:
    """An estimate that does not look at the image."""
    return lambda image: c.expand(len(image), -1)


def pose_opt(config: PoseOptimizationConfig = CONFIG, **more: Any) -> PoseOptimization:
    more = {"estimate": believes(tiny_labels(1)), "sphere": SPHERE, "lpips": None} | more
    return PoseOptimization(tiny_generator(), config, **more)


@pytest.fixture(scope="module")
def method() -> PoseOptimization:
    torch.manual_seed(0)
    regressor = CameraRegressor(RegressorConfig(32, [8, 16], 16, sphere=SPHERE)).eval()
    return pose_opt(estimate=regressor.estimate)


@pytest.fixture(scope="module")
def inversion(method: PoseOptimization) -> Tuned:
    with torch.no_grad():  # as evaluation calls it
        return method.invert(tiny_images(2), tiny_labels(2))


@pytest.mark.parametrize("impl", ["auto", "ref"])
def test_images_tell_the_camera_which_way_to_go(impl: str) -> None:
    """Gradients in yaw and pitch are those of finite differences, through kernels and plain PyTorch."""
    generator = tiny_generator().eval().requires_grad_(False)
    generator.renderer.impl = impl
    ws = generator.w_avg.expand(1, generator.num_ws, -1)
    image = tiny_images(1)

    def error(angles: Tensor) -> Tensor:
        return (generator.synthesis(ws, label_from_angles(angles, SPHERE)).image - image).square().mean()

    angles = torch.tensor([[0.2, 0.1, 0.0]], requires_grad=True)
    error(angles).backward()
    assert angles.grad is not None
    for i in range(3):
        step = torch.zeros(1, 3)
        step[0, i] = 2e-3
        with torch.no_grad():
            slope = float(error(angles + step) - error(angles - step)) / 4e-3
        # samples along a ray jump between bins; planes are piecewise linear
        assert float(angles.grad[0, i]) == pytest.approx(slope, rel=0.25, abs=2e-3)


@pytest.mark.parametrize("offset", [False, True])
def test_the_camera_of_a_render_is_found_from_ten_degrees_away(offset: bool) -> None:
    generator = tiny_generator()
    ten = math.radians(10)
    true = label_from_angles(torch.tensor([[0.1, 0.05, 0.0]]), SPHERE)
    start = label_from_angles(torch.tensor([[0.1 + 0.8 * ten, 0.05 - 0.6 * ten, 0.0]]), SPHERE)
    ws = generator.w_avg.expand(1, generator.num_ws, -1)
    with torch.no_grad():
        image = generator.synthesis(ws, true).image
    pivot = OptimizationConfig(steps=60, lr=1e-3, lpips=0.0)
    config = PoseOptimizationConfig(pivot, camera_lr=0.02, offset=offset, tuning=TUNING)
    _, found = pose_opt(config, estimate=believes(start)).search(image)
    before, after = (float(camera_errors(c, true, SPHERE)["angle"]) for c in (start, found))
    assert before == pytest.approx(10, abs=0.2) and after < 1.5
    check_label(found, None if offset else SPHERE.radius)
    rate0 = replace(config, camera_lr=0.0)
    _, kept = pose_opt(rate0, estimate=believes(start)).search(image)
    assert torch.allclose(kept, start, atol=1e-5)


def test_both_halves_come_nearer_and_leave_the_generator_alone(method: PoseOptimization, inversion: Tuned) -> None:
    image = tiny_images(2)
    start_code, start_c = zip(*(method._start(image[i : i + 1]) for i in range(2)), strict=True)
    with torch.no_grad():
        first = mse(method.generator.synthesis(torch.cat(start_code), torch.cat(start_c)).image, image)
        found = mse(method.generator.synthesis(inversion.ws, inversion.c).image, image)
    tuned = mse(method.reconstruct(inversion).image, image)
    assert bool((found < 0.95 * first).all()) and bool((tuned < 0.95 * found).all())
    assert not torch.equal(inversion.ws, inversion.ws[:, :1].expand_as(inversion.ws))  # W+
    assert (inversion.code_steps, inversion.tuning_steps) == (5, (3, 3))
    assert torch.equal(inversion.given, tiny_labels(2)) and not torch.equal(inversion.c, torch.cat(start_c))
    check_label(inversion.c, SPHERE.radius)
    assert generator_hash(method.generator) == generator_hash(tiny_generator())
    assert not any(p.requires_grad or p.grad is not None for p in method.generator.parameters())


def test_images_inverted_together_equal_those_alone_and_a_seed_repeats(
    method: PoseOptimization, inversion: Tuned
) -> None:
    one = method.invert(tiny_images(2)[1:], tiny_labels(2)[1:])
    assert torch.equal(one.ws, inversion.ws[1:]) and torch.equal(one.c, inversion.c[1:])
    assert all(torch.equal(one.weights[0][name], tensor) for name, tensor in inversion.weights[1].items())
    other = pose_opt(replace(CONFIG, pivot=replace(PIVOT, seed=1)), estimate=method.estimate)
    assert not torch.equal(other.search(tiny_images(1))[0], inversion.ws[:1])


def test_targets_are_relative_to_the_input_camera(method: PoseOptimization, inversion: Tuned) -> None:
    given, target = tiny_labels(2), tiny_labels(2).flip(0)
    view = method.render(inversion, target)
    moved = relative_camera(target, given, inversion.c)
    assert torch.equal(view.image, method.tuning.render(inversion, moved).image)
    # the input's own label shows what was fitted to it
    own = method.reconstruct(inversion).image
    assert torch.allclose(method.render(inversion, given).image, own, atol=1e-3)
    assert torch.equal(reconstruct(method, tiny_images(2), given).image, own)
    absolute = pose_opt(replace(CONFIG, targets="absolute"))
    assert torch.equal(absolute.render(inversion, target).image, method.tuning.render(inversion, target).image)
    assert torch.equal(absolute.reconstruct(inversion).image, own)
    again = method.render(inversion, target)
    assert torch.equal(again.image, view.image)
    single = method.invert(tiny_images(1), given[:1])
    assert method.render(single, tiny_labels(3)).image.shape == (3, 3, 32, 32)
    with pytest.raises(ValueError, match="3 cameras were given for 2 images"):
        method.render(inversion, tiny_labels(3))


def test_an_encoder_gives_the_first_code() -> None:
    generator = tiny_generator()
    ws = generator.w_avg + torch.linspace(0, 1, generator.num_ws)[None, :, None].expand(1, -1, 32)
    none = replace(CONFIG, pivot=replace(PIVOT, steps=0))
    with torch.inference_mode():  # as frozen encoders answer
        inferred = ws.clone()
    assert torch.equal(pose_opt(none, encode=lambda image: inferred).search(tiny_images(1))[0], ws)
    assert torch.equal(pose_opt(none).search(tiny_images(1))[0], generator.w_avg.expand_as(ws))
    moved, _ = pose_opt(encode=lambda image: inferred).search(tiny_images(1))
    assert not torch.equal(moved, ws) and torch.equal(inferred, ws)
    with pytest.raises(ValueError, match=r"the encoder gives codes of shape \(1, 3, 32\)"):
        pose_opt(encode=lambda image: ws[:, :3]).search(tiny_images(1))


def test_rigid_motions() -> None:
    motion = rigid_motion(torch.tensor([[0.0, 0.0, math.pi / 2, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 2.0, 3.0]]))
    turn = torch.tensor([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert torch.allclose(motion[0], turn, atol=1e-6)
    assert torch.allclose(
        motion[1], torch.eye(4) + torch.nn.functional.pad(torch.tensor([[1.0], [2], [3]]), (3, 0, 0, 1))
    )
    any_motion = rigid_motion(torch.tensor([[0.3, -0.2, 0.1, 0.1, 0.2, 0.3]]))
    rotation = any_motion[0, :3, :3]
    assert torch.allclose(rotation @ rotation.T, torch.eye(3), atol=1e-6)
    assert split_label(tiny_labels(1))[0].shape == any_motion.shape


def test_wrong_input_and_settings_are_named(method: PoseOptimization) -> None:
    with pytest.raises(ValueError, match=r"expected float \(B, 3, 32, 32\)"):
        method.invert(tiny_images(1, size=64), tiny_labels(1))
    with pytest.raises(FloatingPointError, match="at step 0"):
        pose_opt().search(torch.full((1, 3, 32, 32), float("nan")))
    with pytest.raises(ValueError, match="no perceptual network"):
        pose_opt(PoseOptimizationConfig())
    with pytest.raises(ValueError, match=r"pose_opt\.targets"):
        PoseOptimizationConfig(targets="true")
    with pytest.raises(ValueError, match=r"pose_opt\.camera_lr"):
        PoseOptimizationConfig(camera_lr=-1.0)


def test_the_defaults_are_the_papers() -> None:
    """R39."""
    config = PoseOptimizationConfig()
    assert (config.pivot.steps, config.tuning.steps, config.targets) == (400, 400, "relative")
