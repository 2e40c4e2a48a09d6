"""Identity by ArcFace IR-SE50, as the paper's identity loss and metric use it (Sec. 4.1).

The images are brought to 256², cropped to rows 35..222 and columns 32..219, averaged to 112², and embedded; similarity
is the cosine of embeddings. Layer names are those of the public checkpoint `model_ir_se50.pth`:

    input_layer.{0 conv, 1 bn, 2 prelu}
    body.N.shortcut_layer.{0 conv, 1 bn}        where the width changes, else the input is subsampled
    body.N.res_layer.{0 bn, 1 conv, 2 prelu, 3 conv, 4 bn, 5.fc1, 5.fc2}          24 units
    output_layer.{0 bn, 3 linear, 4 bn}
"""

from pathlib import Path

import torch
from eg3d.uninitialized import Uninitialized
from torch import Tensor, nn
from torch.nn import functional as F

from goae.extractors.frozen import Frozen, read_state
from goae.states import load_strictly
from goae.weights import locate

STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))  # width, units; the first unit of each halves the resolution


class ArcFace(Frozen):
    """Embeddings of portraits; differentiable in the image.

    Args:
        path: model_ir_se50.pth; None looks into the cache.
    Raises: FileNotFoundError saying how to get the file; ValueError listing what does not fit.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        super().__init__()
        file = locate("arcface", path)
        with Uninitialized():
            self.network = IRSE50()
        load_strictly(self.network, read_state(file), file)
        self.freeze()

    def embed(self, image: Tensor) -> Tensor:
        """Identity of (B, 3, H, W) images in [-1, 1]. Returns: (B, 512) unit vectors."""
        return F.normalize(self.network(crop(image)))


def crop(image: Tensor) -> Tensor:
    """(B, 3, H, W) -> the face at 112², by way of 256²."""
    if image.shape[2] % 256 == 0 and image.shape[3] % 256 == 0:
        image = F.adaptive_avg_pool2d(image, 256)
    elif image.shape[2:] != (256, 256):
        image = F.interpolate(image, (256, 256), mode="bilinear", align_corners=False, antialias=True)
    return F.adaptive_avg_pool2d(image[:, :, 35:223, 32:220], 112)


class IRSE50(nn.Module):
    """Improved residual network of 50 layers with squeeze-and-excitation: (B, 3, 112, 112) -> (B, 512)."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        units, channels = [], 64
        for width, count in STAGES:
            for i in range(count):
                units.append(_Unit(channels, width, 2 if i == 0 else 1))
                channels = width
        self.body = nn.Sequential(*units)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512), nn.Dropout(0.6), nn.Flatten(), nn.Linear(512 * 7 * 7, 512), nn.BatchNorm1d(512)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.output_layer(self.body(self.input_layer(x)))


class _Unit(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if in_channels != channels:
            conv = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(conv, nn.BatchNorm2d(channels))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, channels, 3, 1, 1, bias=False),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            _Excitation(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut_layer(x) + self.res_layer(x)


class _Excitation(nn.Module):
    """Squeeze-and-excitation with a 16-fold bottleneck."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))
