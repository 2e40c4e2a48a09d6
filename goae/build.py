"""Configuration to objects: the only place where a name selects a class."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from eg3d import checkpoint
from eg3d.discriminator import DualDiscriminator
from eg3d.generator import GeneratorConfig, TriPlaneGenerator
from torch import Tensor, nn

from goae.baselines.encoder_only import EncoderOnly
from goae.baselines.floors import AverageCode
from goae.config import CheckMetersConfig, PerceptionConfig, PriorConfig, RunConfig, TrainConfig
from goae.evaluation.distribution import DistributionConfig, Features
from goae.evaluation.geometry import DepthFolder, NetworkDepth, Reference, TrueDepth
from goae.evaluation.measuring import MetricsConfig, Networks
from goae.evaluation.pairs import Between, between_features, between_images
from goae.evaluation.results import folder_hash, module_hash
from goae.evaluation.runner import Method
from goae.evaluation.timing import Steps, goae_steps
from goae.extractors.arcface import ArcFace
from goae.extractors.face_resnet import FaceResNet
from goae.extractors.facenet import FaceNet
from goae.extractors.inception import Inception
from goae.extractors.lpips import LPIPS
from goae.extractors.mini import MiniPerception
from goae.extractors.parsing import FaceParser, Segmenter, background_by_depth
from goae.extractors.vgg import VGG
from goae.inversion import Inverter
from goae.loading import load_inverter
from goae.losses.image import ImageLosses, ImageWeights
from goae.models.afa import AFA
from goae.models.discriminator import LatentDiscriminator
from goae.models.encoder import Encoder
from goae.models.goae import GOAE
from goae.models.published import load_backbone
from goae.models.sampling import with_samples
from goae.training.adversarial import MINIBATCH_GROUP
from goae.training.background import BackgroundConfig, BackgroundDepth
from goae.training.canonical import Background, CanonicalStats
from goae.training.encoder_stage import EncoderStage
from goae.training.refiner_stage import RefinerStage

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


def build_generator(config: RunConfig) -> TriPlaneGenerator:
    """The frozen generator of `paths.generator`, or one with random weights of the configured sizes."""
    if config.paths.generator:
        return load_generator(config.paths.generator, config.generator)
    torch.manual_seed(config.seed)
    return TriPlaneGenerator(config.generator).eval().requires_grad_(False)


def load_generator(path: str, sizes: GeneratorConfig) -> TriPlaneGenerator:
    """A stored generator, frozen. Raises: ValueError if its sizes are not those of the configuration."""
    generator = checkpoint.load(path)
    names = ("z_dim", "w_dim", "image_resolution", "plane_resolution", "plane_channels")
    differ = [n for n in names if getattr(generator.config, n) != getattr(sizes, n)]
    if differ:
        found = "; ".join(f"{n} {getattr(generator.config, n)}, not {getattr(sizes, n)}" for n in differ)
        raise ValueError(
            f"{path} is not the generator that the configuration describes: it has {found}. Choose "
            f"the generator group that fits the file (generator=...)."
        )
    return generator


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


def build_between(name: str, config: CheckMetersConfig, images: Tensor) -> Between:
    """Distances between rows of images (N, 3, R, R) by a meter of goae/evaluation/meters.py."""
    device = images.device
    if name == "lpips":
        lpips = LPIPS("alex", config.lpips_path or None).to(device)
        return between_images(images, lpips, batch_size=config.batch_size)
    networks: dict[str, Callable[[], Features]] = {
        "identity": lambda: build_identity("mini", config.perception_path, device),
        "identity_independent": lambda: build_identity("face_resnet", config.face_resnet_path, device),
        "fd_mini": lambda: build_features(DistributionConfig("mini", config.perception_path), device),
        "fd_vgg": lambda: build_features(DistributionConfig("vgg", config.vgg_path), device),
    }
    network = networks[name]()
    with torch.no_grad():
        return between_features(torch.cat([network(chunk).cpu() for chunk in images.split(config.batch_size)]))


def for_training(config: TrainConfig, generator: TriPlaneGenerator) -> TriPlaneGenerator:
    """The same weights as training renders them: `training_samples` per ray, recomputed if so configured."""
    return with_samples(generator, config.training_samples, recompute=config.renderer_checkpointing)


def build_goae(config: TrainConfig, generator: TriPlaneGenerator) -> GOAE:
    """Untrained encoder and feature alignment around `generator`; their weights follow from the seed."""
    torch.manual_seed(config.seed + 1)
    encoder = Encoder(config.encoder, num_ws=generator.num_ws, w_dim=generator.config.w_dim)
    if config.paths.backbone:
        load_backbone(encoder.swin_model, config.paths.backbone)
    return GOAE(generator, encoder, AFA(config.afa), config.goae)


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
    networks = {"parser": FaceParser, "segmenter": Segmenter, "mini": MiniPerception}
    if config.background not in networks:
        raise ValueError(f"perception.background is {config.background!r}; expected parser, segmenter, mini or depth")
    network = networks[config.background](config.background_path or None).to(device)
    return lambda image, depth: network.background(image)


def build_stats(config: TrainConfig, generator: TriPlaneGenerator) -> CanonicalStats:
    """The canonical statistics of the generator in hand."""
    path = Path(config.paths.canonical_stats or default_stats_path(config))
    return CanonicalStats.load(path, generator)


def default_stats_path(config: TrainConfig) -> Path:
    """Beside the generator, `<stem>-canonical.safetensors`."""
    generator = Path(config.paths.generator)
    return generator.with_name(f"{generator.stem}-canonical.safetensors")


def build_encoder_stage(config: TrainConfig, goae: GOAE, perception: Perception, device: torch.device) -> EncoderStage:
    """Stage 1 on `device`."""
    stage = config.stages.encoder
    torch.manual_seed(config.seed + 2)
    discriminator = LatentDiscriminator(config.latent_discriminator)
    losses = build_image_losses(config, stage.weights, perception)
    background = build_background_depth(config, goae, perception, stage.background) if stage.bg else None
    goae.to(device)
    discriminator.to(device)
    return EncoderStage(goae, discriminator, losses, background, stage)


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
    config: TrainConfig, goae: GOAE, perception: Perception, background: BackgroundConfig
) -> BackgroundDepth:
    """L_BG for the generator in hand."""
    return BackgroundDepth(goae.generator, perception.background, build_stats(config, goae.generator), background)


@dataclass(frozen=True)
class Tested:
    """A method under test: what its numbers depend on, and its parts for the timing where it tells them apart."""

    method: Method[Any]
    settings: dict[str, Any]
    steps: Steps | None = None


class Given:
    """The weights that methods under test are built from, loaded when a method first asks for them."""

    def __init__(self, *, generator: str, encoder: str, refiner: str, preset: str, device: torch.device) -> None:
        """Paths; `preset` may be empty, see `load_inverter`."""
        self.files, self.preset, self.device = (generator, encoder, refiner), preset, device

    @cached_property
    def inverter(self) -> Inverter:
        """GOAE in full."""
        generator, encoder, refiner = self.files
        preset = self.preset or None
        return load_inverter(generator=generator, encoder=encoder, refiner=refiner, preset=preset, device=self.device)


def _full(given: Given) -> Tested:
    goae = given.inverter.goae
    settings = _generator_settings(given) | {
        "encoder": module_hash(goae.encoder),
        "refiner": module_hash(goae.afa),
        "goae": asdict(goae.config),
    }
    return Tested(given.inverter, settings, partial(goae_steps, goae, refine=True))


def _w_plus(given: Given) -> Tested:
    goae = given.inverter.goae
    settings = _generator_settings(given) | {"encoder": module_hash(goae.encoder)}
    return Tested(EncoderOnly(goae), settings, partial(goae_steps, goae, refine=False))


def _w_avg(given: Given) -> Tested:
    return Tested(AverageCode(given.inverter.goae.generator), _generator_settings(given))


def _generator_settings(given: Given) -> dict[str, Any]:
    return {"generator": given.inverter.generator_hash}


# Methods that the protocols can measure; a further one is one entry.
METHODS: dict[str, Callable[[Given], Tested]] = {"w_avg": _w_avg, "w_plus": _w_plus, "full": _full}


def build_method(name: str, given: Given) -> Tested:
    """A method under test."""
    if name not in METHODS:
        raise ValueError(f"methods has {name!r}; expected some of {', '.join(METHODS)}")
    return METHODS[name](given)


def build_metric_networks(config: MetricsConfig, pseudo_depth: str, device: torch.device) -> Networks:
    """What measures; a missing file raises FileNotFoundError that names the command to run."""
    independent = None
    if config.identity_independent != "none":
        independent = build_identity(config.identity_independent, config.identity_independent_path, device)
    return Networks(
        LPIPS(config.lpips, config.lpips_path or None).to(device),
        build_identity(config.identity, config.identity_path, device),
        independent,
        build_features(DistributionConfig(config.features, config.features_path), device),
        build_reference(config, pseudo_depth, device),
        config.true_depth,
    )


def build_reference(config: MetricsConfig, folder: str, device: torch.device) -> Reference | None:
    """Where the pseudo-depth of the geometry error comes from; a further network is one branch."""
    if config.geometry == "none":
        return None
    if config.geometry == "true":
        return TrueDepth()
    if config.geometry == "mini":
        network = MiniPerception(config.geometry_path or None).to(device)
        return NetworkDepth(lambda image: (network.depth(image), network.background(image) < 0.5))
    if config.geometry == "folder":
        if not folder:
            raise ValueError(
                "metrics.geometry is folder, but pseudo_depth names none for this protocol; give one, or set "
                "metrics.geometry=none"
            )
        return DepthFolder(folder, config.geometry_sign)
    raise ValueError(f"metrics.geometry is {config.geometry!r}; expected true, folder, mini or none")


def networks_settings(config: MetricsConfig, networks: Networks) -> dict[str, Any]:
    """What the numbers depend on: the choices without their paths, and the hashes of what was found there."""
    choices = {name: value for name, value in asdict(config).items() if not name.endswith("_path")}
    hashes = {}
    for name in ("lpips", "identity", "identity_independent", "features"):
        function = getattr(networks, name)
        module = function if isinstance(function, nn.Module) else getattr(function, "__self__", None)
        if isinstance(module, nn.Module):
            hashes[f"{name}_sha256"] = module_hash(module)
    if isinstance(networks.reference, DepthFolder):
        hashes["pseudo_depth_sha256"] = folder_hash(networks.reference.path)
    if config.geometry == "mini":
        hashes["pseudo_depth_sha256"] = module_hash(MiniPerception(config.geometry_path or None))
    return choices | hashes
