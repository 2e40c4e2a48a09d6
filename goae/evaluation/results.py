"""Results that outlive a killed run: rows of numbers and rows of features, appended batch by batch.

A protocol numbers its tasks, and a task has one row for each image it shows. Every process appends to files of its own,
which are merged in the order of the tasks: neither kills nor the number of processes change what is in the end.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from eg3d.integrity import replace_file
from eg3d.limits import read_json
from torch import Tensor, nn

from goae.data.datasets import PosedImages

KEY = ("task", "place")  # of a row: its task, and which of the task's images it is about
Row = dict[str, str]


class Results:
    """`<name>.csv` and `<name>.features` in a folder: all rows of a method and the features of what it showed.

    Features are records of float32: task, place, then `width` numbers. Rows and features are matched by task and place,
    and a row without its features, as a kill may leave it, does not count.
    """

    def __init__(self, folder: Path, name: str, columns: Sequence[str], *, width: int, places: int) -> None:
        """Each task has `places` rows with `columns` behind `KEY`."""
        self.folder, self.name = folder, name
        self.columns, self.width, self.places = (*KEY, *columns), width, places

    @classmethod
    def stored(cls, folder: Path, name: str) -> "Results":
        """What is merged there, of which the rows can be read. Raises: FileNotFoundError if nothing is."""
        path = folder / f"{name}.csv"
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; measure {name} first")
        with path.open() as file:
            header = next(csv.reader(file))
        return cls(folder, name, header[len(KEY) :], width=0, places=1)

    @property
    def csv_path(self) -> Path:
        """All rows, in the order of the tasks, once they are merged."""
        return self.folder / f"{self.name}.csv"

    @property
    def sets_path(self) -> Path:
        """Distances between sets of what the rows show and of their targets."""
        return self.folder / f"{self.name}.sets.json"

    @property
    def cost_path(self) -> Path:
        """How long measuring took."""
        return self.folder / f"{self.name}.cost.json"

    @property
    def settings(self) -> dict[str, Any]:
        """What the rows depend on, as it was claimed."""
        found: dict[str, Any] = read_json(self._settings_path)
        return found

    def append(self, rank: int, rows: Sequence[Mapping[str, object]], features: Tensor) -> None:
        """Write rows and their features (N, width) to the files of process `rank`, and onto the disk."""
        keys = torch.tensor([[float(str(row[key])) for key in KEY] for row in rows])
        record = torch.cat([keys, features.detach().cpu().float()], 1)
        table, binary = self._part(rank)
        with binary.open("ab") as file:
            file.write(record.numpy().astype("<f4").tobytes())
            file.flush()
            os.fsync(file.fileno())
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        if not table.exists():
            writer.writeheader()
        writer.writerows(rows)
        with table.open("a", newline="") as file_:
            file_.write(text.getvalue())
            file_.flush()
            os.fsync(file_.fileno())

    def merge(self) -> set[int]:
        """Put all processes' rows into one file, tasks that lack a row left out. Returns: the complete tasks."""
        tables, features = self._tables(), self._binaries()
        parts = [*tables[1:], *features[1:]]
        rows: dict[tuple[int, int], Row] = {}
        found: dict[tuple[int, int], np.ndarray] = {}
        for path in tables:
            rows = {(int(row["task"]), int(row["place"])): row for row in _read_rows(path, self.columns)} | rows
        for path in features:
            found = {(int(r[0]), int(r[1])): r for r in _read_features(path, self.width)} | found
        complete = {t for t, _ in rows if all((t, i) in rows and (t, i) in found for i in range(self.places))}
        keys = sorted(key for key in rows.keys() & found.keys() if key[0] in complete)
        if parts:
            text = io.StringIO()
            writer = csv.DictWriter(text, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows[key] for key in keys)
            replace_file(self.folder / f"{self.name}.features", b"".join(found[key].tobytes() for key in keys))
            replace_file(self.csv_path, text.getvalue().encode())
            for path in parts:
                path.unlink()
        return complete

    def rows(self) -> list[Row]:
        """The merged rows."""
        return _read_rows(self.csv_path, self.columns)

    def read(self) -> tuple[list[Row], Tensor]:
        """The merged rows and their features (N, width) in the same order. Raises: ValueError if they do not match."""
        rows = self.rows()
        found = {(int(r[0]), int(r[1])): r[2:] for r in _read_features(self._binaries()[0], self.width)}
        if {(int(row["task"]), int(row["place"])) for row in rows} != found.keys():
            raise ValueError(_mismatch(self.csv_path))
        features = [found[int(row["task"]), int(row["place"])] for row in rows]
        return rows, torch.from_numpy(np.stack(features)) if features else torch.zeros(0, self.width)

    def claim(self, settings: Mapping[str, Any], *, defaults: Mapping[str, Any] | None = None) -> None:
        """Note what the rows depend on, or check that those which are there depend on the same.

        Raises: ValueError listing each setting that differs.
        """
        if self._settings_path.exists():
            self.check(settings, defaults=defaults)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_file(self._settings_path, (json.dumps(settings, indent=1) + "\n").encode())

    def check(
        self,
        settings: Mapping[str, Any],
        *,
        besides: Sequence[str] = (),
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        """Compare with what the stored rows depend on, but for the keys `besides`; `defaults` as of `completed`.

        Raises: ValueError listing each setting that differs.
        """
        stored, current = self.settings, json.loads(json.dumps(settings))
        stored = completed(stored, json.loads(json.dumps(defaults or {})))
        differ = [
            f"{key}: {stored.get(key)!r} there, {current.get(key)!r} now"
            for key in sorted((stored | current).keys() - {*besides})
            if stored.get(key) != current.get(key)
        ]
        if differ:
            raise ValueError(
                f"{self.csv_path} was made with other settings ({'; '.join(differ)}). Choose another folder with "
                f"output=FOLDER, or delete the files {self.name}.* there to measure again."
            )

    @property
    def _settings_path(self) -> Path:
        return self.folder / f"{self.name}.settings.json"

    def _part(self, rank: int) -> tuple[Path, Path]:
        return self.folder / f"{self.name}.part{rank}.csv", self.folder / f"{self.name}.part{rank}.features"

    def _tables(self) -> list[Path]:
        """The merged file, which need not exist, then those of processes."""
        return [self.csv_path, *sorted(self.folder.glob(f"{self.name}.part*.csv"))]

    def _binaries(self) -> list[Path]:
        return [self.folder / f"{self.name}.features", *sorted(self.folder.glob(f"{self.name}.part*.features"))]


def completed(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings with what came later in their groups, at its default, by which nothing changed when it came.

    Args:
        defaults: of whole groups, which may hold groups; of those that `settings` has, what they lack is taken.
    """

    def filled(stored: Any, default: Any) -> Any:
        if not isinstance(stored, dict) or not isinstance(default, dict):
            return stored
        return {**default, **{key: filled(value, default.get(key)) for key, value in stored.items()}}

    found: dict[str, Any] = {key: filled(value, defaults.get(key)) for key, value in settings.items()}
    return found


def module_hash(module: nn.Module) -> str:
    """SHA-256 of all parameters and buffers of a network with their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def images_hash(images: PosedImages) -> str:
    """SHA-256 of a data set: names, labels, and the files of images and maps."""
    digest = hashlib.sha256()
    for i, name in enumerate(images.names):
        digest.update(name.encode() + images.labels[i].numpy().tobytes() + images.source.read(name))
        if "depth" in images.extras:
            digest.update(images.source.read(str(Path(name).with_suffix(".npz").as_posix())))
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def folder_hash(path: Path) -> str:
    """SHA-256 of all files below a folder with their names."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(file.relative_to(path).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _mismatch(path: Path) -> str:
    features = path.with_suffix(".features")
    return f"{path} and {features} do not hold the same results; delete {path.stem}.* there and measure again"


def _read_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """The complete lines of a file; none if it does not exist."""
    if not path.exists():
        return []
    text = path.read_text()
    reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
    rows = list(reader)
    if rows and tuple(rows[0]) != tuple(columns):
        raise ValueError(f"{path} has columns {', '.join(rows[0])}; expected {', '.join(columns)}. Delete it.")
    return rows


def _read_features(path: Path, width: int) -> np.ndarray:
    """The complete records of a file; none if it does not exist."""
    length = width + len(KEY)
    if not path.exists():
        return np.zeros((0, length), "<f4")
    content = np.frombuffer(path.read_bytes()[: path.stat().st_size // (4 * length) * 4 * length], "<f4")
    return content.reshape(-1, length)
