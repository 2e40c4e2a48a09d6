"""Train the stages of a run."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from eg3d.checkpoint import generator_hash
from eg3d.generator import TriPlaneGenerator
from torch import nn

from goae import build
from goae.config import TrainConfig, claim_run, to_plain
from goae.data.copies import warn_of_mirrored_copies
from goae.data.datasets import PosedImages
from goae.evaluation.results import module_hash
from goae.evaluation.validation import Validation
from goae.loading import save_encoder, save_refiner
from goae.models.afa import AFA
from goae.models.goae import GOAE
from goae.models.latent_inverter import LatentEncoder, LatentInverter
from goae.models.pyramid_encoder import E4EEncoder
from goae.models.storage import read_model
from goae.runs.needs import require_files
from goae.runs.renderers import settle_renderer
from goae.runs.setup import check_order, check_splits, launch, open_batches, open_images, stack, trained, unfinished
from goae.runs.sources import claim_sources
from goae.states import load_strictly
from goae.training.encoder_stage import EncoderStage
from goae.training.loop import FitConfig, fit, split_slots
from goae.training.nonfinite import Failure
from goae.training.phases import Stage
from goae.training.tracking import Tracker, check_login, read_metrics

if TYPE_CHECKING:  # it takes seconds to import, and a configuration is checked without it
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)
NUM_PREVIEWS = 4


def train(config: TrainConfig, failure: Failure | None = None) -> Path:
    """Train the configured stages; a run that was stopped goes on, a complete one is left as it is.

    Args:
        failure: a step that failed, which is run again instead; nothing is written.
    Returns: the run folder, with `encoder.safetensors` and, for GOAE, `refiner.safetensors`.
    """
    todo = [failure.stage] if failure else stages_to_do(config)
    require_files(config, todo)
    fabric = launch(config, deterministic=config.deterministic)
    if fabric.is_global_zero and failure is None:
        check_login(config.logging)
        claim_run(config)
    fabric.barrier()
    if not todo:
        print(f"{config.run_dir}: training is complete")
        return config.run_dir
    check_order(config, todo)
    check_splits({name: fit_config(config, name) for name in todo}, fabric.world_size)
    splits = open_splits(config)  # checks all of them before networks are built
    generator, goae, perception = build_parts(config, todo, fabric.device)
    micro = fit_config(config, todo[0]).micro
    settle_renderer(config, generator.to(fabric.device), micro, fabric, write=failure is None)
    tracker = Tracker(
        config.run_dir,
        config.logging,
        active=fabric.is_global_zero and failure is None,
        settings=to_plain(config),
    )
    sources = {"generator": generator_hash(generator)}
    for name in todo:
        if name == "refiner":
            load_trained_encoder(config, goae)
            sources["encoder"] = module_hash(goae.encoder)
        stage = build_stage(config, name, goae, perception, fabric.device)
        if isinstance(stage, EncoderStage) and fabric.is_global_zero:
            warn_of_untrained_rows(stage)
        stats = build.build_stats(config, generator) if build.has_bg(config, name) else None
        if fabric.is_global_zero and failure is None:
            noted = {"canonical statistics": stats.digest()} if stats else {}
            claim_sources(config.run_dir, name, sources | noted)
        fabric.barrier()
        fit_stage(config, stage, goae, perception, splits, fabric, tracker, failure)
    tracker.close()
    return config.run_dir


def stages_to_do(config: TrainConfig) -> list[str]:
    """The stages asked for that this run has not trained yet, in order."""
    return unfinished(config, {name: fit_config(config, name) for name in config.own_stages})


def build_parts(
    config: TrainConfig, todo: Sequence[str], device: torch.device
) -> tuple[TriPlaneGenerator, LatentInverter, build.Perception]:
    """Build the generator as training renders it, the networks as stage 1 starts from them, and frozen ones.

    Raises: ValueError if the generator's images are not as large as those of the data.
    """
    generator = build.for_training(config, build.build_generator(config))
    side = generator.config.image_resolution
    if config.data.resolution != side:
        raise ValueError(
            f"data.resolution is {config.data.resolution}, but the generator renders {side}x{side}: give "
            f"data.resolution={side} with images of that size, or another generator"
        )
    networks = build.build_networks(config, generator, device)
    if "encoder" in todo:
        build.load_start(config, networks)
    return generator, networks, build.build_perception(config.perception, device)


def open_splits(config: TrainConfig) -> tuple[PosedImages, PosedImages]:
    """Open the images to train on and those to validate with. Raises: as `PosedImages`."""
    return open_images(config, config.data.train), open_images(config, config.data.validation)


def load_trained_encoder(config: TrainConfig, goae: LatentInverter) -> None:
    """Give `goae` the encoder that stage 1 left."""
    path = trained(config, "encoder")
    load_strictly(goae.encoder, read_model(path).state, path)


def build_stage(
    config: TrainConfig, name: str, goae: LatentInverter, perception: build.Perception, device: torch.device
) -> Stage:
    """A stage by its name, on `device`."""
    if name == "encoder":
        return build.build_encoder_stage(config, goae, perception, device)
    assert isinstance(goae, GOAE)  # no other method has the stage
    return build.build_refiner_stage(config, goae, perception, device)


def warn_of_untrained_rows(stage: EncoderStage) -> None:
    """Say so where stage 1 ends before progressive training has reached the last rows, which all jobs on it read."""
    steps, encoder = stage.config.fit.steps, stage.goae.encoder
    level = stage.schedule(max(steps - 1, 0))
    if level < encoder.last_stage:
        log.warning(
            "stage 1 ends at step %d with %d of %d rows of ws trained; encoder.safetensors is read with all of them. "
            "Give more steps (stages.encoder.fit.steps), or unlock rows earlier (%s)",
            *(steps, encoder.active_rows(level), encoder.num_ws),
            "rival.unlock_start, rival.unlock_every"
            if isinstance(encoder, E4EEncoder)
            else "stages.encoder.stage_steps",
        )


def fit_stage(
    config: TrainConfig,
    stage: Stage,
    goae: LatentInverter,
    perception: build.Perception,
    splits: tuple[PosedImages, PosedImages],
    fabric: "Fabric",
    tracker: Tracker,
    failure: Failure | None = None,
) -> None:
    """Run the loop over the training images, the first of `splits`, or a step of it that failed."""
    cfg = fit_config(config, stage.name)
    data, (images, held_out) = config.data, splits
    if data.mirror and fabric.is_global_zero:
        warn_of_mirrored_copies(images)
    shown = [held_out[i] for i in range(min(NUM_PREVIEWS, len(held_out)))]
    validation = Validation(
        goae,
        [held_out[i] for i in range(min(config.validation.num_images, len(held_out)))],
        perception.lpips,
        resolution=data.loss_resolution,
        batch_size=config.validation.batch_size,
        refine=stage.name == "refiner",
    )
    slots = split_slots(cfg, fabric.global_rank, fabric.world_size)
    with open_batches(images, data, cfg, config.seed, slots, fabric.device) as batches:
        fit(
            stage,
            batches.fetch,
            cfg,
            config.run_dir,
            fabric=fabric,
            seed=config.seed,
            preview=stack(shown),
            evaluate=lambda module: validation(module, level=trained_level(stage)),
            tracker=tracker,
            export=lambda module, path: export(module, path, goae),
            trace=batches.trace,
            failure=failure,
            deterministic=config.deterministic,
        )


def trained_level(stage: Stage) -> int | None:
    """The level of progressive training that stage 1 is measured at; None in stage 2, whose encoder has all rows."""
    return stage.trained_level if isinstance(stage, EncoderStage) else None


def objective(config: TrainConfig) -> float:
    """What a search makes smallest: the last validation error (val/mse) of the last stage that the run trained.

    Raises: ValueError if nothing was validated.
    """
    trained_stages = [name for name in config.own_stages if config.stage in ("all", name)]
    rows = [row for row in read_metrics(config.run_dir, trained_stages[-1]) if "val/mse" in row]
    if not rows:
        raise ValueError(f"{config.run_dir} has no val/mse; set stages.{trained_stages[-1]}.fit.evaluate_every")
    return rows[-1]["val/mse"]


def export(module: nn.Module, path: Path, goae: LatentInverter) -> None:
    """Write an encoder or AFA in our own format."""
    if isinstance(module, LatentEncoder):
        save_encoder(module, path)
    else:
        assert isinstance(module, AFA) and isinstance(goae, GOAE)
        save_refiner(module, goae.config, path)


def fit_config(config: TrainConfig, name: str) -> FitConfig:
    """The loop's settings of a stage."""
    return config.stages.encoder.fit if name == "encoder" else config.stages.refiner.fit
