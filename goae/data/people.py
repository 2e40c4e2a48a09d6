"""Several pictures of each of many procedural people, with all that is known about them, for perception networks."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from eg3d.integrity import load_tensors, save_tensors
from torch import Tensor

from goae.data.cameras import labels_from_angles
from goae.data.head_render import render_heads
from goae.data.heads import COLUMNS, NUM_FACTORS, HeadParams, attributes, factors

CHUNK = 25  # people in a file


@dataclass(frozen=True)
class People:
    """N = people x views pictures.

    image: (N, 3, 64, 64) uint8; depth: (N, 1, 64, 64) float16, along the ray; parts: (N, 1, 64, 64) uint8;
    factors: (N, F) float32 standardised; attributes: (N, A) physical; angles: (N, 2) yaw and pitch, radians;
    person: (N,) int64, counted from 0.
    """

    image: Tensor
    depth: Tensor
    parts: Tensor
    factors: Tensor
    attributes: Tensor
    angles: Tensor
    person: Tensor

    def __len__(self) -> int:
        return len(self.image)


def draw_people(first: int, num: int, views: int, seed: int) -> tuple[HeadParams, Tensor]:
    """People first ... first + num - 1: one identity each, a new expression, style, scene and camera in every view.

    A person depends on (seed, number) alone. Returns: heads of num * views rows, angles (num * views, 2) in radians;
    yaw is uniform in ±65° for half of the views and N(0, 18°) for the others, pitch N(0, 8°).
    """
    rows, angles = [], []
    for person in range(first, first + num):
        rng = torch.Generator().manual_seed((seed << 32) + person)
        latents = torch.randn(views, NUM_FACTORS, generator=rng)
        columns = list(COLUMNS["identity"])
        latents[:, columns] = latents[:1, columns]
        wide = torch.rand(views, generator=rng) < 0.5
        yaw = torch.where(
            wide, 130.0 * torch.rand(views, generator=rng) - 65.0, 18.0 * torch.randn(views, generator=rng)
        )
        pitch = 8.0 * torch.randn(views, generator=rng)
        rows.append(latents)
        angles.append(torch.stack([yaw.clamp(-75.0, 75.0), pitch.clamp(-24.0, 24.0)], 1) * (math.pi / 180.0))
    return HeadParams(torch.cat(rows)), torch.cat(angles)


def render_people(first: int, num: int, views: int, seed: int) -> People:
    """Render what `draw_people` describes, at 64²."""
    heads, angles = draw_people(first, num, views, seed)
    images = render_heads(heads, labels_from_angles(angles[:, 0], angles[:, 1]))
    return People(
        ((images.image + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8),
        images.depth.half(),
        images.parts,
        factors(heads),
        attributes(heads),
        angles,
        torch.arange(first, first + num).repeat_interleave(views),
    )


def drawn_attributes(num: int, views: int, seed: int) -> Tensor:
    """The attributes of people 0 ... num - 1 in all their views, without rendering: (num * views, A)."""
    return attributes(draw_people(0, num, views, seed)[0])


def people_chunk(folder: Path, index: int, views: int, seed: int) -> People:
    """Chunk `index` of `CHUNK` people, from its file in `folder` or rendered and written there."""
    path = folder / f"people-seed{seed}-views{views}-{index:05d}.safetensors"
    if not path.is_file():
        people = render_people(index * CHUNK, CHUNK, views, seed)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        save_tensors(vars(people), temporary)
        temporary.replace(path)
    return People(**load_tensors(path, remedy="Delete it: it is rendered again.")[0])


def join_people(chunks: list[People]) -> People:
    """Put chunks together."""
    names = People.__dataclass_fields__
    return People(**{name: torch.cat([getattr(chunk, name) for chunk in chunks]) for name in names})
