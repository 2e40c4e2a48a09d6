"""Train a camera regressor for a generator."""

from pathlib import Path

import torch
from eg3d.cameras import mirror_label
from torch import Tensor, nn

from goae import build
from goae.camera.regressor import CameraRegressor, load_regressor, save_regressor
from goae.config import CameraConfig, claim_run, to_plain
from goae.evaluation.runner import write_json
from goae.runs.renderers import settle_renderer
from goae.runs.setup import launch, open_images
from goae.training.camera_stage import HELD_OUT, CameraStage, CameraValidation
from goae.training.loop import fit
from goae.training.nonfinite import Failure
from goae.training.phases import Draw
from goae.training.tracking import Tracker, check_login

NUM_PREVIEWS = 8


def train_camera(config: CameraConfig, failure: Failure | None = None) -> Path:
    """Train to the configured number of steps; a run that was stopped goes on.

    Args:
        failure: a step that failed, which is run again instead; nothing is written.
    Returns: `<run folder>/camera.safetensors`; its errors in degrees are in `camera-errors.json` beside it.
    """
    fabric = launch(config, deterministic=config.deterministic)
    active = fabric.is_global_zero and failure is None
    if active:
        check_login(config.logging)
        claim_run(config)
    fabric.barrier()
    labels = pose_labels(config)
    held_out = open_images(config, config.data.validation) if config.data.validation else None
    generator = build.build_generator(config).to(fabric.device)
    settle_renderer(config, generator, config.camera.fit.micro, fabric, write=failure is None)
    stage = CameraStage(build.build_regressor(config), generator, labels, config.camera)
    sizes = {"num_images": config.validation.num_images, "batch_size": config.validation.batch_size}
    validation = CameraValidation(held_out_renders(config, stage), held_out, **sizes)
    tracker = Tracker(config.run_dir, config.logging, active=active, settings=to_plain(config))
    cfg = config.camera.fit
    fit(
        stage,
        lambda step, slot: stage.batch(Draw(config.seed, step, slot), cfg.micro),
        cfg,
        config.run_dir,
        fabric=fabric,
        seed=config.seed,
        preview=stage.batch(Draw(config.seed, HELD_OUT, 0), NUM_PREVIEWS),
        evaluate=validation,
        tracker=tracker,
        export=export,
        failure=failure,
        deterministic=config.deterministic,
    )
    tracker.close()
    path = config.run_dir / "camera.safetensors"
    if active:
        write_json(validation(load_regressor(path, fabric.device)), path.with_name("camera-errors.json"))
    return path


def pose_labels(config: CameraConfig) -> Tensor | None:
    """The labels of the training images, mirrored ones too where `data.mirror` is on; None without a data set."""
    if not config.data.train:
        return None
    labels = open_images(config, config.data.train).labels
    return torch.cat([labels, mirror_label(labels)]) if config.data.mirror else labels


def held_out_renders(config: CameraConfig, stage: CameraStage) -> dict[str, Tensor]:
    """Scenes and cameras that training never draws."""
    total, size = config.validation.num_images, config.validation.batch_size
    starts = range(0, total, size)
    parts = [
        stage.batch(Draw(config.seed, HELD_OUT, 1 + slot), min(size, total - start))
        for slot, start in enumerate(starts)
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def export(module: nn.Module, path: Path) -> None:
    """Write a regressor in our own format."""
    assert isinstance(module, CameraRegressor)
    save_regressor(module, path)
