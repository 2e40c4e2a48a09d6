"""Images with camera labels, in EG3D's format (EG3D, suppl. "data sets"), and the mini world's extras.

A data set is a folder or an uncompressed zip of equally sized square RGB images and `dataset.json` at its root: an
object whose key `labels` lists [file name with forward slashes, 25 numbers]. Images are sorted by name; labels are
matched by name. FFHQ's official zip is read as it is.

Extras of the mini world stand in files that EG3D's readers pass over:
- `<image stem>.npz` beside every image: `depth` (R, R) uint16 in units of `DEPTH_UNIT`, `parts` (R, R) uint8;
- `people.npz` at the root, one row per image in sorted order: `factors`, `identity`, `attributes` and the numbers
  `person`, `expression`, `view` (the latter two -1 outside of the multi-view split).
"""

import io
import json
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from eg3d.cameras import LABEL_LENGTH, check_label
from PIL import Image
from torch import Tensor

from goae.data.sources import Source, open_source

DEPTH_UNIT = 1e-4  # scene units per step of the stored depth
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MAPS = ("depth", "parts")  # extras per pixel
ROWS = ("factors", "identity", "attributes", "person", "expression", "view")  # extras per image


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
        """Read the list of images and check all labels.

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
        names = self.source.names()
        self.names = [name for name in names if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES]
        if not self.names:
            raise FileNotFoundError(
                f"no images ({', '.join(IMAGE_SUFFIXES)}) in {path}; check the path and its unpacking"
            )
        self.labels = _read_labels(self.source, self.names, radius)
        self.extras, self.resize = extras, resize
        self.rows = _read_rows(self.source, len(self.names), [name for name in extras if name in ROWS])
        self.resolution = resolution or self._decode(self.names[0]).width

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} images in {self.source.path}")
        name = self.names[index]
        image = torch.from_numpy(np.array(self._sized(self._decode(name), name))).permute(2, 0, 1)
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

    def _decode(self, name: str) -> Image.Image:
        """Decode one image and check that it is RGB and square."""
        where = f"{name} in {self.source.path}"
        try:
            image = Image.open(io.BytesIO(self.source.read(name)))
            image.load()
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{where} cannot be read as an image ({error}); replace the file") from error
        if image.mode != "RGB":
            raise ValueError(f"{where} has mode {image.mode}, expected RGB with 8 bits; convert it to RGB")
        if image.width != image.height:
            raise ValueError(
                f"{where} is {image.width}x{image.height}, expected a square; crop it with its pose's crop"
            )
        return image

    def _sized(self, image: Image.Image, name: str) -> Image.Image:
        size = self.resolution
        if image.width == size:
            return image
        if not self.resize:
            raise ValueError(
                f"{name} in {self.source.path} is {image.width}x{image.height}, expected {size}x{size}; "
                "set the resolution (data.resolution or --resolution) to the images' size, or have them resized"
            )
        return image.resize((size, size), Image.Resampling.LANCZOS)

    def _maps(self, name: str) -> dict[str, Tensor]:
        beside = PurePosixPath(name).with_suffix(".npz").as_posix()
        arrays = _read_arrays(self.source, beside, MAPS)
        size = (self.resolution, self.resolution)
        for key, array in arrays.items():
            if array.shape != size:
                raise ValueError(
                    f"{key} of {beside} in {self.source.path} is {array.shape}, expected {size}; make it again"
                )
        depth = torch.from_numpy(arrays["depth"].astype(np.float32) * np.float32(DEPTH_UNIT))
        return {"depth": depth[None], "parts": torch.from_numpy(arrays["parts"])[None]}


def _read_labels(source: Source, names: list[str], radius: float | None) -> Tensor:
    """Labels (N, 25) float32 in the order of `names`."""
    where = f"dataset.json in {source.path}"
    try:
        text = source.read("dataset.json")
    except KeyError:
        raise FileNotFoundError(
            f"there is no dataset.json in {source.path}: expected one at the root, with the camera labels; run EG3D's "
            "preprocessing, or point the data.* path at the folder that holds it"
        ) from None
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON ({error}); write it again") from error
    entries = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(e, list) and len(e) == 2 for e in entries):
        raise ValueError(f'{where} has no list "labels" of [file name, {LABEL_LENGTH} numbers]; write it again')
    labels = {name: label for name, label in entries if isinstance(name, str)}
    rows = []
    for name in names:
        if labels.get(name) is None:
            raise ValueError(f"{name} has no label in {where}; add it, or remove the image")
        rows.append(check_numbers(labels[name], f"the label of {name} in {where}"))
    table = torch.tensor(rows, dtype=torch.float64)
    _check_cameras(table, names, where, radius)
    return table.to(torch.float32)


def check_numbers(label: Any, what: str) -> list[float]:
    """The 25 numbers of a label; ValueError naming `what` if it is anything else."""
    if not isinstance(label, list) or not all(isinstance(x, int | float) and not isinstance(x, bool) for x in label):
        raise ValueError(
            f"{what} is not a list of numbers; expected {LABEL_LENGTH}: cam2world 4x4, then intrinsics 3x3"
        )
    if len(label) != LABEL_LENGTH:
        raise ValueError(
            f"{what} has {len(label)} numbers, expected {LABEL_LENGTH}: cam2world 4x4 by rows, then intrinsics 3x3"
        )
    return [float(x) for x in label]


def _check_cameras(table: Tensor, names: list[str], where: str, radius: float | None) -> None:
    """Check all labels at once; if that fails, find the first bad one."""
    try:
        check_label(table, radius)
        return
    except ValueError:
        pass
    for name, label in zip(names, table, strict=True):
        try:
            check_label(label, radius)
        except ValueError as error:
            raise ValueError(f"the label of {name} in {where} is no camera: {error}") from error


def _read_rows(source: Source, num_images: int, names: list[str]) -> dict[str, Tensor]:
    if not names:
        return {}
    arrays = _read_arrays(source, "people.npz", tuple(names))
    for name, array in arrays.items():
        if len(array) != num_images:
            raise ValueError(f"{name} in people.npz of {source.path} has {len(array)} rows for {num_images} images")
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _read_arrays(source: Source, file: str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Arrays of an .npz file, without pickles."""
    try:
        with np.load(io.BytesIO(source.read(file)), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except KeyError as error:
        raise ValueError(
            f"{source.path} has no {error} in {file}; data of scripts/make_mini_data.py has {', '.join(names)}"
        ) from None
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{file} in {source.path} cannot be read ({error}); make the data again") from error
