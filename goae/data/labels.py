"""Camera labels: the one reader of EG3D's `dataset.json` (EG3D, suppl. "data sets"), and labels of single photos.

The file is an object whose key `labels` lists [file name, 25 numbers]; `null` in place of the numbers says that pose
estimation failed. UTF-8, UTF-16 and a byte-order mark are read, and so is a name that stands there twice with the same
numbers. Names are compared as they are, then with forward slashes and composed accents: macOS decomposes accents, and
Windows writes backslashes.
"""

import math
import os
import unicodedata
import zipfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from eg3d.cameras import LABEL_LENGTH, LabelError, check_label
from eg3d.limits import read_json
from torch import Tensor

from goae.data.sources import LONGEST_NAME, Source, is_hidden, list_images, note, open_source, warn_of_left_out

FILE = "dataset.json"
FORMAT = f"{LABEL_LENGTH} numbers: cam2world 4x4 by rows, then intrinsics 3x3"
EXPECTED = '{"labels": [["NAME.png", [25 numbers]], ...]}'

Labels = Mapping[str, Any]  # by file name; numbers that nobody has looked at, or None


def read_labels(data: bytes | Path, where: str) -> Labels:
    """Read a `dataset.json`.

    Raises: ValueError naming `where` and the entry that is no pair of a name and a label.
    """
    content = read_json(data, where, remedy=f"Write it again, as {EXPECTED}.")
    entries = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise ValueError(f'{where} has no list "labels": {_describe(content)}; expected EG3D\'s {EXPECTED}')
    found: dict[str, Any] = {}
    for i, entry in enumerate(entries):
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
            raise ValueError(f'entry {i} of "labels" in {where} is {_short(entry)}; expected [file name, {FORMAT}]')
        name, label = entry
        if name in found and found[name] != label:
            raise ValueError(f"{name[:LONGEST_NAME]} has two different labels in {where}; leave the wrong one out")
        found[name] = label
    return found


def read_posed(source: Source, *, complete: bool) -> dict[str, list[float] | None]:
    """Read which images a data set has, sorted by name, and their labels; None where there is none.

    Files that are left out and labels without an image are counted in one warning.

    Args:
        complete: whether every image needs a label.
    Raises: FileNotFoundError for a set without images or `dataset.json`; ValueError naming what is wrong in it.
    """
    names, notes = list_images(source)
    where = f"{FILE} in {source.path}"
    labels = read_labels(_read_file(source), where)
    keys = find_keys(labels, names, where)
    found = {name: labels[keys[name]] if name in keys else None for name in names}
    missing = [name for name, label in found.items() if label is None]
    if missing and (complete or len(missing) == len(names)):
        raise ValueError(_missing(missing, labels, where))
    used = set(keys.values())
    if unused := [name for name in labels if name not in used]:
        notes.append(note("labels without an image", unused))
    warn_of_left_out(source.path, tuple(notes))
    return {n: None if c is None else check_numbers(c, f"the label of {n} in {where}") for n, c in found.items()}


def camera_table(rows: Mapping[str, Sequence[float]], where: str, radius: float | None) -> Tensor:
    """Return labels (N, 25) float32 of images by name. Raises: ValueError naming the first that is no camera."""
    table = torch.tensor(list(rows.values()), dtype=torch.float64)
    try:
        check_label(table, radius, centred=True)
    except LabelError as error:
        raise ValueError(f"the label of {list(rows)[error.row]} in {where} is no camera: {error}") from error
    return table.to(torch.float32)


def read_cameras(camera: str, names: Sequence[str]) -> list[Tensor]:
    """Return a label (25,) for each image: 25 numbers for all, or those of a `dataset.json`.

    Args:
        camera: the numbers, a file, or a folder or zip that holds a `dataset.json`.
        names: of the images. Each has the label of its own name, or else of a file that is called like it but for
            folder and ending.
    Raises: FileNotFoundError or ValueError for anything else.
    """
    if not os.path.exists(camera):  # unlike Path's, False for 25 long numbers, which no file name may have
        return [parse_numbers(camera)] * len(names)
    is_file = os.path.isfile(camera) and not zipfile.is_zipfile(camera)
    where = camera if is_file else f"{FILE} in {camera}"
    labels = read_labels(Path(camera) if is_file else _read_file(open_source(camera)), where)
    keys = find_keys(labels, names, where, loose=True)
    found = {name: labels[keys[name]] if name in keys else None for name in names}
    if missing := [name for name, label in found.items() if label is None]:
        raise ValueError(_missing(missing, labels, where))
    rows = {name: check_numbers(label, f"the label of {name} in {where}") for name, label in found.items()}
    by_name = dict(zip(rows, camera_table(rows, where, None), strict=True))
    return [by_name[name] for name in names]


def find_keys(labels: Labels, names: Sequence[str], where: str, *, loose: bool = False) -> dict[str, str]:
    """Find the name under which each image stands among the labels, if it does.

    Args:
        loose: whether a file of another folder and ending will do.
    Raises: ValueError where several labels could be meant.
    """
    found = {name: [name] if name in labels else [] for name in names}
    for kind in (_normal, _stem) if loose else (_normal,):
        if others := [name for name, keys in found.items() if not keys]:
            index = _index(labels, kind)
            found |= {name: index.get(kind(name), []) for name in others}
    if several := [name for name, keys in found.items() if any(labels[k] != labels[keys[0]] for k in keys)]:
        raise ValueError(
            f"{where} has several labels of files that are called as {', '.join(several[:5])}, e.g. "
            f"{' and '.join(found[several[0]][:2])}; give labels whose names are those of the images, folders included"
        )
    return {name: keys[0] for name, keys in found.items() if keys}


def parse_numbers(text: str) -> Tensor:
    """Read a label (25,) from numbers separated by commas or blanks, brackets allowed."""
    try:
        numbers = [float(word) for word in text.strip("[] ").replace(",", " ").split()]
    except ValueError:
        raise FileNotFoundError(
            f"camera={text} is neither a file nor 25 numbers; give a dataset.json, or 16 numbers of cam2world and 9 of "
            f"the intrinsics"
        ) from None
    label = torch.tensor(numbers)
    check_label(label, centred=True)
    return label


def check_numbers(label: Any, what: str) -> list[float]:
    """Return the 25 numbers of a label. Raises: ValueError naming `what` if it is anything else."""
    if not isinstance(label, list) or not all(type(x) is float or type(x) is int for x in label):
        raise ValueError(f"{what} is not a list of numbers, but {_short(label)}{_hint(label)}; expected {FORMAT}")
    if len(label) != LABEL_LENGTH:
        raise ValueError(f"{what} has {len(label)} numbers, expected {FORMAT}")
    if not all(map(math.isfinite, label)):
        raise ValueError(f"{what} has numbers that are not finite; estimate the pose of that image again")
    return [float(x) for x in label]


def _read_file(source: Source) -> bytes:
    """The `dataset.json` at the root."""
    try:
        return source.read(FILE)
    except KeyError:
        inner = [name for name in source.names() if name.endswith("/" + FILE) and not is_hidden(name)]
        way = "give its folder" if source.path.is_dir() else "zip the files in its folder, without the folder"
        hint = f" (there is {inner[0]}; {way})" if inner else ""
        raise FileNotFoundError(
            f"there is no {FILE} in {source.path}: expected one at the root, with the camera labels{hint}; run EG3D's "
            "preprocessing, or point the path at the folder that holds it"
        ) from None


def _missing(names: Sequence[str], labels: Labels, where: str) -> str:
    """Say that images have no label, beside a name that has one."""
    more = f" (nor have {len(names) - 1} more images)" if len(names) > 1 else ""
    if names[0] in labels:
        return f"{names[0]} has no label in {where} but null{more}: its pose was not found; leave the image out"
    known = next((name for name in labels if _stem(name) == _stem(names[0])), next(iter(labels), None))
    there = f"it has e.g. {known[:LONGEST_NAME]}" if known is not None else "it has none at all"
    return f"{names[0]} has no label in {where}{more}; {there}. Add it, by the image's name, or remove the image"


def _describe(content: Any) -> str:
    """Tell what stands in place of the list of labels."""
    if not isinstance(content, dict):
        return f"it holds {_short(content)}"
    if "labels" not in content:
        return f"its keys are {_short(list(content))}"
    if content["labels"] is None:
        return "it is null, which EG3D's dataset tool writes where an image had no label, so label all and run it again"
    return f"it is {_short(content['labels'])}"


def _hint(label: Any) -> str:
    """Say what to do about numbers of another form."""
    if not isinstance(label, list):
        return ""
    if any(isinstance(x, list) for x in label):
        return ", which is nested: write one flat list"
    return ", with quotes around numbers: write them without" if any(isinstance(x, str) for x in label) else ""


def _short(value: Any) -> str:
    """A value of JSON in few letters."""
    if isinstance(value, dict | list) and len(value) > 3:
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _index(labels: Labels, kind: Callable[[str], str]) -> dict[str, list[str]]:
    found = defaultdict(list)
    for name in labels:
        found[kind(name)].append(name)
    return found


def _normal(name: str) -> str:
    """A name with composed accents and forward slashes."""
    return unicodedata.normalize("NFC", name).replace("\\", "/").removeprefix("./")


def _stem(name: str) -> str:
    """A normal name without folder and ending."""
    return PurePosixPath(_normal(name)).stem
