"""Images with camera labels, in EG3D's format (EG3D, suppl. "data sets"), and the mini world's extras.

A data set is a folder or an uncompressed zip of equally sized square RGB images and `dataset.json` at its root: an
object whose key `labels` lists [file name with forward slashes, 25 numbers]. Images are sorted by name; labels are
matched by name. FFHQ's official zip is read as it is.

Extras of the mini world stand in files that EG3D's readers pass over:
- `<image stem>.npz` beside every image: `depth` (R, R) uint16 in units of `DEPTH_UNIT`, `parts` (R, R) uint8;
- `people.npz` at the root, one row per image in sorted order: `factors`, `identity`, `attributes` and the numbers
  `person`, `expression`, `view` (the latter two -1 outside of the multi-view split).
"""

from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from eg3d.arrays import read_arrays
from PIL import Image
from torch import Tensor

from goae.data.decoding import collect, decode, find_faults, raise_faults, set_fault
from goae.data.labels import camera_table, read_posed
from goae.data.sources import Source, open_source

DEPTH_UNIT = 1e-4  # scene units per step of the stored depth
MAPS = ("depth", "parts")  # extras per pixel
ROWS = ("factors", "identity", "attributes", "person", "expression", "view")  # extras per image
_CHECKED: set[tuple[object, ...]] = set()  # sets whose headers this process has read


class PosedImages:
    """Posed photographs: `len(images)`, and `images[i]` -> dict.

    An item has `image` (3, R, R) float32 in [-1, 1] (uint8 / 127.5 - 1), `c` (25,) float32, `index`, `name`, and the
    extras asked for: `depth` (1, R, R) float32 along the ray in scene units, `parts` (1, R, R) uint8, and rows.
    """

    def __init__(
        self,
        path: str | Path,
        resolution: int | None = None,
        extras: tuple[str, ...] = (),
        *,
        resize: bool = False,
        radius: float | None = None,
    ) -> None:
        """Read the list of images; check all labels and the headers of all images.

        Args:
            path: folder or zip.
            resolution: side of the images; None takes that of the first.
            extras: names out of `MAPS` and `ROWS`.
            resize: whether images of another size are resized, by Lanczos as EG3D's data sets were.
            radius: distance of every camera from the origin, or None for no check.
        Raises: FileNotFoundError or ValueError, naming the file, what was expected and the remedy.
        """
        unknown = sorted(set(extras) - {*MAPS, *ROWS})
        if unknown:
            raise ValueError(f"unknown extras {unknown}; known are {', '.join((*MAPS, *ROWS))}")
        if resize and set(extras) & set(MAPS):
            raise ValueError(
                f"extras {', '.join(MAPS)} cannot be resized; leave them out or give data of the right size"
            )
        self.source = open_source(path)
        rows = {name: label or [] for name, label in read_posed(self.source, complete=True).items()}
        self.names = list(rows)
        self.labels = camera_table(rows, f"dataset.json in {path}", radius)
        self.extras, self.resize = extras, resize
        self.rows = _read_rows(self.source, len(self.names), [name for name in extras if name in ROWS])
        self.resolution = resolution or self._decode(self.names[0], None).width
        self._check_headers()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} images in {self.source.path}")
        name, side = self.names[index], self.resolution
        picture = self._decode(name, None if self.resize else side)
        if picture.width != side:
            picture = picture.resize((side, side), Image.Resampling.LANCZOS)
        image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        item: dict[str, Any] = {
            "image": image.to(torch.float32) / 127.5 - 1.0,
            "c": self.labels[index].clone(),
            "index": index,
            "name": name,
        }
        item |= {key: row[index] for key, row in self.rows.items()}
        if set(self.extras) & set(MAPS):
            item |= {k: v for k, v in self._maps(name).items() if k in self.extras}
        return item

    def check_pixels(self) -> None:
        """Read all images and extras, in threads. Raises: ValueError telling the first that cannot be used."""

        def check(index: int) -> str:
            try:
                self[index]
            except ValueError as error:
                return str(error)
            return ""

        raise_faults(collect(check, len(self), "reading all images", many=1000))

    def _decode(self, name: str, resolution: int | None) -> Image.Image:
        fault = partial(set_fault, resolution=resolution)
        return decode(self.source.read(name), f"{name} in {self.source.path}", fault)

    def _check_headers(self) -> None:
        """Check the headers of all images, once in a process: runs open the same set for each stage and table."""
        stat, size = self.source.path.stat(), None if self.resize else self.resolution
        key = (self.source.path, stat.st_size, stat.st_mtime_ns, hash(tuple(self.names)), size)
        if key not in _CHECKED:
            raise_faults(find_faults(self.source, self.names, partial(set_fault, resolution=size)))
            _CHECKED.add(key)

    def _maps(self, name: str) -> dict[str, Tensor]:
        beside = PurePosixPath(name).with_suffix(".npz").as_posix()
        arrays = _arrays(self.source, beside, MAPS)
        size = (self.resolution, self.resolution)
        for key, array in arrays.items():
            if array.shape != size:
                raise ValueError(
                    f"{key} of {beside} in {self.source.path} is {array.shape}, expected {size}; make it again"
                )
        depth = torch.from_numpy(arrays["depth"].astype(np.float32) * np.float32(DEPTH_UNIT))
        return {"depth": depth[None], "parts": torch.from_numpy(arrays["parts"])[None]}


def _read_rows(source: Source, num_images: int, names: list[str]) -> dict[str, Tensor]:
    if not names:
        return {}
    arrays = _arrays(source, "people.npz", tuple(names))
    for name, array in arrays.items():
        if array.shape[:1] != (num_images,):
            raise ValueError(
                f"{name} in people.npz of {source.path} has shape {array.shape} for {num_images} images; make the data "
                "again"
            )
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _arrays(source: Source, file: str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Arrays of an .npz file of the set."""
    remedy = f"Make the data again; those of scripts/make_mini_data.py have {', '.join(names)}."
    try:
        found = read_arrays(source.read(file), f"{file} in {source.path}", remedy=remedy)
        return {name: found[name] for name in names}
    except KeyError as error:
        raise ValueError(f"{source.path} has no {error} in {file}. {remedy}") from None
