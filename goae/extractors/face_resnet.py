"""Identity by the face-recognition ResNet of dlib (CC0), a freely usable stand-in for ArcFace.

The network reads 150x150 chips in which eyes, nose and mouth stand at fixed places (`CHIP`). Pictures must be aligned
to that template: a careless crop moves the descriptor nearly as far as two people differ. With `landmarks` each picture
gets its own similarity transform; without, all get the one that fits EG3D's face crops (`PORTRAIT`), where the face
stands in the middle whatever its yaw. That is close for frontal faces and an approximation for turned ones.
"""

from pathlib import Path

import torch
from eg3d.transfer import send
from eg3d.uninitialized import Uninitialized
from torch import Tensor, nn
from torch.nn import functional as F

from goae.extractors.frozen import Frozen
from goae.states import load_strictly
from goae.weights import locate, read_state

SIZE = 150
MEAN = (122.782, 117.001, 104.298)  # RGB, of pixels in [0, 255]
# Eyes (the one on the left of the picture first), nose tip, corners of the mouth.
CHIP = ((45.0, 38.0), (101.0, 39.0), (73.0, 74.0), (45.0, 89.0), (101.0, 90.0))  # pixels of the chip
PORTRAIT = ((0.367, 0.376), (0.633, 0.376), (0.5, 0.52), (0.392, 0.663), (0.608, 0.663))  # shares of EG3D's face crop
WIDTHS = (32, 32, 32, 64, 64, 64, 64, 128, 128, 128, 256, 256, 256, 256)
SHRINKING = (3, 7, 10, 13)  # blocks that halve the resolution


class FaceResNet(Frozen):
    """Descriptors of aligned faces; differentiable in the image.

    Args:
        path: what `scripts/fetch_weights.py face_resnet` writes; None looks into the cache.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        super().__init__()
        file = locate("face_resnet", path)
        with Uninitialized():
            self.network = FaceResNetwork()
        load_strictly(self.network, read_state(file, "face_resnet"), file)
        self.freeze()

    def embed(self, image: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """Identity of (B, 3, H, W) images in [-1, 1]. Returns: (B, 128) unit vectors."""
        return F.normalize(self.describe(image, landmarks))

    def describe(self, image: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """The network's own descriptor: below a Euclidean distance of 0.6 two faces count as one person.

        Args:
            landmarks: (B, 5, 2) pixels (x, y) in the order of `CHIP`, pixel centres at whole numbers.
        Returns: (B, 128).
        """
        return self.network(align(image, landmarks))


class FaceResNetwork(nn.Module):
    """dlib's architecture: a 7x7 stem, 14 residual blocks without batch statistics, average, 256 -> 128."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Unit(3, WIDTHS[0], 7, 2, 0)
        ins = (WIDTHS[0], *WIDTHS[:-1])
        self.blocks = nn.ModuleList(
            _Block(i, o, n in SHRINKING) for n, (i, o) in enumerate(zip(ins, WIDTHS, strict=True))
        )
        self.embedding = nn.Linear(WIDTHS[-1], 128, bias=False)
        self.register_buffer("mean", torch.tensor(MEAN).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, chip: Tensor) -> Tensor:
        """Aligned chips (B, 3, 150, 150) in [-1, 1] -> (B, 128)."""
        x = ((chip + 1.0) * 127.5 - self.mean) / 256.0
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2)
        for block in self.blocks:
            x = block(x)
        return self.embedding(x.mean((2, 3)))


class _Unit(nn.Module):
    """A convolution, then a scale and a shift per channel (batch normalisation with frozen statistics)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding)
        self.scale, self.shift = nn.Parameter(torch.ones(out_channels)), nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.scale[:, None, None] + self.shift[:, None, None]


class _Block(nn.Module):
    """Residual block; one that shrinks adds the averaged input, and the smaller summand is padded with zeros."""

    def __init__(self, in_channels: int, out_channels: int, shrink: bool) -> None:
        super().__init__()
        self.shrink = shrink
        self.unit1 = _Unit(in_channels, out_channels, 3, 2 if shrink else 1, 0 if shrink else 1)
        self.unit2 = _Unit(out_channels, out_channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.unit2(F.relu(self.unit1(x)))
        if self.shrink:
            x = F.avg_pool2d(x, 2)
        return F.relu(_padded(x, y) + _padded(y, x))


def _padded(x: Tensor, other: Tensor) -> Tensor:
    """Zeros behind the last channel, row and column of x where `other` is larger."""
    missing = [max(0, other.shape[d] - x.shape[d]) for d in (3, 2, 1)]
    return F.pad(x, (0, missing[0], 0, missing[1], 0, missing[2]))


def align(image: Tensor, landmarks: Tensor | None = None) -> Tensor:
    """Bring faces onto the template. image: (B, 3, H, W); landmarks as in `describe`. Returns: (B, 3, 150, 150).

    How far an image is shrunk decides what a GPU is asked for, so all but the lookup is found on the host.
    """
    height, width = image.shape[2:]
    size = torch.tensor([width, height], dtype=image.dtype)
    if landmarks is None:
        landmarks = (torch.tensor(PORTRAIT, dtype=image.dtype) * size - 0.5).expand(len(image), -1, -1)
    if landmarks.shape != (len(image), len(CHIP), 2):
        raise ValueError(f"landmarks have shape {tuple(landmarks.shape)}; expected ({len(image)}, {len(CHIP)}, 2)")
    chip = torch.tensor(CHIP, dtype=image.dtype).expand_as(landmarks)
    matrix = similarity(chip, landmarks.to(chip))
    scale = float(matrix[:, :, 0].norm(dim=1).mean())  # image pixels per chip pixel
    steps = torch.arange(SIZE, dtype=image.dtype, device=image.device)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    matrix, size = send(matrix, image), send(size, image)
    points = torch.stack([x, y, torch.ones_like(x)], -1) @ matrix.transpose(1, 2)[:, None]  # (B, 150, 150, 2)
    grid = (2.0 * points + 1.0) / size - 1.0
    if scale > 1.0:  # shrink first, so that no pixel is skipped
        smaller = (max(1, round(height / scale)), max(1, round(width / scale)))
        image = F.interpolate(image, smaller, mode="bilinear", align_corners=False, antialias=True)
    return F.grid_sample(image, grid, padding_mode="border", align_corners=False)


def similarity(source: Tensor, target: Tensor) -> Tensor:
    """Least-squares rotation, scale and shift that take points (B, N, 2) to others. Returns: (B, 2, 3)."""
    s0, t0 = source.mean(1, keepdim=True), target.mean(1, keepdim=True)
    s, t = source - s0, target - t0
    power = s.square().sum((1, 2))
    a = (s * t).sum((1, 2)) / power
    b = (s[..., 0] * t[..., 1] - s[..., 1] * t[..., 0]).sum(1) / power
    linear = torch.stack([torch.stack([a, -b], -1), torch.stack([b, a], -1)], 1)
    return torch.cat([linear, (t0 - s0 @ linear.transpose(1, 2)).transpose(1, 2)], 2)
