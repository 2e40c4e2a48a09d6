"""GOAE and the rival encoders, untrained, and the published weights that stage 1 starts from."""

from collections.abc import Callable

import torch
from eg3d.generator import TriPlaneGenerator

from goae.config import PUBLISHED, RANDOM, TrainConfig
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
from goae.weights import FILES, find

PARSERS: dict[str, tuple[Callable[[str | None], FaceParser | MiniPerception | Segmenter], int]] = {
    "parser": (FaceParser, CLASSES),
    "mini": (MiniPerception, NUM_PARTS),
    "segmenter": (Segmenter, VOC_CLASSES),
}


def build_goae(config: TrainConfig, generator: TriPlaneGenerator) -> GOAE:
    """Untrained encoder and feature alignment around `generator`; their weights follow from the seed."""
    torch.manual_seed(config.seed + 1)
    encoder = Encoder(config.encoder, num_ws=generator.num_ws, w_dim=generator.config.w_dim)
    return GOAE(generator, encoder, AFA(config.afa), config.goae)


def build_networks(config: TrainConfig, generator: TriPlaneGenerator, device: torch.device) -> LatentInverter:
    """The untrained networks of `method` around `generator`; `device` is that of the networks they only use."""
    return build_goae(config, generator) if config.method == "goae" else build_rival(config, generator, device)


def backbone_path(config: TrainConfig) -> str:
    """The path of the weights that stage 1 starts from, for `find`; empty: random weights.

    Raises: ValueError if `paths.backbone` is empty although published weights fit.
    """
    given, name = config.paths.backbone, "swin" if config.method == "goae" else "arcface"
    if given == PUBLISHED:
        return f"weights/{FILES[name]}"
    if not given and published_fits(config):
        raise ValueError(
            f"paths.backbone is empty, but published weights ({name}) fit the encoder: give paths.backbone={PUBLISHED} "
            f"to start from them, or paths.backbone={RANDOM} for random weights, as older runs had them"
        )
    return "" if given == RANDOM else given


def published_fits(config: TrainConfig) -> bool:
    """Check whether the encoder's backbone has the sizes of published weights."""
    if config.method == "goae":
        return config.encoder.backbone == SwinConfig()
    published = RivalConfig()
    return (config.rival.widths, config.rival.units) == (published.widths, published.units)


def load_start(config: TrainConfig, networks: LatentInverter) -> None:
    """Start the encoder from the file of `paths.backbone`; the rest of it stays as it is.

    IR-SE50 weights start the trunk that sees the image alone; IDE-3D's semantic encoder stays random.
    Raises: as `backbone_path`; FileNotFoundError naming the command; ValueError if the file does not fit.
    """
    path, encoder = backbone_path(config), networks.encoder
    if not path:
        return
    file = find(path)
    if isinstance(encoder, Encoder):
        load_backbone(encoder.swin_model, file)
    else:
        assert isinstance(encoder, PSPEncoder | E4EEncoder | IDE3DEncoder)
        pyramid = encoder.texture if isinstance(encoder, IDE3DEncoder) else encoder.pyramid
        load_trunk(pyramid.trunk, file)


def build_rival(config: TrainConfig, generator: TriPlaneGenerator, device: torch.device) -> LatentInverter:
    """The untrained encoder of `method` before `generator`; its weights follow from the seed."""
    torch.manual_seed(config.seed + 1)
    sizes = config.rival, generator.num_ws, generator.config.w_dim
    encoder: PSPEncoder | E4EEncoder | IDE3DEncoder
    if config.method == "ide3d":
        encoder = IDE3DEncoder(*sizes, build_parser(config, device))
    elif config.method == "e4e":
        encoder = E4EEncoder(*sizes)
    else:
        encoder = PSPEncoder(*sizes)
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
