"""pSp-3D and e4e-3D, encoders that the paper rebuilds on EG3D (App. A, Fig. 11 a and b).

An IR-SE trunk gives maps at a quarter, an eighth and a sixteenth of the image's side; coarser ones are added to finer
ones, top down; and each row of ws has a style block of its own on one of the three sums: coarse, middle or fine.

    pSp   ws = w_avg + (s_0, ..., s_13)
    e4e   ws = w_avg + s_0 + (0, s_1, ..., s_13), the deltas unlocked one after the other while training

The paper gives no sizes. They are those of pSp's publication, whose 18 rows lose the four finest: rows 0-2 are coarse,
3-6 middle, 7-13 fine.
"""

import math
from dataclasses import dataclass, field

import torch
from eg3d.nn.layers import FullyConnected
from torch import Tensor, nn
from torch.nn import functional as F

from goae.ir_se import Trunk
from goae.models.latent_inverter import LatentEncoder

GEOMETRY_SEES = ("parts", "both")


@dataclass
class RivalConfig:
    """Sizes and choices of the encoders that GOAE's is compared with; the defaults are pSp's and e4e's for faces."""

    image_resolution: int = 256
    widths: list[int] = field(default_factory=lambda: [64, 128, 256, 512])  # of the trunk's groups; the last: pyramid
    units: list[int] = field(default_factory=lambda: [3, 4, 14, 3])  # residual units per group: IR-SE50
    squeeze: int = 16  # channel reduction inside squeeze-and-excitation
    rows: list[int] = field(default_factory=lambda: [3, 4])  # how many rows are coarse, how many middle
    unlock_start: int = 20_000  # e4e: the step of the first delta
    unlock_every: int = 2_000  # e4e: steps from one delta to the next
    parts: str = "parser"  # IDE-3D: the network of part labels: parser | mini | segmenter
    geometry_rows: int = 7  # IDE-3D: leading rows written by the semantic encoder; 7 rows make F
    geometry_sees: str = "parts"  # IDE-3D: what the semantic encoder gets: parts | both, the image beside them

    def __post_init__(self) -> None:
        if len(self.widths) != 4 or len(self.units) != 4 or min(self.units) < 1:
            raise ValueError(f"rival.widths={self.widths} and rival.units={self.units} must name four groups of units")
        if any(width % self.squeeze for width in self.widths):
            raise ValueError(f"rival.squeeze={self.squeeze} must divide rival.widths={self.widths}")
        if self.image_resolution < 32 or math.log2(self.image_resolution) % 1:
            raise ValueError(f"rival.image_resolution={self.image_resolution}: expected a power of two, 32 or more")
        if len(self.rows) != 2 or min(self.rows) < 1:
            raise ValueError(f"rival.rows={self.rows}: expected how many rows are coarse and how many are middle")
        if self.unlock_start < 0 or self.unlock_every < 1:
            raise ValueError(
                f"rival.unlock_start={self.unlock_start} must not be negative, and rival.unlock_every="
                f"{self.unlock_every} must be positive"
            )
        if self.geometry_sees not in GEOMETRY_SEES:
            raise ValueError(f"rival.geometry_sees={self.geometry_sees!r}: expected one of {', '.join(GEOMETRY_SEES)}")

    def sides(self) -> list[int]:
        """Of the coarse, the middle and the fine map: 16, 32 and 64 at 256."""
        return [self.image_resolution // 16, self.image_resolution // 8, self.image_resolution // 4]

    def level(self, row: int) -> int:
        """Which map a row of ws comes from: 0 coarse, 1 middle, 2 fine."""
        coarse, middle = self.rows
        return 0 if row < coarse else 1 if row < coarse + middle else 2


def unlocked_at(step: int, *, start: int, every: int, num_ws: int) -> int:
    """How many deltas e4e has unlocked at `step`: none before `start`, then one more every so many steps."""
    return 0 if step < start else min(1 + (step - start) // every, num_ws - 1)


class StyleBlock(nn.Module):
    """A map halved to one pixel by convolutions, then an equalised linear layer: (B, C, side, side) -> (B, w_dim)."""

    def __init__(self, channels: int, side: int, w_dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(int(math.log2(side))):
            layers += [nn.Conv2d(channels, channels, 3, 2, 1), nn.LeakyReLU()]
        self.convs = nn.Sequential(*layers)
        self.linear = FullyConnected(channels, w_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Slope 0.01 behind each convolution."""
        return self.linear(self.convs(x).flatten(1))


class StylePyramid(nn.Module):
    """Trunk, top-down sums, and a style block for each of some rows of ws.

    Args:
        in_channels: of the input, 3 for images.
        rows: which rows of ws are written, in order.
    """

    def __init__(self, config: RivalConfig, in_channels: int, rows: range, w_dim: int) -> None:
        super().__init__()
        self.config, self.rows, self.in_channels = config, rows, in_channels
        channels, deepest = config.widths[-1], max(config.level(row) for row in rows)
        self.trunk = Trunk(in_channels, config.widths, config.units, config.squeeze)
        laterals = [nn.Conv2d(width, channels, 1) for width in (config.widths[2], config.widths[1])]
        self.laterals = nn.ModuleList(laterals[:deepest])
        self.styles = nn.ModuleList(StyleBlock(channels, config.sides()[config.level(row)], w_dim) for row in rows)

    def forward(self, x: Tensor, count: int | None = None) -> Tensor:
        """The codes of the first `count` of the rows; None: of all. Maps that they do not need are not computed.

        Args:
            x: (B, in_channels, h, h) at `rival.image_resolution`.
        Returns: (B, count, w_dim).
        Raises: ValueError for another shape.
        """
        side = self.config.image_resolution
        if x.shape[1:] != (self.in_channels, side, side):
            raise ValueError(
                f"expected images of shape (B, {self.in_channels}, {side}, {side}), got {tuple(x.shape)}; see "
                "rival.image_resolution"
            )
        _, fine, middle, coarse = self.trunk(x)
        sums = [coarse]
        levels = [self.config.level(row) for row in self.rows[:count]]
        for lateral, finer in zip(self.laterals, (middle, fine)[: max(levels)], strict=False):
            up = F.interpolate(sums[-1], finer.shape[2:], mode="bilinear", align_corners=True)
            sums.append(up + lateral(finer))
        styles = list(self.styles)[:count]
        return torch.stack([style(sums[level]) for style, level in zip(styles, levels, strict=True)], dim=1)


class WholeEncoder(LatentEncoder):
    """An encoder that writes all rows from the first step on."""

    last_stage = 0

    def __init__(self, config: RivalConfig, num_ws: int, w_dim: int) -> None:
        super().__init__()
        self.config, self.num_ws, self.w_dim = config, num_ws, w_dim

    @property
    def image_resolution(self) -> int:
        """Side of the image that the trunk takes."""
        return self.config.image_resolution

    def active_rows(self, stage: int) -> int:
        """All."""
        return self.num_ws

    def offsets(self, image: Tensor, stage: int = 0) -> Tensor:
        """ws - w_avg."""
        return self(image)


class PSPEncoder(WholeEncoder):
    """pSp-3D: every row a code of its own."""

    def __init__(self, config: RivalConfig, num_ws: int, w_dim: int) -> None:
        super().__init__(config, num_ws, w_dim)
        self.pyramid = StylePyramid(config, 3, range(num_ws), w_dim)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, h, h) -> (B, num_ws, w_dim)."""
        return self.pyramid(image)


class E4EEncoder(LatentEncoder):
    """e4e-3D: row 0 is the base of all rows, the others add a delta to it; stage s has the deltas of rows 1 to s."""

    def __init__(self, config: RivalConfig, num_ws: int, w_dim: int) -> None:
        super().__init__()
        self.config, self.num_ws, self.w_dim, self.last_stage = config, num_ws, w_dim, num_ws - 1
        self.pyramid = StylePyramid(config, 3, range(num_ws), w_dim)

    @property
    def image_resolution(self) -> int:
        """Side of the image that the trunk takes."""
        return self.config.image_resolution

    def active_rows(self, stage: int) -> int:
        """The base and the unlocked deltas."""
        return 1 + stage

    def offsets(self, image: Tensor, stage: int) -> Tensor:
        """ws - w_avg."""
        return self(image, stage)

    def forward(self, image: Tensor, stage: int) -> Tensor:
        """(B, 3, h, h) -> (B, num_ws, w_dim), rows beyond `stage` equal to row 0.

        Raises: ValueError unless 0 <= stage < num_ws.
        """
        if not 0 <= stage < self.num_ws:
            raise ValueError(f"stage must be 0 (base) to {self.last_stage} (all deltas), got {stage}")
        codes = self.pyramid(image, self.active_rows(stage))
        return codes[:, :1] + F.pad(codes[:, 1:], (0, 0, 1, self.num_ws - codes.shape[1]))
