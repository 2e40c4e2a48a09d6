"""The frozen networks of losses and metrics."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from goae.config import PerceptionConfig
from goae.evaluation.distribution import DistributionConfig, Features
from goae.extractors.arcface import ArcFace
from goae.extractors.face_resnet import FaceResNet
from goae.extractors.facenet import FaceNet
from goae.extractors.inception import Inception
from goae.extractors.lpips import LPIPS
from goae.extractors.mini import MiniPerception
from goae.extractors.parsing import FaceParser, Segmenter, background_by_depth
from goae.extractors.vgg import VGG
from goae.training.canonical import Background

IDENTITIES: dict[str, Callable[[str], nn.Module]] = {
    "arcface": ArcFace,
    "face_resnet": FaceResNet,
    "facenet": FaceNet,
    "mini": MiniPerception,
}


@dataclass(frozen=True)
class Perception:
    """The frozen networks of a configuration; None where it says `none`."""

    lpips: LPIPS | None
    embed: Callable[[Tensor], Tensor] | None
    background: Background


def build_perception(config: PerceptionConfig, device: torch.device) -> Perception:
    """The frozen networks; a missing file raises FileNotFoundError that names the command to run."""
    lpips = None if config.lpips == "none" else LPIPS(config.lpips, config.lpips_path or None).to(device)
    embed = None if config.identity == "none" else build_identity(config.identity, config.identity_path, device)
    return Perception(lpips, embed, build_background(config, device))


def build_identity(name: str, path: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    """images (B, 3, H, W) in [-1, 1] -> unit vectors (B, D)."""
    if name not in IDENTITIES:
        raise ValueError(f"perception.identity is {name!r}; expected one of {', '.join([*IDENTITIES, 'none'])}")
    network: Callable[[Tensor], Tensor] = IDENTITIES[name](path or None).to(device).embed  # type: ignore[assignment, arg-type]
    return network


def build_background(config: PerceptionConfig, device: torch.device) -> Background:
    """(image, depth) of a front view -> mask, 1 where it is background."""
    if config.background == "depth":
        return lambda image, depth: background_by_depth(depth, config.background_depth)
    networks: dict[str, Callable[[str | None], FaceParser | Segmenter | MiniPerception]] = {
        "parser": FaceParser,
        "segmenter": partial(Segmenter, subject=config.background_subject),
        "mini": MiniPerception,
    }
    if config.background not in networks:
        raise ValueError(f"perception.background is {config.background!r}; expected parser, segmenter, mini or depth")
    network = networks[config.background](config.background_path or None).to(device)
    return lambda image, depth: network.background(image)


def build_features(config: DistributionConfig, device: torch.device) -> Features:
    """images (B, 3, H, W) in [-1, 1] -> (B, D), which distances between sets of images are measured on."""
    networks: dict[str, Callable[[str | None], MiniPerception | Inception | VGG]] = {
        "mini": MiniPerception,
        "inception": Inception,
        "vgg": VGG,
    }
    if config.features not in networks:
        raise ValueError(f"distribution.features is {config.features!r}; expected one of {', '.join(networks)}")
    return networks[config.features](config.features_path or None).to(device).features
