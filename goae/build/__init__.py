"""Configuration to objects: the only place where a name selects a class."""

from goae.build.baselines import BASELINES, build_baseline, build_pose_opt, codes_of
from goae.build.generator import build_discriminator, build_generator, build_regressor, for_training, load_generator
from goae.build.measuring import (
    build_between,
    build_meters,
    build_reference,
    networks_settings,
    present_hashes,
)
from goae.build.methods import RIVALS, Given, Tested, Weights, build_method
from goae.build.networks import (
    backbone_path,
    build_goae,
    build_networks,
    build_parser,
    build_parts,
    build_rival,
    load_start,
)
from goae.build.perception import Perception, build_background, build_features, build_identity, build_perception
from goae.build.stages import (
    build_background_depth,
    build_encoder_stage,
    build_image_losses,
    build_refiner_stage,
    build_schedule,
    build_stats,
    has_bg,
    mask_of,
    stats_path,
)

__all__ = [
    "BASELINES",
    "RIVALS",
    "Given",
    "Perception",
    "Tested",
    "Weights",
    "backbone_path",
    "build_background",
    "build_background_depth",
    "build_baseline",
    "build_between",
    "build_discriminator",
    "build_encoder_stage",
    "build_features",
    "build_generator",
    "build_goae",
    "build_identity",
    "build_image_losses",
    "build_meters",
    "build_method",
    "build_networks",
    "build_parser",
    "build_parts",
    "build_perception",
    "build_pose_opt",
    "build_reference",
    "build_refiner_stage",
    "build_regressor",
    "build_rival",
    "build_schedule",
    "build_stats",
    "codes_of",
    "for_training",
    "has_bg",
    "load_generator",
    "load_start",
    "mask_of",
    "networks_settings",
    "present_hashes",
    "stats_path",
]
