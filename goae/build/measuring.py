"""What measures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from goae.build.perception import build_features, build_identity
from goae.config import CheckMetersConfig
from goae.evaluation.distribution import DistributionConfig, Features
from goae.evaluation.geometry import DepthFolder, NetworkDepth, Reference, TrueDepth
from goae.evaluation.measuring import MetricsConfig, Networks
from goae.evaluation.pairs import Between, between_features, between_images
from goae.evaluation.results import folder_hash, module_hash
from goae.extractors.lpips import LPIPS
from goae.extractors.mini import MiniPerception

NETWORKS = ("lpips", "identity", "identity_independent", "features", "features_beside")


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


def build_meters(config: MetricsConfig, pseudo_depth: str, device: torch.device) -> Networks:
    """What measures; a missing file raises FileNotFoundError that names the command to run."""
    found = {name: build() for name, build in _builders(config, device).items()}
    reference = build_reference(config, pseudo_depth, device)
    return Networks(
        found["lpips"],
        found.get("identity"),
        found.get("identity_independent"),
        found["features"],
        found.get("features_beside"),
        reference,
        config.true_depth,
    )


def _builders(config: MetricsConfig, device: torch.device) -> dict[str, Callable[[], Any]]:
    """What makes each of the networks that are wanted."""
    wanted: dict[str, Callable[[], Any]] = {
        "lpips": lambda: LPIPS(config.lpips, config.lpips_path or None).to(device),
        "features": lambda: build_features(DistributionConfig(config.features, config.features_path), device),
    }
    beside, identity = DistributionConfig(config.features_beside, config.features_beside_path), config.identity
    independent, path = config.identity_independent, config.identity_independent_path
    if identity != "none":
        wanted["identity"] = lambda: build_identity(identity, config.identity_path, device)
    if independent != "none":
        wanted["identity_independent"] = lambda: build_identity(independent, path, device)
    if config.features_beside != "none":
        wanted["features_beside"] = lambda: build_features(beside, device)
    return wanted


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
    hashes: dict[str, str] = {}
    for name in NETWORKS:
        hashes |= _network_hash(name, getattr(networks, name))
    folder = str(networks.reference.path) if isinstance(networks.reference, DepthFolder) else ""
    return config.chosen | hashes | _depth_hash(config, folder)


def present_hashes(config: MetricsConfig, pseudo_depth: str, device: torch.device) -> dict[str, str]:
    """The hashes of `networks_settings`, of those networks and depth maps alone whose files are there."""
    hashes: dict[str, str] = {}
    for name, build in _builders(config, device).items():
        try:
            hashes |= _network_hash(name, build())
        except FileNotFoundError:  # what was measured with it is kept
            continue
    folder = pseudo_depth if config.geometry == "folder" and Path(pseudo_depth).is_dir() else ""
    return hashes | _depth_hash(config, folder)


def _network_hash(name: str, function: Any) -> dict[str, str]:
    module = function if isinstance(function, nn.Module) else getattr(function, "__self__", None)
    return {f"{name}_sha256": module_hash(module)} if isinstance(module, nn.Module) else {}


def _depth_hash(config: MetricsConfig, folder: str) -> dict[str, str]:
    if folder:
        return {"pseudo_depth_sha256": folder_hash(Path(folder))}
    if config.geometry == "mini":
        return {"pseudo_depth_sha256": module_hash(MiniPerception(config.geometry_path or None))}
    return {}
