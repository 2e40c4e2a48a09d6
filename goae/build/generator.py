"""The generator, and what is trained beside or on it."""

import torch
from eg3d.discriminator import DualDiscriminator
from eg3d.generator import GeneratorConfig, TriPlaneGenerator

from goae.camera.regressor import CameraRegressor
from goae.config import RANDOM, CameraConfig, PriorConfig, RunConfig, TrainConfig
from goae.loading import read_generator
from goae.models.sampling import with_samples
from goae.training.adversarial import MINIBATCH_GROUP


def build_generator(config: RunConfig) -> TriPlaneGenerator:
    """The frozen generator of `paths.generator`, or one with random weights of the configured sizes where it says so.

    Raises: ValueError if it is empty.
    """
    path = config.paths.generator
    if not path:
        raise ValueError(
            "paths.generator is empty; give the file of a trained generator, for example "
            f"paths.generator=weights/ffhqrebalanced512-128.pkl, or paths.generator={RANDOM} for untrained weights"
        )
    if path != RANDOM:
        return load_generator(path, config.generator, force_fp32=config.force_fp32)
    torch.manual_seed(config.seed)
    return TriPlaneGenerator(config.generator, force_fp32=config.force_fp32).eval().requires_grad_(False)


def load_generator(path: str, sizes: GeneratorConfig, *, force_fp32: bool = False) -> TriPlaneGenerator:
    """A stored generator, frozen. Raises: ValueError if its sizes are not those of the configuration."""
    generator = read_generator(path, force_fp32=force_fp32)
    names = ("z_dim", "w_dim", "image_resolution", "plane_resolution", "plane_channels")
    differ = [n for n in names if getattr(generator.config, n) != getattr(sizes, n)]
    if differ:
        found = "; ".join(f"{n} {getattr(generator.config, n)}, not {getattr(sizes, n)}" for n in differ)
        raise ValueError(
            f"{path} is not the generator that the configuration describes: it has {found}. Choose "
            f"the generator group that fits the file (generator=...)."
        )
    return generator


def for_training(config: TrainConfig, generator: TriPlaneGenerator) -> TriPlaneGenerator:
    """The same weights as training renders them: `training_samples` per ray, recomputed if so configured."""
    generator = with_samples(generator, config.training_samples, recompute=config.renderer_checkpointing)
    generator.superresolution.channels_last = not config.deterministic
    return generator


def build_regressor(config: CameraConfig) -> CameraRegressor:
    """Untrained; its weights follow from the seed."""
    torch.manual_seed(config.seed + 4)
    return CameraRegressor(config.regressor)


def build_discriminator(config: PriorConfig, impl: str = "auto") -> DualDiscriminator:
    """Untrained; its weights follow from the seed."""
    torch.manual_seed(config.seed + 3)
    sizes = config.adversarial.discriminator
    return DualDiscriminator(
        config.generator.image_resolution,
        config.generator.c_dim,
        channel_base=sizes.channel_base,
        channel_max=sizes.channel_max,
        mapping_layers=sizes.mapping_layers,
        num_fp16_res=sizes.num_fp16_res,
        mbstd_group_size=MINIBATCH_GROUP,
        impl=impl,
    )
