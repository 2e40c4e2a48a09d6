"""The camera of a photo: a small network from image to yaw and pitch on the generator's sphere.

Not in the paper, whose data bring labels. Pose Opt. starts from its estimate (paper, App. B), and so does whoever has a
photo without a label:

    regressor = load_regressor("goae/assets/mini/camera.safetensors")
    c = estimate_camera(Image.open("head.png"), regressor)
    inversion = inverter.invert(Image.open("head.png"), c)

The photo is cropped as the generator's training images are. `relative_camera` in `sphere.py` tells from where to render
if what is wanted is known relative to the photo's true camera.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from goae.camera.sphere import SphereConfig, label_from_angles
from goae.models.storage import read_model, restore, save_model
from goae.photos import Photo, photos
from goae.states import load_strictly

GROUP = 8  # channels that are normalised together


@dataclass
class RegressorConfig:
    """Sizes of the network, and the sphere its cameras stand on."""

    resolution: int = 64  # of the images it looks at; others are resized
    channels: list[int] = field(default_factory=lambda: [16, 32, 48, 48])  # each stage halves the resolution
    hidden: int = 64  # width before the angles
    roll: bool = False  # whether roll is estimated too; else it is 0, as with aligned crops
    sphere: SphereConfig = field(default_factory=SphereConfig)

    def __post_init__(self) -> None:
        if not self.channels or any(width < 1 or width % GROUP for width in self.channels):
            raise ValueError(f"regressor.channels is {self.channels}; expected multiples of {GROUP}")
        if self.hidden < 1 or self.resolution < 1 or self.resolution % 2 ** len(self.channels):
            raise ValueError(
                f"regressor.resolution {self.resolution}, hidden {self.hidden}: expected hidden > 0 and a multiple of "
                f"{2 ** len(self.channels)}, which {len(self.channels)} stages halve"
            )


class CameraRegressor(nn.Module):
    """Convolutions with residual blocks, one linear read-out; normalised by groups, so that batches do not matter."""

    def __init__(self, config: RegressorConfig) -> None:
        super().__init__()
        self.config = config
        widths = [3, *config.channels]
        stages = [_Stage(a, b, 5 if a == 3 else 3) for a, b in pairwise(widths)]
        self.trunk = nn.Sequential(*stages)
        last, side = config.channels[-1], config.resolution // 2 ** len(config.channels)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(last * side * side, config.hidden), nn.LeakyReLU(0.2), nn.Linear(config.hidden, 3)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, 3, R, R) in [-1, 1], R the configured resolution -> yaw, pitch, roll (B, 3) in radians."""
        angles: Tensor = self.head(self.trunk(image))
        return angles if self.config.roll else torch.cat([angles[:, :2], torch.zeros_like(angles[:, 2:])], 1)

    def estimate(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, H) in [-1, 1] of any size -> labels (B, 25).

        Raises: ValueError if they are no such images.
        """
        size = self.config.resolution
        small = photos(image, size, size)[1].to(next(self.parameters()).device)
        return label_from_angles(self(small), self.config.sphere)


@torch.no_grad()
def estimate_camera(image: Photo, regressor: CameraRegressor) -> Tensor:
    """The labels (B, 25) of photos as `Inverter.invert` takes them: tensors, uint8 arrays or PIL images.

    Raises: ValueError naming what is wrong with an image.
    """
    size = regressor.config.resolution
    small = photos(image, size, size)[1]
    return regressor.estimate(small)


def save_regressor(regressor: CameraRegressor, path: str | Path) -> None:
    """Write a .safetensors file and its .json."""
    save_model(regressor, path)


def load_regressor(path: str | Path, device: torch.device | str = "cpu") -> CameraRegressor:
    """Read what `scripts/train_camera.py` wrote, in evaluation mode.

    Raises: FileNotFoundError; ValueError if the file does not fit.
    """
    stored = read_model(path)
    if stored.name != CameraRegressor.__name__:
        raise ValueError(f"{path} holds a {stored.name}; expected a {CameraRegressor.__name__}")
    regressor = CameraRegressor(restore(RegressorConfig, stored.config, "regressor."))
    load_strictly(regressor, stored.state, path)
    return regressor.to(device).eval().requires_grad_(False)


class _Stage(nn.Module):
    """Half the resolution, then a residual block."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.down = _conv(in_channels, out_channels, kernel, 2)
        self.first, self.second = _conv(out_channels, out_channels, 3, 1), _conv(out_channels, out_channels, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = leaky_relu(self.down(x))
        return leaky_relu(x + self.second(leaky_relu(self.first(x))))


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(out_channels // GROUP, out_channels))
