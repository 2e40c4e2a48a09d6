"""Copies in a data set: mirrored images and replicas, which must not stand on both sides of a split.

EG3D's preparation of FFHQ and AFHQ writes every crop and its mirror image, rebalanced FFHQ repeats images up to 16
times, and the zip tool then renames all files. So names tell nothing, and copies are found in two steps:

1. Labels. A copy has the label of its original, or `mirror_label` of it. Images whose labels agree within `LABEL`, one
   way or the other, may be copies. So may `X` and `X_mirror`, wherever the names are left. Other images are not read.
2. Pixels. Different faces can share a label, frontal ones easily do. So images are compared as grey thumbnails of 32²
   means, as they are and mirrored. The tolerance `GREY` admits copies that were resized or saved as JPEG after the
   mirror, which byte equality would miss: measured on crops of photographs, JPEG of quality 30 to 90 and resizing by
   Lanczos change no mean by more than 2 of 255 levels. Pictures of two faces differ by tens of levels somewhere, two
   expressions of one face under one camera by 5 or more (mini world, 64²).

Cost: the labels of 245,862 images take 12 s. A candidate is read and decoded once, in threads, at about 7 ms of a core
for 512² (a full rebalanced FFHQ: 30 minutes of one core, and reading 193 GB), and leaves 1 KB in memory.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import PurePosixPath

import numpy as np
import torch
from eg3d.cameras import mirror_label
from eg3d.limits import read_json
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor

from goae.data.datasets import PosedImages
from goae.data.decoding import decode
from goae.data.sources import Source

log = logging.getLogger(__name__)

LABEL = 1e-4  # labels are often rounded to 4 digits
ROTATION = (1, 2, 6)  # entries of a label that tell roll, yaw and pitch
SIDE = 32  # of a thumbnail
GREY = 2  # of 255 levels, the largest difference between thumbnails of copies
CHUNK = 512  # images that are read between two moves of the progress bar
MIRROR = "_mirror"  # end of the stem of a mirrored copy, where the names are those of the preparation
MODES = ("auto", "labels", "none")
KEPT = "mirrored_copies_in_train"  # key of a manifest

Components = np.ndarray  # (N,) the component's number of each image


@dataclass(frozen=True)
class Copies:
    """The images of a set, grouped with their copies.

    Attributes:
        groups: names that show one image, the original first; sorted by it.
        mirrored: copies that show their original mirrored.
        replicas: copies that show it as it is.
        candidates: number of images that may be copies, or have some, by label or name.
        recognised: how many of them are or have copies by their pixels; by their labels in the mode `labels`.
    """

    groups: Sequence[Sequence[str]]
    mirrored: frozenset[str] = frozenset()
    replicas: frozenset[str] = frozenset()
    candidates: int = 0
    recognised: int = 0

    @property
    def originals(self) -> list[str]:
        """One name of each group, sorted."""
        return [group[0] for group in self.groups]


def find_copies(
    source: Source,
    names: Sequence[str],
    labels: np.ndarray | Tensor,
    *,
    mode: str = "auto",
    progress: bool = True,
) -> Copies:
    """Group images with their mirrored copies and replicas. The original is the one with the lowest stem.

    Args:
        source: where `names` are read, as far as labels or names call for it.
        labels: (N, 25), in the order of `names`.
        mode: `auto`, labels and then pixels; `labels` alone, which reads nothing; `none`, every image stands alone.
        progress: whether to show a progress bar on stderr.
    Raises: ValueError for an image that cannot be read.
    """
    if mode not in MODES:
        raise ValueError(f"copies are found by {', '.join(MODES)}, not by {mode!r}")
    table = torch.as_tensor(labels).double().numpy().reshape(-1, 25)
    if len(table) != len(names):
        raise ValueError(f"{len(names)} names and {len(table)} labels were given; expected one label for each image")
    if mode == "none":
        return Copies([[name] for name in sorted(names)])
    named = _name_pairs(names)
    alike = _components(len(names), np.concatenate([_label_pairs(table), named]))
    chosen = _shared(alike)
    if mode == "labels":
        mirrored = mirror_label(torch.from_numpy(table)).numpy()
        return _copies(names, alike, len(chosen), len(chosen), lambda i, j: _closer(table[i], table[j], mirrored[j]))
    thumbnails = _thumbnails(source, [names[i] for i in chosen], progress)
    pairs = chosen[_pixel_pairs(thumbnails, alike[chosen])]
    recognised = len(_shared(_components(len(names), pairs)))
    rows = {int(i): row for row, i in enumerate(chosen)}

    def is_mirrored(i: int, j: int) -> bool:
        this, other = (thumbnails[rows[k]].astype(int) for k in (i, j))
        return _closer(this, other, other[:, ::-1])

    groups = _components(len(names), np.concatenate([pairs, named]))
    return _copies(names, groups, len(chosen), recognised, is_mirrored)


def count_label_twins(labels: np.ndarray | Tensor) -> int:
    """Count the images whose mirrored label is the label of another image, by the rotations."""
    num = len(labels)
    found = np.zeros(num, dtype=bool)
    for cells in [] if num < 2 else _cells(torch.as_tensor(labels).double().numpy()):
        plain, mirrored = cells[:num], cells[num:]
        others = np.bincount(mirrored, minlength=cells.max() + 1)[plain] - (plain == mirrored)
        found |= others > 0
    return int(found.sum())


def is_named_copy(name: str) -> bool:
    """Check whether EG3D's preparation gives this name to a mirrored copy."""
    return PurePosixPath(name).stem.endswith(MIRROR)


def count_mirrored(images: PosedImages) -> int:
    """Count the mirrored copies in a set: as its manifest tells, else twins by label if these are many."""
    try:
        manifest = read_json(images.source.read("manifest.json"))
    except (KeyError, ValueError):
        manifest = None
    if isinstance(manifest, dict) and isinstance(manifest.get(KEPT), int):
        return int(manifest[KEPT]) if manifest.get("split", "train") == "train" else 0  # other splits are rid of them
    twins = count_label_twins(images.labels)
    return twins // 2 if 10 * twins >= len(images) else 0  # a few twins are chance


def warn_of_mirrored_copies(images: PosedImages) -> None:
    """Say that `data.mirror=true` mirrors images of which the set already holds mirrored copies."""
    if num := count_mirrored(images):
        log.warning(
            "%s: about %d of its %d images are mirrored copies of others, and data.mirror=true mirrors half of all "
            "images once more. That does no harm, but adds nothing: the set shows these faces both ways already, and "
            "data.mirror=false trains on them as they are",
            images.source.path,
            num,
            len(images),
        )


def _cells(table: np.ndarray) -> Iterator[np.ndarray]:
    """Numbers (2N,) of the cells in which N labels and then their mirrored ones lie, in one grid after the other.

    A cell is four tolerances wide. For every axis there is a grid whose borders lie in the middle of the other's cells,
    so labels that agree within the tolerance share a cell of at least one of the eight grids.
    """
    both = np.concatenate([table, mirror_label(torch.from_numpy(table)).numpy()])[:, ROTATION]
    for shift in product((0.0, 0.5), repeat=len(ROTATION)):
        cell = np.floor(both / (4 * LABEL) + shift)
        order = np.lexsort(cell.T)
        starts = (np.diff(cell[order], axis=0) != 0).any(axis=1)
        numbers = np.empty(len(both), dtype=np.int64)
        numbers[order] = np.concatenate([[0], np.cumsum(starts)])
        yield numbers


def _label_pairs(table: np.ndarray) -> np.ndarray:
    """Pairs (E, 2) of images that link all those in one cell."""
    if len(table) < 2:
        return np.empty((0, 2), dtype=np.int64)
    found = []
    for cells in _cells(table):
        order = np.argsort(cells, kind="stable")
        same = np.diff(cells[order]) == 0
        found.append(np.stack([order[:-1], order[1:]], axis=1)[same] % len(table))
    return np.unique(np.concatenate(found), axis=0)


def _name_pairs(names: Sequence[str]) -> np.ndarray:
    """Pairs (E, 2) of `X` and `X_mirror`, of any suffix, in one folder."""
    index = {_stem(name): i for i, name in enumerate(names)}
    pairs = [(index[stem.removesuffix(MIRROR)], i) for stem, i in index.items() if stem.removesuffix(MIRROR) in index]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], dtype=np.int64).reshape(-1, 2)


def _thumbnails(source: Source, names: Sequence[str], progress: bool) -> np.ndarray:
    """Grey block means (N, SIDE, SIDE) uint8."""

    def read(name: str) -> np.ndarray:
        image = decode(source.read(name), f"{name} in {source.path}")
        return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR))

    found = np.empty((len(names), SIDE, SIDE), dtype=np.uint8)
    console = Console(stderr=True)
    starts = range(0, len(names), CHUNK)
    with ThreadPoolExecutor() as pool:
        for start in track(starts, "comparing images", console=console, disable=not (progress and names)):
            chunk = names[start : start + CHUNK]
            found[start : start + len(chunk)] = list(pool.map(read, chunk))
    return found


def _pixel_pairs(thumbnails: np.ndarray, parts: Components) -> np.ndarray:
    """Pairs (E, 2) of thumbnails of one part that agree, as they are or mirrored."""
    flat = thumbnails.reshape(-1, SIDE * SIDE)
    means = flat.mean(axis=1)  # no mirror changes it, and where all pixels agree within GREY, the means do
    order = np.lexsort([means, parts])
    ends = np.flatnonzero(np.diff(parts[order], append=-1)) + 1
    pairs = []
    for a, end in zip(range(len(order)), ends[np.searchsorted(ends, np.arange(len(order)), "right")], strict=True):
        i = order[a]
        near = order[a + 1 : a + 1 + np.searchsorted(means[order[a + 1 : end]], means[i] + GREY, "right")]
        if not len(near):
            continue
        others = flat[near].astype(np.int16)
        as_is = np.abs(others - flat[i]).max(axis=1)
        mirrored = np.abs(others - thumbnails[i, :, ::-1].reshape(-1)).max(axis=1)
        pairs += [(i, j) for j in near[np.minimum(as_is, mirrored) <= GREY]]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _components(num: int, pairs: np.ndarray) -> Components:
    """Connected components of a graph of `num` nodes: each node gets the lowest number of its component."""
    root = np.arange(num)
    while True:
        a, b = root[pairs[:, 0]], root[pairs[:, 1]]
        open_ = a != b
        if not open_.any():
            return root
        a, b = a[open_], b[open_]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while (root != root[root]).any():
            root = root[root]


def _shared(components: Components) -> np.ndarray:
    """Indices of the images that do not stand alone, sorted."""
    return np.flatnonzero(np.bincount(components, minlength=len(components))[components] > 1)


def _copies(
    names: Sequence[str],
    components: Components,
    candidates: int,
    recognised: int,
    is_mirrored: Callable[[int, int], bool],
) -> Copies:
    """Name the groups and their originals, and tell mirrored copies from replicas."""
    groups: dict[int, list[int]] = {}
    for i in sorted(range(len(names)), key=lambda i: (_stem(names[i]), names[i])):
        groups.setdefault(int(components[i]), []).append(i)
    copies = [(i, group[0]) for group in groups.values() for i in group[1:]]
    mirrored = frozenset(names[i] for i, original in copies if is_mirrored(i, original))
    replicas = frozenset(names[i] for i, _ in copies) - mirrored
    named = sorted([names[i] for i in group] for group in groups.values())
    return Copies(named, mirrored, replicas, candidates, recognised)


def _closer(this: np.ndarray, other: np.ndarray, mirrored: np.ndarray) -> bool:
    """Check whether `this` is closer to the mirrored other than to the other."""
    return bool(np.abs(this - mirrored).sum() < np.abs(this - other).sum())


def _stem(name: str) -> str:
    """The name without its suffix, which sorts an original before its copies."""
    return PurePosixPath(name).with_suffix("").as_posix()
