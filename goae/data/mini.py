"""The mini world's data set: which heads stand in which split, and how they are written as EG3D-format zips.

Heads are drawn in chunks, each from a seed of its own (run seed, split, chunk), so neither the number of workers nor
the length of a split changes any picture. Every split has people of its own.
"""

import hashlib
import io
import json
import os
import signal
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from eg3d.limits import read_json
from PIL import Image
from torch import Tensor

from goae.data import heads
from goae.data.cameras import YAWS, multiview_labels, sample_mini_labels
from goae.data.datasets import DEPTH_UNIT
from goae.data.head_render import HeadImages, render_heads
from goae.data.heads import EXPRESSIONS, HeadParams
from goae.data.sources import Source, ZipSource

SPLITS = ("train", "val", "test", "multiview")
VERSION = 1  # to be raised whenever the pictures of a seed change
VIEWS = len(YAWS) * len(EXPRESSIONS)  # pictures of one person in the multi-view split
_CHUNK = 25
_PEOPLE = 10**6  # person numbers of a split start at its number times this


@dataclass(frozen=True)
class SplitConfig:
    """One split of the mini data; `num_images` of `multiview` is a multiple of `VIEWS`."""

    split: str
    num_images: int
    seed: int = 0
    resolution: int = 64
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split {self.split!r} is not one of {', '.join(SPLITS)}")
        if self.num_images < 1 or (self.split == "multiview" and self.num_images % VIEWS):
            raise ValueError(f"{self.split} cannot have {self.num_images} images (multiview: a multiple of {VIEWS})")


class Chunk(NamedTuple):
    """Heads with their cameras (N, 25) and the numbers of person, expression and view (N,) int64, -1 if free."""

    params: HeadParams
    c: Tensor
    person: Tensor
    expression: Tensor
    view: Tensor


def draw_chunk(config: SplitConfig, number: int) -> Chunk:
    """The heads of one chunk: single views of new people, or all views of one person."""
    split = SPLITS.index(config.split)
    seed = np.random.SeedSequence([config.seed, split, number]).generate_state(1)[0]
    generator = torch.Generator().manual_seed(int(seed))
    if config.split == "multiview":
        return _draw_person(generator, split * _PEOPLE + number)
    num = min(_CHUNK, config.num_images - number * _CHUNK)
    params, c = heads.sample_heads(_CHUNK, generator)[:num], sample_mini_labels(_CHUNK, generator)[:num]
    free = torch.full((num,), -1)
    return Chunk(params, c, split * _PEOPLE + number * _CHUNK + torch.arange(num), free, free)


def _draw_person(generator: torch.Generator, person: int) -> Chunk:
    """One person in the studio with every expression, each seen from all yaws at once."""
    someone = heads.in_studio(heads.sample_heads(1, generator))
    faces = torch.cat([heads.with_expression(someone, name).latents for name in EXPRESSIONS])
    expression = torch.arange(len(EXPRESSIONS)).repeat_interleave(len(YAWS))
    view = torch.arange(len(YAWS)).repeat(len(EXPRESSIONS))
    return Chunk(
        HeadParams(faces[expression]), multiview_labels()[view], torch.full((VIEWS,), person), expression, view
    )


def write_split(config: SplitConfig, path: Path, *, workers: int, progress: Callable[[int], None]) -> bool:
    """Render a split into the zip at `path`, which appears when it is complete.

    Args:
        workers: processes that render.
        progress: is told the number of finished images after every chunk.
    Returns: whether it was written; False if a complete one of the same settings was there.
    Raises: ValueError if there is a file of other settings.
    """
    if path.exists():
        _check_existing(config, path)
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            _fill(archive, config, workers, progress)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return True


def read_manifest(path: Path) -> dict[str, object]:
    """Read the manifest inside of a split's zip: its settings and the SHA-256 of its content."""
    where, remedy = f"manifest.json in {path}", "Move it away and run again."
    try:
        found = read_json(ZipSource(path).read("manifest.json"), where, remedy=remedy)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} is no split of the mini data ({error}). {remedy}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{where} holds no settings of a split of the mini data. {remedy}")
    return found


def drawn_split(source: Source) -> dict[str, object] | None:
    """What decides every picture of a split of procedural heads, the fields of `SplitConfig`; None for other data.

    Pictures of the same split may differ by a rounded bit from one processor to another.
    """
    try:
        found = read_json(source.read("manifest.json"))
    except (KeyError, ValueError):  # none, or a file of somebody else's that is no JSON
        return None
    keys = [field.name for field in fields(SplitConfig)]
    ours = isinstance(found, dict) and {*keys, "factors"} <= found.keys() and found["split"] in SPLITS
    return {key: found[key] for key in keys} if ours else None


def _check_existing(config: SplitConfig, path: Path) -> None:
    found = read_manifest(path)
    differing = [f"{k} {found.get(k)} (asked: {v})" for k, v in asdict(config).items() if found.get(k) != v]
    if differing:
        raise ValueError(
            f"{path} was made with other settings: {', '.join(differing)}; delete it, or write to another folder"
        )


def _fill(archive: zipfile.ZipFile, config: SplitConfig, workers: int, progress: Callable[[int], None]) -> None:
    digest, labels, done = hashlib.sha256(), [], 0
    rows: dict[str, list[np.ndarray]] = {}

    def add(name: str, content: bytes) -> None:
        archive.writestr(zipfile.ZipInfo(name), content)  # with a fixed date: equal seeds give equal files
        digest.update(name.encode() + b"\0" + content)

    for number, files in enumerate(_rendered(config, workers)):
        chunk = draw_chunk(config, number)
        for i, (png, maps) in enumerate(files):
            name = f"{(done + i) // 1000:05d}/img{done + i:08d}"
            add(f"{name}.png", png)
            add(f"{name}.npz", maps)
            labels.append([f"{name}.png", [float(f"{x:.8g}") for x in chunk.c[i].tolist()]])
        for key, row in _rows(chunk).items():
            rows.setdefault(key, []).append(row.numpy())
        done += len(files)
        progress(done)
    add("people.npz", _npz({key: np.concatenate(row) for key, row in rows.items()}))
    add("dataset.json", json.dumps({"labels": labels}).encode())
    manifest = asdict(config) | {"sha256": digest.hexdigest(), "attributes": heads.ATTRIBUTES, "factors": heads.FACTORS}
    add("manifest.json", json.dumps(manifest, indent=1).encode())


def _rows(chunk: Chunk) -> dict[str, Tensor]:
    return {
        "factors": heads.factors(chunk.params),
        "identity": heads.identity(chunk.params),
        "attributes": heads.attributes(chunk.params),
        "person": chunk.person,
        "expression": chunk.expression,
        "view": chunk.view,
    }


def _rendered(config: SplitConfig, workers: int) -> Iterator[list[tuple[bytes, bytes]]]:
    """The encoded images and maps of all chunks, in order."""
    count = -(-config.num_images // (VIEWS if config.split == "multiview" else _CHUNK))
    tasks = [(config, number) for number in range(count)]
    if workers == 1:
        yield from map(_encode_chunk, tasks)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # workers inherit it: one process answers
        try:
            chunks = pool.map(_encode_chunk, tasks)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield from chunks


def _one_thread() -> None:
    torch.set_num_threads(1)


def _encode_chunk(task: tuple[SplitConfig, int]) -> list[tuple[bytes, bytes]]:
    config, number = task
    chunk = draw_chunk(config, number)
    views = render_heads(chunk.params, chunk.c, resolution=config.resolution)
    return [_encode(HeadImages(*(x[i] for x in views))) for i in range(len(chunk.c))]


def _encode(view: HeadImages) -> tuple[bytes, bytes]:
    """One image as PNG, and its depth and parts as npz."""
    pixels = ((view.image + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    depth = (view.depth[0] / DEPTH_UNIT).round().numpy().astype(np.uint16)
    return buffer.getvalue(), _npz({"depth": depth, "parts": view.parts[0].numpy()})


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
