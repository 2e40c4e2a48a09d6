"""Both training stages."""

from functools import partial
from pathlib import Path

import torch
from eg3d.generator import TriPlaneGenerator

from goae.build.perception import Perception
from goae.config import TrainConfig
from goae.losses.image import ImageLosses, ImageWeights
from goae.models.discriminator import LatentDiscriminator
from goae.models.encoder import stage_at
from goae.models.goae import GOAE
from goae.models.latent_inverter import LatentInverter
from goae.models.pyramid_encoder import unlocked_at
from goae.training.background import BackgroundConfig, BackgroundDepth
from goae.training.canonical import CanonicalStats
from goae.training.encoder_stage import EncoderStage, Schedule
from goae.training.refiner_stage import RefinerStage
from goae.weights import find


def build_stats(config: TrainConfig, generator: TriPlaneGenerator) -> CanonicalStats:
    """The canonical statistics of the generator in hand."""
    return CanonicalStats.load(stats_path(config), generator, mask=mask_of(config))


def has_bg(config: TrainConfig, stage: str) -> bool:
    """Check whether L_BG takes part in a stage."""
    return bool(config.stages.encoder.bg if stage == "encoder" else config.stages.refiner.bg)


def mask_of(config: TrainConfig) -> str:
    """How the configuration finds the background of canonical views, in words."""
    rule = config.perception.background
    if rule == "depth":
        rule += f" beyond {config.perception.background_depth:g}"
    if rule == "segmenter" and config.perception.background_subject != "cat":  # statistics of before name no subject
        rule += f" of {config.perception.background_subject}"
    return f"{rule}, shrunk by {config.canonical.erode}"


def stats_path(config: TrainConfig) -> Path:
    """`paths.canonical_stats`; where it is empty, beside the generator, `<stem>-canonical.safetensors`."""
    if config.paths.canonical_stats:
        return Path(config.paths.canonical_stats).expanduser()
    generator = find(config.paths.generator)
    return generator.with_name(f"{generator.stem}-canonical.safetensors")


def build_encoder_stage(
    config: TrainConfig, goae: LatentInverter, perception: Perception, device: torch.device
) -> EncoderStage:
    """Stage 1 of any method on `device`."""
    stage = config.stages.encoder
    torch.manual_seed(config.seed + 2)
    discriminator = LatentDiscriminator(config.latent_discriminator)
    losses = build_image_losses(config, stage.weights, perception)
    background = build_background_depth(config, goae, perception, stage.background) if stage.bg else None
    goae.to(device)
    discriminator.to(device)
    return EncoderStage(goae, discriminator, losses, background, stage, build_schedule(config, goae))


def build_schedule(config: TrainConfig, goae: LatentInverter) -> Schedule:
    """When the encoder's rows are unlocked: by levels, one by one for e4e, all at once for the others."""
    if config.method == "goae":
        return partial(stage_at, thresholds=config.stages.encoder.stage_steps)
    if config.method == "e4e":
        start, every = config.rival.unlock_start, config.rival.unlock_every
        return partial(unlocked_at, start=start, every=every, num_ws=goae.encoder.num_ws)
    return lambda step: 0


def build_refiner_stage(config: TrainConfig, goae: GOAE, perception: Perception, device: torch.device) -> RefinerStage:
    """Stage 2 on `device`."""
    stage = config.stages.refiner
    losses = build_image_losses(config, stage.weights, perception)
    background = build_background_depth(config, goae, perception, stage.background) if stage.bg else None
    goae.to(device)
    return RefinerStage(goae, losses, background, stage)


def build_image_losses(config: TrainConfig, weights: ImageWeights, perception: Perception) -> ImageLosses:
    """L_rec with the configured networks."""
    return ImageLosses(weights, resolution=config.data.loss_resolution, lpips=perception.lpips, embed=perception.embed)


def build_background_depth(
    config: TrainConfig, goae: LatentInverter, perception: Perception, background: BackgroundConfig
) -> BackgroundDepth:
    """L_BG for the generator in hand."""
    return BackgroundDepth(goae.generator, perception.background, build_stats(config, goae.generator), background)
