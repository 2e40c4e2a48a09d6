"""The regressor learns cameras from renders, takes any photo, and comes back from its file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from eg3d.cameras import check_label
from parity import seeded
from PIL import Image
from tiny import tiny_generator, tiny_goae, tiny_images

from goae.camera.regressor import CameraRegressor, RegressorConfig, estimate_camera, load_regressor, save_regressor
from goae.camera.sphere import SphereConfig, angles_from_label, label_from_angles
from goae.loading import save_encoder
from goae.training.camera_stage import (
    CameraStage,
    CameraStageConfig,
    CameraValidation,
    PosesConfig,
    disturbed,
    uniform_labels,
)
from goae.training.optim import OptimizerConfig
from goae.training.phases import Draw

TINY = RegressorConfig(resolution=32, channels=[8, 16], hidden=16, sphere=SphereConfig(pivot=[0.0, 0.0, 0.1]))


def regressor(config: RegressorConfig = TINY, seed: int = 0) -> CameraRegressor:
    torch.manual_seed(seed)
    return CameraRegressor(config).eval()


def test_photos_get_cameras_of_the_sphere() -> None:
    made = regressor()
    pixels = (255 * torch.rand(48, 48, 3, generator=torch.Generator().manual_seed(0))).byte().numpy()
    for photo in (Image.fromarray(pixels), pixels, [Image.fromarray(pixels)] * 2, tiny_images(2, size=64)):
        c = estimate_camera(photo, made)
        check_label(c, TINY.sphere.radius)
        assert c.shape == (2 if isinstance(photo, list | torch.Tensor) else 1, 25) and not c.requires_grad
        assert torch.allclose(angles_from_label(c, TINY.sphere)[:, 2], torch.zeros(len(c)), atol=1e-5)
    assert torch.equal(estimate_camera(pixels, made), estimate_camera(Image.fromarray(pixels), made))
    with pytest.raises(ValueError, match="expected a square"):
        estimate_camera(np.zeros((32, 16, 3), np.uint8), made)


def test_an_image_does_not_depend_on_its_batch() -> None:
    made = regressor().train()
    images = tiny_images(3)
    assert torch.allclose(made(images)[1:2], made(images[1:2]), atol=1e-6)


def test_roll_is_estimated_only_where_asked() -> None:
    image = tiny_images(2)
    assert torch.equal(regressor()(image)[:, 2], torch.zeros(2))
    assert bool((regressor(RegressorConfig(32, [8, 16], 16, roll=True))(image)[:, 2] != 0).all())


def test_the_mini_one_weighs_less_than_a_megabyte(tmp_path: Path) -> None:
    save_regressor(regressor(RegressorConfig()), tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").stat().st_size < 1_000_000


def test_it_comes_back_from_its_file(tmp_path: Path) -> None:
    made = regressor()
    save_regressor(made, tmp_path / "a.safetensors")
    loaded = load_regressor(tmp_path / "a.safetensors")
    assert loaded.config == TINY
    assert torch.equal(loaded.estimate(tiny_images()), made.estimate(tiny_images()))
    save_encoder(tiny_goae().encoder, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="holds a Encoder; expected a CameraRegressor"):
        load_regressor(tmp_path / "b.safetensors")
    with pytest.raises(FileNotFoundError):
        load_regressor(tmp_path / "c.safetensors")


def test_poses_lie_within_the_range_or_come_from_the_labels() -> None:
    poses = PosesConfig(yaw=60.0, pitch=20.0, roll=5.0)
    c = uniform_labels(500, poses, TINY.sphere, torch.Generator().manual_seed(0))
    angles = angles_from_label(c, TINY.sphere).rad2deg()
    limits = torch.tensor([60.0, 20.0, 5.0])
    assert bool((angles.abs() <= limits + 1e-3).all()) and bool((angles.abs().max(0).values > 0.95 * limits).all())
    assert bool((angles.mean(0).abs() < 0.1 * limits).all())
    labels = label_from_angles(torch.tensor([[0.1, 0.0, 0.0], [0.5, 0.1, 0.0]]), TINY.sphere)
    stage = CameraStage(regressor(), tiny_generator(), labels, CameraStageConfig())
    drawn = stage.batch(Draw(0, 0, 0), 12)["c"]
    near = torch.cdist(drawn, labels)
    assert bool((near.min(1).values < 1e-6).all()) and len(set(near.argmin(1).tolist())) == 2


@pytest.mark.parametrize("conditioning", ["canonical", "camera"])
def test_batches_follow_from_their_place_and_their_conditioning(conditioning: str) -> None:
    generator = tiny_generator()
    stage = CameraStage(regressor(), generator, None, CameraStageConfig(conditioning=conditioning))
    one, again, next_one = (stage.batch(Draw(0, step, 0), 2) for step in (3, 3, 4))
    assert all(torch.equal(one[name], again[name]) for name in ("ws", "c", "image"))
    assert not torch.equal(one["image"], next_one["image"]) and not torch.equal(one["c"], next_one["c"])
    with torch.no_grad():
        shown = generator.synthesis(one["ws"], one["c"]).image.clamp(-1, 1)
    assert torch.allclose(one["image"], shown, atol=1e-5)  # rounding where gradients are recorded
    other = "camera" if conditioning == "canonical" else "canonical"
    changed = CameraStage(regressor(), generator, None, CameraStageConfig(conditioning=other)).batch(Draw(0, 3, 0), 2)
    assert torch.equal(changed["c"], one["c"]) and not torch.equal(changed["ws"], one["ws"])


def test_disturbances_repeat_and_change_every_image_otherwise() -> None:
    image = tiny_images(4)
    made = [disturbed(image, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    off = (made[0] - image).abs().mean((1, 2, 3))
    assert bool((off > 0).all()) and float(off.max()) < 0.5 and len(set(off.tolist())) == 4


def test_a_few_steps_bring_it_nearer() -> None:
    """On a generator that knows a single scene, so that a few steps are enough."""
    poses, sphere = PosesConfig(yaw=60.0, pitch=0.0), TINY.sphere
    learner, generator = regressor(), tiny_generator()
    torch.nn.init.zeros_(generator.backbone.mapping.fc1.weight)
    config = CameraStageConfig(poses=poses, disturb=False, optimizer=OptimizerConfig("adam", lr=3e-3))
    stage = CameraStage(learner, generator, None, config)
    held_out = stage.batch(Draw(0, 1 << 20, 0), 32)
    validation = CameraValidation(held_out, None, num_images=0, batch_size=8)
    before = validation(learner)
    for step in range(90):
        stage.begin(step)
        stage.optimizer.zero_grad()
        draw = Draw(0, step, 0)
        stage.phases[0].losses(stage.batch(draw, 8), draw)["angles"].backward()
        stage.optimizer.step()
    after = validation(learner)
    front = label_from_angles(torch.zeros(32, 3), sphere)
    blind = float((angles_from_label(front, sphere) - angles_from_label(held_out["c"], sphere))[:, 0].abs().mean())
    assert after["yaw"] < 0.4 * before["yaw"] and after["yaw"] < 0.4 * blind * 57.3
    assert not any(p.requires_grad for p in stage.generator.parameters())


def test_the_preview_shows_renders_from_the_estimated_camera() -> None:
    stage = CameraStage(regressor(), tiny_generator(), None, CameraStageConfig())
    batch = stage.batch(Draw(0, 0, 0), 3)
    shown = stage.preview(batch)
    assert shown.shape == (6, 3, 32, 32) and torch.equal(shown[::2], batch["image"])

    class Knows(CameraRegressor):
        def estimate(self, image: torch.Tensor) -> torch.Tensor:
            return batch["c"]

    stage.regressor = Knows(TINY)
    assert torch.allclose(stage.preview(batch)[1::2].clamp(-1, 1), batch["image"], atol=1e-5)


def test_errors_of_a_known_regressor_are_its_offset() -> None:
    sphere = TINY.sphere
    true = torch.tensor([[0.3, 0.1, 0.0], [-0.4, 0.0, 0.0], [0.0, -0.1, 0.0]])

    class Off(CameraRegressor):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return true[: len(image)] + torch.tensor([0.1, 0.0, 0.0])

    batch = {"image": seeded("off", [3, 3, 32, 32]).clamp(-1, 1), "c": label_from_angles(true, sphere)}
    errors = CameraValidation(batch, None, num_images=3, batch_size=3)(Off(TINY))
    assert errors["yaw"] == pytest.approx(5.7296, abs=1e-3) and errors["pitch"] < 1e-3
    assert 0.95 * errors["yaw"] < errors["angle"] <= 1.05 * errors["yaw"]


def test_wrong_settings_are_named() -> None:
    for values in ({"channels": []}, {"channels": [12]}, {"resolution": 36}, {"hidden": 0}):
        with pytest.raises(ValueError, match=r"regressor\."):
            RegressorConfig(**values)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"camera\.conditioning"):
        CameraStageConfig(conditioning="none")
    with pytest.raises(ValueError, match=r"camera\.samples"):
        CameraStageConfig(samples=-1)
    with pytest.raises(ValueError, match="expected degrees"):
        PosesConfig(pitch=90.0)
