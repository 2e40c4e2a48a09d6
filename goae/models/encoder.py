"""Geometry-aware encoder: image -> ws (paper, Sec. 4.1, Fig. 3 and Eq. 11).

ws = w_avg + w_0 + (0, coarse, mid, fine): a base code for all rows, and one cross-attention per level for what the rows
of that level add to it. The encoder returns ws without w_avg; the caller adds it from the generator in hand.

Where the paper is silent the released weights decide: w_0 comes from the backbone's output and the queries from the
input of its last stage; keys and values of a level receive those of the coarser level through an MLP over token
positions, which ties the encoder to one image size; and training starts with a stage of the base code alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from goae.models.attention import CrossAttention
from goae.models.latent_inverter import LatentEncoder
from goae.models.swin import Pyramid, SwinConfig, SwinPyramid

LAST_STAGE = 3  # of progressive training: 0 base, 1 coarse, 2 mid, 3 fine


@dataclass
class EncoderConfig:
    """Sizes of the encoder; the defaults are those of the released face encoder."""

    backbone: SwinConfig = field(default_factory=SwinConfig)
    attention_heads: int = 4  # of each cross-attention; its width is w_dim
    feedforward_dim: int = 1024  # hidden width behind each cross-attention
    dropout: float = 0.1  # inside the cross-attentions; training mode only
    mixer_ratio: float = 2.0  # hidden width of the MLPs over positions, over the tokens of the coarser level

    def __post_init__(self) -> None:
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"encoder.dropout={self.dropout}: expected a probability in [0, 1)")
        if self.attention_heads < 1 or self.feedforward_dim < 1 or self.mixer_ratio <= 0:
            raise ValueError(
                "encoder.attention_heads, encoder.feedforward_dim and encoder.mixer_ratio must be positive, got "
                f"{self.attention_heads}, {self.feedforward_dim}, {self.mixer_ratio}"
            )


class RowGroups(NamedTuple):
    """How many rows of ws each level writes, after row 0, which is the base code alone."""

    coarse: int
    mid: int
    fine: int


def row_groups(num_ws: int) -> RowGroups:
    """Rows 1-3 are coarse, 4-6 mid, all others fine: 1 + 3 + 3 + 7 = 14 (paper, Eq. 11, its "3~6" read as 4~6).

    Raises: ValueError if no row is left for the fine level.
    """
    if num_ws < 8:
        raise ValueError(f"the encoder needs a generator with at least 8 rows (1 + 3 + 3 + 1), got num_ws={num_ws}")
    return RowGroups(3, 3, num_ws - 7)


def active_rows(stage: int, num_ws: int) -> slice:
    """The leading rows of ws that are codes of their own at `stage`, row 0 included; the others repeat row 0."""
    return slice(0, 1 + sum(row_groups(num_ws)[:stage]))


def stage_at(step: int, thresholds: Sequence[int]) -> int:
    """Stage of progressive training at `step`: 0 base, 1 coarse, 2 mid, 3 fine (paper, Sec. 4.1).

    For thresholds (a, b, c): 0 below a, 1 below b, 2 up to and *including* c, 3 beyond it, as released.
    Raises: ValueError unless there are three thresholds in rising order.
    """
    if len(thresholds) != LAST_STAGE or list(thresholds) != sorted(thresholds):
        raise ValueError(
            f"expected {LAST_STAGE} thresholds of progressive training in rising order, got {list(thresholds)}"
        )
    first, second, third = thresholds
    if step < first:
        return 0
    if step < second:
        return 1
    return 2 if step <= third else 3


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two linear layers, LeakyReLU (slope 0.01) between them."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.LeakyReLU(), nn.Linear(hidden, outputs))


def _activated(*sizes: int) -> nn.Sequential:
    """Linear layers of the given sizes, LeakyReLU (slope 0.01) after every one, also the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.LeakyReLU()]
    return nn.Sequential(*layers)


def _tokens(x: Tensor, spatial: nn.Module, channel: nn.Module) -> Tensor:
    """t = Chan(Spat(X)^T + max_pos(X)^T): (B, C, N) features -> (B, n, w_dim) tokens."""
    return channel((spatial(x) + x.amax(dim=-1, keepdim=True)).transpose(1, 2))


def _mix(keys: Tensor, spatial: nn.Module) -> Tensor:
    """(B, N, w_dim) -> (B, 4 N, w_dim) by an MLP over positions."""
    return spatial(keys.transpose(1, 2)).transpose(1, 2)


class Encoder(LatentEncoder):
    """Image -> offsets of ws from w_avg. Sub-modules carry the names of the released weights.

    Args:
        config: sizes.
        num_ws, w_dim: rows and width of the generator's ws.
    Raises: ValueError if w_dim is no multiple of the heads or num_ws is too small.
    """

    last_stage = LAST_STAGE

    def __init__(self, config: EncoderConfig, num_ws: int, w_dim: int) -> None:
        super().__init__()
        if w_dim % config.attention_heads:
            raise ValueError(f"encoder.attention_heads={config.attention_heads} must divide w_dim={w_dim}")
        self.config, self.num_ws, self.w_dim = config, num_ws, w_dim
        self.rows = row_groups(num_ws)
        self.swin_model = SwinPyramid(config.backbone)
        self._add_token_heads()
        self._add_key_mappers()
        self.cross_att_coarse = self._cross_attention()
        self.cross_att_mid = self._cross_attention()
        self.cross_att_fine = self._cross_attention()

    @property
    def image_resolution(self) -> int:
        """Side of the image that the backbone takes."""
        return self.config.backbone.image_resolution

    def active_rows(self, stage: int) -> int:
        """1 + 3 + 3 + the rest, level by level."""
        return active_rows(stage, self.num_ws).stop

    def offsets(self, image: Tensor, stage: int) -> Tensor:
        """The first of what `forward` returns."""
        return self(image, stage=stage)[0]

    def _add_token_heads(self) -> None:
        """Base code and the queries of each level from the last stage's features."""
        channels, positions = self.config.backbone.channels[-1], self.config.backbone.grids[-1] ** 2
        self.mapper_base_spatial = _mlp(positions, positions, 1)
        self.mapper_base_channel = _mlp(channels, channels, self.w_dim)
        self.mapper_query_spatial_coarse = _mlp(positions, positions, self.rows.coarse)
        self.mapper_query_channel_coarse = _mlp(channels, channels, self.w_dim)
        self.mapper_query_spatial_mid = _mlp(positions, positions, self.rows.mid)
        self.mapper_query_channel_mid = _mlp(channels, channels, self.w_dim)
        self.mapper_query_spatial_fine = _mlp(positions, positions, self.rows.fine)
        self.mapper_query_channel_fine = _mlp(channels, channels, self.w_dim)

    def _add_key_mappers(self) -> None:
        """Keys and values of each level from the features of its stage and the keys of the coarser level."""
        fine, mid, coarse, _ = self.config.backbone.channels
        num_fine, num_mid, num_coarse, _ = (grid**2 for grid in self.config.backbone.grids)
        ratio = self.config.mixer_ratio
        self.mapper_coarse_channel = _activated(coarse, self.w_dim)
        self.mapper_mid_channel = _activated(mid, self.w_dim)
        self.mapper_fine_channel = _activated(fine, 2 * fine, self.w_dim)
        self.mapper_coarse_to_mid_spatial = _activated(num_coarse, round(ratio * num_coarse), num_mid)
        self.mapper_mid_to_fine_spatial = _activated(num_mid, round(ratio * num_mid), num_fine)

    def _cross_attention(self) -> CrossAttention:
        return CrossAttention(
            self.w_dim,
            num_heads=self.config.attention_heads,
            feedforward_dim=self.config.feedforward_dim,
            dropout=self.config.dropout,
        )

    def forward(self, image: Tensor, stage: int = LAST_STAGE) -> tuple[Tensor, Tensor]:
        """Encode an image (paper, Eq. 11 without w_avg).

        Args:
            image: (B, 3, H, W) in [-1, 1] at the backbone's resolution.
            stage: 0 base code only, 1 adds the coarse, 2 the mid, 3 the fine rows; levels beyond it are not computed.
        Returns: offsets from w_avg, and their base code repeated in all rows; both (B, num_ws, w_dim).
        Raises: ValueError for another stage or image shape.
        """
        if not 0 <= stage <= LAST_STAGE:
            raise ValueError(f"stage must be 0 (base), 1 (coarse), 2 (mid) or 3 (fine), got {stage}")
        pyramid = self.swin_model(image)
        base = _tokens(pyramid.base, self.mapper_base_spatial, self.mapper_base_channel)
        base = base.expand(-1, self.num_ws, -1)
        deltas = self._deltas(pyramid, stage)
        if not deltas:
            return base, base
        active = torch.cat(deltas, dim=1)
        return base + F.pad(active, (0, 0, 1, self.num_ws - 1 - active.shape[1])), base

    def _deltas(self, pyramid: Pyramid, stage: int) -> list[Tensor]:
        """What the rows of each active level add to the base code, coarse to fine: (B, n, w_dim) each."""
        deltas = []
        if stage >= 1:
            queries = _tokens(pyramid.query, self.mapper_query_spatial_coarse, self.mapper_query_channel_coarse)
            keys = self.mapper_coarse_channel(pyramid.coarse)
            deltas.append(self.cross_att_coarse(queries, keys))
        if stage >= 2:
            queries = _tokens(pyramid.query, self.mapper_query_spatial_mid, self.mapper_query_channel_mid)
            keys = self.mapper_mid_channel(pyramid.mid) + _mix(keys, self.mapper_coarse_to_mid_spatial)
            deltas.append(self.cross_att_mid(queries, keys))
        if stage >= 3:
            queries = _tokens(pyramid.query, self.mapper_query_spatial_fine, self.mapper_query_channel_fine)
            keys = self.mapper_fine_channel(pyramid.fine) + _mix(keys, self.mapper_mid_to_fine_spatial)
            deltas.append(self.cross_att_fine(queries, keys))
        return deltas
