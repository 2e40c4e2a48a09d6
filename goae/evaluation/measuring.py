"""Everything that is measured of a shown image: metrics against its target, geometry, features for set distances."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from goae.evaluation.distribution import Features, as_stored
from goae.evaluation.geometry import SIGNS, Reference, along_axis, depth_errors, geometry_error
from goae.evaluation.image_metrics import Distance, Embed, identity_similarity, image_metrics
from goae.evaluation.runner import View
from goae.losses.reconstruction import pooled
from goae.paths import path


@dataclass
class MetricsConfig:
    """The networks behind the numbers; an empty path means the shipped or cached file."""

    lpips: str = "alex"  # alex | vgg
    lpips_path: str = path()
    identity: str = "arcface"  # arcface | face_resnet | facenet | mini: the one that the training loss uses; or none
    identity_path: str = path()
    identity_independent: str = "facenet"  # the same choices, or none: one that no loss uses
    identity_independent_path: str = path()
    geometry: str = "folder"  # true (mini world) | folder | mini (network) | none: where the pseudo-depth comes from
    geometry_path: str = path()  # geometry=mini: the network's weights
    geometry_sign: str = "distance"  # geometry=folder: maps hold distance along the ray, z along the axis or height, -z
    true_depth: bool = False  # whether the data set has true depth to measure the error along the ray against
    grid: int = 128  # pixels along each axis at which depths are compared
    features: str = "inception"  # inception | mini | vgg: what FID and KID are measured on
    features_path: str = path()
    features_beside: str = "none"  # the same choices, or none: a second network, whose distances stand beside
    features_beside_path: str = path()

    def __post_init__(self) -> None:
        if self.geometry_sign not in SIGNS:
            raise ValueError(f"metrics.geometry_sign is {self.geometry_sign!r}; expected one of {', '.join(SIGNS)}")
        if self.grid < 2:
            raise ValueError(f"metrics.grid is {self.grid}; expected at least 2")

    @property
    def chosen(self) -> dict[str, Any]:
        """The choices without their paths."""
        return {name: value for name, value in asdict(self).items() if not name.endswith("_path")}


METRICS = {"metrics": MetricsConfig().chosen}  # what is meant where stored settings lack one of them


@dataclass(frozen=True)
class Networks:
    """What measures; None where the configuration says `none`."""

    lpips: Distance
    identity: Embed | None
    identity_independent: Embed | None
    features: Features
    features_beside: Features | None
    reference: Reference | None  # pseudo-depth of the geometry error
    true_depth: bool  # whether samples have the extras depth and parts to measure the error along the ray against


class Measures:
    """Numbers of shown images against their targets, both brought to `resolution` by averaging."""

    def __init__(self, networks: Networks, *, resolution: int, grid: int) -> None:
        self.networks, self.resolution, self.grid = networks, resolution, grid

    @property
    def columns(self) -> list[str]:
        """Names of the numbers, in order."""
        optional = {
            "id": self.networks.identity,
            "id_independent": self.networks.identity_independent,
            "geo": self.networks.reference,
            "depth": self.networks.true_depth or None,
        }
        found = ["mse", "psnr", "ssim", "ms_ssim", "lpips"]
        return found + [name for name, given in optional.items() if given is not None]

    def __call__(self, view: View, target: Mapping[str, Any]) -> dict[str, Tensor]:
        """All `columns` of a batch, (B,) each; NaN where something could not be measured.

        Args:
            view: what the method shows: image and depth along the ray.
            target: a batch of the data set: image (B, 3, H, H), c (B, 25), name, and the extras that references
                read.
        """
        shown, image = pooled(view.image.clamp(-1, 1), self.resolution), pooled(target["image"], self.resolution)
        networks = self.networks
        values = image_metrics(shown, image, lpips=networks.lpips, embed=networks.identity)
        if networks.identity_independent is not None:
            values["id_independent"] = identity_similarity(shown, image, networks.identity_independent)
        if networks.reference is not None:
            reference = networks.reference(target)
            depth = along_axis(view.image_depth, target["c"]) if reference.axial else view.image_depth
            values["geo"] = geometry_error(depth, reference, self.grid)
        if networks.true_depth:
            values["depth"] = depth_errors(view.image_depth, target["depth"], target["parts"])
        return {name: values[name] for name in self.columns}

    def features(self, image: Tensor) -> Tensor:
        """(B, D), of both networks, of images as they would be stored: in 8 bits, then averaged to `resolution`."""
        stored = pooled(as_stored(image), self.resolution)
        return torch.cat([network(stored) for network in self._feature_networks], 1)

    def widths(self, device: torch.device) -> list[int]:
        """How many features each network has; their sum is D."""
        image = torch.zeros(1, 3, self.resolution, self.resolution, device=device)
        return [int(network(image).shape[1]) for network in self._feature_networks]

    @property
    def _feature_networks(self) -> list[Features]:
        return [network for network in (self.networks.features, self.networks.features_beside) if network is not None]
