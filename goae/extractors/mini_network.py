"""The trainable network behind the mini world's perception: one small CNN with all outputs."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RESOLUTION = 64
NUM_PARTS = 11  # background is 0
MEAN_DEPTH = 2.9  # scene units, middle of what is seen; predictions are relative to it


@dataclass(frozen=True)
class MiniNetworkConfig:
    """Widths of the network."""

    width: int = 24  # channels at 32², doubled at 16² and again at 8²
    blocks: int = 2  # residual blocks at 16² and at 8²
    embedding_dim: int = 64
    feature_dim: int = 64
    num_factors: int = 0  # regressed from the features: factors of the head
    num_attributes: int = 0  # likewise: standardised attributes

    def __post_init__(self) -> None:
        if self.feature_dim > 64:
            raise ValueError(f"feature_dim is {self.feature_dim}; Fréchet distances of small sets need at most 64")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class MiniOutputs(NamedTuple):
    """All outputs for (B, 3, 64, 64) images.

    embedding: (B, E), not normalised; features: (B, D); parts: (B, 11, 64, 64) logits; depth: (B, 1, 64, 64) along the
    ray, scene units; factors: (B, F) standardised; angles: (B, 2) yaw and pitch in radians; attributes: (B, A).
    """

    embedding: Tensor
    features: Tensor
    parts: Tensor
    depth: Tensor
    factors: Tensor
    angles: Tensor
    attributes: Tensor


class MiniNetwork(nn.Module):
    """Encoder 64² -> 8², a decoder with skips for parts and depth, linear read-outs for the rest."""

    def __init__(self, config: MiniNetworkConfig) -> None:
        super().__init__()
        w = config.width
        self.config = config
        self.stem = nn.Sequential(_conv(3, w, 5, 2), _Residual(w))
        self.middle = nn.Sequential(_conv(w, 2 * w, 3, 2), *(_Residual(2 * w) for _ in range(config.blocks)))
        self.deep = nn.Sequential(_conv(2 * w, 4 * w, 3, 2), *(_Residual(4 * w) for _ in range(config.blocks)))
        self.up_middle, self.up_stem = _conv(4 * w, 2 * w, 3), _conv(2 * w, w, 3)
        self.dense = nn.Conv2d(2 * w, 4 * (NUM_PARTS + 1), 3, padding=1)  # a 2x2 cell per pixel of 32²
        self.features = nn.Sequential(_conv(4 * w, 2 * w, 1), nn.Flatten(), nn.Linear(128 * w, config.feature_dim))
        self.embedding = nn.Sequential(_conv(4 * w, 2 * w, 1), nn.Flatten(), nn.Linear(128 * w, config.embedding_dim))
        self.normalise = nn.BatchNorm1d(config.embedding_dim)
        self.readout = nn.Linear(config.feature_dim, config.num_factors + 2 + config.num_attributes)

    def trunk(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, 64, 64) in [-1, 1] -> maps at 32², 16², 8²."""
        fine = self.stem(image)
        middle = self.middle(fine)
        return fine, middle, self.deep(middle)

    def maps(self, fine: Tensor, middle: Tensor, deep: Tensor) -> tuple[Tensor, Tensor]:
        """Part logits (B, 11, 64, 64) and depth (B, 1, 64, 64)."""
        up = _twice(self.up_middle(deep)) + middle
        up = torch.cat([_twice(self.up_stem(up)), fine], 1)
        out = F.pixel_shuffle(self.dense(up), 2)
        return out[:, :NUM_PARTS], MEAN_DEPTH + out[:, NUM_PARTS:]

    def embed(self, deep: Tensor) -> Tensor:
        """Identity embedding (B, E), not normalised."""
        return self.normalise(self.embedding(deep))

    def forward(self, image: Tensor) -> MiniOutputs:
        """Everything at once, for training."""
        fine, middle, deep = self.trunk(image)
        features = self.features(deep)
        sizes = [self.config.num_factors, 2, self.config.num_attributes]
        return MiniOutputs(
            self.embed(deep), features, *self.maps(fine, middle, deep), *self.readout(features).split(sizes, 1)
        )


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels, 3)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))
