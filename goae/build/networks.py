"""GOAE and the rival encoders, untrained."""

from collections.abc import Callable

import torch
from eg3d.generator import TriPlaneGenerator

from goae.config import TrainConfig
from goae.extractors.bisenet import CLASSES
from goae.extractors.mini import MiniPerception
from goae.extractors.mini_network import NUM_PARTS
from goae.extractors.parsing import VOC_CLASSES, FaceParser, Segmenter
from goae.models.afa import AFA
from goae.models.encoder import Encoder
from goae.models.goae import GOAE
from goae.models.ide3d_encoder import IDE3DEncoder, PartParser
from goae.models.latent_inverter import LatentInverter
from goae.models.published import load_backbone, load_trunk
from goae.models.pyramid_encoder import E4EEncoder, PSPEncoder, RivalConfig
from goae.models.swin import SwinConfig
from goae.weights import find

PARSERS: dict[str, tuple[Callable[[str | None], FaceParser | MiniPerception | Segmenter], int]] = {
    "parser": (FaceParser, CLASSES),
    "mini": (MiniPerception, NUM_PARTS),
    "segmenter": (Segmenter, VOC_CLASSES),
}


def build_goae(config: TrainConfig, generator: TriPlaneGenerator) -> GOAE:
    """Untrained encoder and feature alignment around `generator`; their weights follow from the seed."""
    torch.manual_seed(config.seed + 1)
    encoder = Encoder(config.encoder, num_ws=generator.num_ws, w_dim=generator.config.w_dim)
    if config.paths.backbone:
        load_backbone(encoder.swin_model, find(config.paths.backbone))
    return GOAE(generator, encoder, AFA(config.afa), config.goae)


def build_networks(config: TrainConfig, generator: TriPlaneGenerator, device: torch.device) -> LatentInverter:
    """The untrained networks of `method` around `generator`; `device` is that of the networks they only use."""
    return build_goae(config, generator) if config.method == "goae" else build_rival(config, generator, device)


def published_backbone(config: TrainConfig) -> str:
    """The catalogue's name of the weights that fit the encoder's backbone, for `paths.backbone`; empty: none do."""
    if config.method == "goae":
        return "swin" if config.encoder.backbone == SwinConfig() else ""
    published = RivalConfig()
    fits = (config.rival.widths, config.rival.units) == (published.widths, published.units)
    return "arcface" if fits else ""


def build_rival(config: TrainConfig, generator: TriPlaneGenerator, device: torch.device) -> LatentInverter:
    """The encoder of `method` before `generator`; its weights follow from the seed, but for those of `paths.backbone`.

    IR-SE50 weights start the trunk that sees the image alone; IDE-3D's semantic encoder is random.
    """
    torch.manual_seed(config.seed + 1)
    sizes = config.rival, generator.num_ws, generator.config.w_dim
    encoder: PSPEncoder | E4EEncoder | IDE3DEncoder
    if config.method == "ide3d":
        encoder = IDE3DEncoder(*sizes, build_parser(config, device))
    elif config.method == "e4e":
        encoder = E4EEncoder(*sizes)
    else:
        encoder = PSPEncoder(*sizes)
    if config.paths.backbone:
        pyramid = encoder.texture if isinstance(encoder, IDE3DEncoder) else encoder.pyramid
        load_trunk(pyramid.trunk, find(config.paths.backbone))
    return LatentInverter(generator, encoder)


def build_parser(config: TrainConfig, device: torch.device) -> PartParser:
    """The network of part labels that `rival.parts` names, from the file of the background mask where that is its."""
    perception = config.perception
    path = perception.background_path if perception.background == config.rival.parts else ""
    return build_parts(config.rival.parts, path, device)


def build_parts(name: str, path: str, device: torch.device) -> PartParser:
    """A network of part labels by its name; an empty path means the shipped or cached file."""
    if name not in PARSERS:
        raise ValueError(f"rival.parts is {name!r}; expected one of {', '.join(PARSERS)}")
    make, num_parts = PARSERS[name]
    return PartParser(make(path or None).to(device).parts, num_parts)
