"""The paper's data sets out of downloaded ones: which images, drawn once by a seed, with a manifest to publish.

What is read is a folder or zip after EG3D's preprocessing: crops, and `dataset.json` with their cameras. What is
written is a zip that `PosedImages` reads, and a manifest beside it: seed, counts, and every file with its origin and
SHA-256. A manifest that is there already must come out the same, apart from counts that it lacks. Images without a
label, on which pose estimation failed, are not drawn; the counts tell how many could be.
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from eg3d.limits import read_json

from goae.data.copies import KEPT, Copies
from goae.data.datasets import PosedImages
from goae.data.decoding import decode, find_faults, raise_faults, set_fault
from goae.data.labels import camera_table, read_posed
from goae.data.sources import ZipSource, open_source

TEST = 2  # CelebA's partition file: 0 training, 1 validation, 2 test


@dataclass(frozen=True)
class Entry:
    """An image of the new set: its name there and in the download, and numbers for people.npz."""

    name: str
    source: str
    numbers: Mapping[str, int]


class Download:
    """Crops and labels as EG3D's preprocessing leaves them."""

    def __init__(self, path: str | Path) -> None:
        """Raises: FileNotFoundError or ValueError naming what was expected."""
        self.source = open_source(path)
        labels = read_posed(self.source, complete=False)
        self.names = list(labels)
        self.labels = {name: label for name, label in labels.items() if label is not None}
        self.where = f"dataset.json in {self.source.path}"

    @property
    def posed(self) -> list[str]:
        """Names of images with a label, sorted."""
        return sorted(self.labels)


def draw(candidates: Sequence[str], num: int, seed: int, what: str) -> list[str]:
    """`num` of the candidates, which depend on the seed and the sorted candidates alone; sorted.

    Raises: ValueError if there are too few.
    """
    ordered = sorted(set(candidates))
    if len(ordered) < num:
        raise ValueError(f"{num} {what} were asked for, but {len(ordered)} are there with a camera label")
    order = np.random.RandomState(seed).permutation(len(ordered))  # a stream that NumPy keeps
    return sorted(ordered[i] for i in order[:num])


def celebahq_test(mapping: str, partition: str) -> dict[int, str]:
    """CelebA-HQ's test images: number -> file in CelebA, for those whose original is in CelebA's test partition.

    Args:
        mapping: text of CelebA-HQ-to-CelebA-mapping.txt: a header, then `idx orig_idx orig_file`.
        partition: text of list_eval_partition.txt: `file partition`, 2 being the test.
    Raises: ValueError naming the file that reads otherwise.
    """
    parts = {row[0]: int(row[1]) for row in _columns(partition, 2, "the partition (list_eval_partition.txt)")}
    rows = _columns(mapping, 3, "the mapping (CelebA-HQ-to-CelebA-mapping.txt)", header=True)
    unknown = [row[2] for row in rows if row[2] not in parts]
    if unknown:
        raise ValueError(f"the partition lacks {unknown[0]} and {len(unknown) - 1} more files of the mapping")
    found = {int(row[0]): row[2] for row in rows if parts[row[2]] == TEST}
    if not found:
        raise ValueError("no image of the mapping is in the test partition (2); are both files complete?")
    return found


def celebahq_entries(
    posed: Sequence[str], wanted: Mapping[str, int | None], *, num: int, seed: int
) -> tuple[list[Entry], dict[str, int]]:
    """Images whose stem is `wanted`, with the person it names if any; and counts for the manifest.

    Raises: ValueError if there are too few, or two of one stem.
    """
    by_stem: dict[str, str] = {}
    for name in posed:
        stem = PurePosixPath(name).stem
        if stem in wanted and by_stem.setdefault(stem, name) != name:
            raise ValueError(
                f"{by_stem[stem]} and {name} are two different images of one name, and the test list does not tell "
                "which is meant; leave one out of the folder or zip"
            )
    candidates = [stem for stem in wanted if stem in by_stem]
    entries = []
    for stem in draw(candidates, num, seed, "images of the test list"):
        source, person = by_stem[stem], wanted[stem]
        numbers = {} if person is None else {"person": person}
        entries.append(Entry(f"{stem}{PurePosixPath(source).suffix}", source, numbers))
    return entries, {"in_list": len(wanted), "with_label": len(candidates)}


def mead_entries(
    posed: Sequence[str], *, pattern: str, views: Sequence[str], persons: int, frames: int, seed: int
) -> tuple[list[Entry], dict[str, int]]:
    """`frames` moments of each of `persons`, seen from all `views` at once; and counts for the manifest.

    Args:
        pattern: regular expression of image names with the groups person, view and frame; what stands for `frame` has
            to be equal in all views of a moment.
        views: what the pattern finds for the views, in the order of the cameras' yaw.
    Raises: ValueError if too few persons have enough frames, saying what was found.
    """
    moments: dict[str, dict[str, dict[str, str]]] = {}
    unmatched = 0
    for name in posed:
        match = re.fullmatch(pattern, name)
        if match is None or match["view"] not in views:
            unmatched += 1
            continue
        moments.setdefault(match["person"], {}).setdefault(match["frame"], {})[match["view"]] = name
    complete = {p: [f for f, seen in fs.items() if len(seen) == len(views)] for p, fs in moments.items()}
    enough = [p for p, fs in complete.items() if len(fs) >= frames]
    if len(enough) < persons:
        raise ValueError(
            f"{persons} persons with {frames} frames seen from {', '.join(views)} were asked for, but {len(enough)} of "
            f"{len(moments)} persons have them ({unmatched} of {len(posed)} posed images do not fit the pattern "
            f"{pattern!r} or are another view); check --pattern and --views"
        )
    entries = []
    for number, person in enumerate(draw(enough, persons, seed, "persons")):
        for k, frame in enumerate(draw(complete[person], frames, seed + 1 + number, f"frames of {person}")):
            for v, view in enumerate(views):
                source = moments[person][frame][view]
                name = f"{person}/{k:02d}-{v}{PurePosixPath(source).suffix}"
                entries.append(Entry(name, source, {"person": number, "expression": k, "view": v}))
    return entries, {"persons": len(moments), "persons_with_enough_frames": len(enough), "unmatched": unmatched}


def ffhq_entries(copies: Copies, *, num: int, seed: int) -> tuple[dict[str, list[Entry]], dict[str, int]]:
    """Splits train and val, which holds out `num` images; copies as in `split_entries`.

    Raises: ValueError if no image is left to train on, or none was asked for.
    """
    if not 0 < num < len(copies.groups):
        raise ValueError(f"{num} of {len(copies.groups)} images with a camera label cannot be held out; change --num")
    return split_entries(copies, {"val": num}, seed)


def afhq_entries(copies: Copies, *, seed: int) -> tuple[dict[str, list[Entry]], dict[str, int]]:
    """Splits train, val and test at 8:1:1 of the images without copies; copies as in `split_entries`.

    Raises: ValueError for fewer than three images.
    """
    num = len(copies.groups)
    if num < 3:
        raise ValueError(f"{num} images cannot be split in three; expected at least 3 with a camera label")
    tenth = max(1, round(num / 10))
    return split_entries(copies, {"test": tenth, "val": tenth}, seed)


def split_entries(
    copies: Copies, held_out: Mapping[str, int], seed: int
) -> tuple[dict[str, list[Entry]], dict[str, int]]:
    """The held-out splits, drawn in the order of their sizes, and `train`, the rest; counts for the manifest.

    A held-out image loses its copies; a training image keeps them.
    """
    order = [copies.groups[i] for i in np.random.RandomState(seed).permutation(len(copies.groups))]
    parts: dict[str, list[str]] = {}
    for split, num in held_out.items():
        parts[split], order = [group[0] for group in order[:num]], order[num:]
    parts["train"] = [name for group in order for name in group]
    splits = {split: [Entry(n, n, {}) for n in sorted(names)] for split, names in parts.items()}
    mirrored, replicas = (len(kind.intersection(parts["train"])) for kind in (copies.mirrored, copies.replicas))
    counts = {
        "originals": len(copies.groups),
        "mirrored_copies_dropped": len(copies.mirrored) - mirrored,
        "replicas_dropped": len(copies.replicas) - replicas,
        KEPT: mirrored,
        "replicas_in_train": replicas,
    }
    return splits, counts


def write_set(
    download: Download,
    entries: Iterable[Entry],
    path: Path,
    *,
    settings: Mapping[str, Any],
    resolution: int,
    radius: float,
) -> bool:
    """Write the zip and `<stem>.manifest.json` beside it, both when they are complete and every image was read.

    Returns: whether it was written; False if the same set was there.
    Raises: ValueError if an image or label is not usable, or a zip or manifest of another content is there.
    """
    entries = sorted(entries, key=lambda e: e.name)
    camera_table({e.source: download.labels[e.source] for e in entries}, download.where, radius or None)
    fault, given = partial(set_fault, resolution=resolution), download.source
    raise_faults(find_faults(given, [e.source for e in entries], fault))
    manifest_path = path.with_name(f"{path.stem}.manifest.json")
    files = [
        {"name": e.name, "source": e.source, "sha256": hashlib.sha256(given.read(e.source)).hexdigest()}
        for e in entries
    ]
    manifest = json.dumps({**settings, "num_images": len(files), "files": files}, indent=1) + "\n"
    if manifest_path.exists() and (difference := _difference(manifest_path, str(manifest_path), manifest)):
        raise ValueError(f"{manifest_path} lists another choice: {difference}; move it away and run again")
    if path.exists():
        _check_existing(path, manifest)
        if not manifest_path.exists():
            manifest_path.write_text(manifest)
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.partial")
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
            for entry in entries:
                content = given.read(entry.source)
                decode(content, f"{entry.source} in {given.path}", fault)
                archive.writestr(zipfile.ZipInfo(entry.name), content)
            labels = [[entry.name, download.labels[entry.source]] for entry in entries]
            archive.writestr(zipfile.ZipInfo("dataset.json"), json.dumps({"labels": labels}))
            if entries[0].numbers:
                archive.writestr(zipfile.ZipInfo("people.npz"), _people(entries))
            archive.writestr(zipfile.ZipInfo("manifest.json"), manifest)
        PosedImages(unfinished, resolution, radius=radius or None)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    manifest_path.write_text(manifest)
    return True


def _check_existing(path: Path, manifest: str) -> None:
    try:
        found = ZipSource(path).read("manifest.json")
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} was not written by this script ({error}); move it away and run again") from error
    if difference := _difference(found, f"manifest.json in {path}", manifest):
        raise ValueError(f"{path} holds another choice: {difference}; move it away and run again")


def _difference(stored: bytes | Path, where: str, current: str) -> str:
    """The first thing in which two manifests differ, or nothing. Counts that an older one lacks are no difference."""
    remedy = "Move it away and run again."
    old, new = read_json(stored, where, remedy=remedy), json.loads(current)
    if not isinstance(old, dict) or not isinstance(old.get("files"), list):
        raise ValueError(f'{where} is no manifest: it has no list "files". {remedy}')
    for key in [k for k in sorted({"num_images", *old}) if k != "files"]:
        if old.get(key) != new.get(key):
            return f"{key} is {old.get(key)!r} there, {new.get(key)!r} now"
    pairs = zip_longest(old["files"], new["files"])
    return next((f"{a} there, {b} now" for a, b in pairs if a != b), "")


def _people(entries: Sequence[Entry]) -> bytes:
    buffer = io.BytesIO()
    arrays = {key: np.array([entry.numbers[key] for entry in entries]) for key in entries[0].numbers}
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _columns(text: str, num: int, what: str, *, header: bool = False) -> list[list[str]]:
    """Rows of `num` words; lines without a word are passed over."""
    rows = [line.split() for line in text.splitlines() if line.strip()][1 if header else 0 :]
    bad = [row for row in rows if len(row) != num or not (row[0].isdigit() or row[-1].isdigit())]
    if bad or not rows:
        raise ValueError(f"{what} should have lines of {num} words; found {' '.join(bad[0]) if bad else 'none'!r}")
    return rows
