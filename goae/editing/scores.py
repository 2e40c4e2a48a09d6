"""Heads for a classifier of the user's: numbered pictures, their codes, and the table of scores that comes back."""

import csv
from pathlib import Path

import torch
from eg3d.checkpoint import generator_hash
from eg3d.generator import TriPlaneGenerator
from eg3d.integrity import save_tensors
from PIL import Image
from torch import Tensor

from goae.inversion import read_stored
from goae.viz.grid import to_uint8

CODES, FORMAT = "codes.safetensors", "goae-codes-1"


def picture_name(number: int) -> str:
    """Of the head drawn as `number`-th."""
    return f"{number:06d}.png"


def write_pictures(image: Tensor, first: int, folder: Path) -> None:
    """Write images (B, 3, H, H) in [-1, 1], numbered from `first`."""
    for offset, pixels in enumerate(to_uint8(image)):
        Image.fromarray(pixels).save(folder / picture_name(first + offset))


def write_codes(codes: Tensor, generator: TriPlaneGenerator, folder: Path) -> None:
    """Write the codes (N, w_dim) of the pictures."""
    metadata = {"format": FORMAT, "generator": generator_hash(generator)}
    save_tensors({"w": codes.cpu().contiguous()}, folder / CODES, metadata=metadata)


def read_codes(folder: Path, generator: TriPlaneGenerator) -> Tensor:
    """The codes (N, w_dim) beside exported pictures.

    Raises: FileNotFoundError; ValueError if they are none, or those of another generator.
    """
    path = folder / CODES
    tensors, metadata = read_stored(path, saver="scripts/train_directions.py export=FOLDER")
    if metadata.get("format") != FORMAT or "w" not in tensors:
        raise ValueError(f"{path} holds no codes of heads; `scripts/train_directions.py export=FOLDER` writes them")
    if metadata.get("generator") != generator_hash(generator):
        raise ValueError(f"{path} was made with another generator; export the heads of this one")
    return tensors["w"]


def read_scores(path: Path, attributes: list[str], num: int) -> dict[str, Tensor]:
    """Scores (num,) by attribute: CSV with a column `name` of pictures and one for each attribute, rows in any order.

    Raises: FileNotFoundError; ValueError if a column or a picture is missing, or a score is no number.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"scores={path} is no file; expected a CSV with the columns name, {', '.join(attributes)}"
        )
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    missing = [column for column in ("name", *attributes) if not rows or column not in rows[0]]
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}")
    by_name = {Path(row["name"]).stem: row for row in rows}
    wanted = [Path(picture_name(i)).stem for i in range(num)]
    absent = [name for name in wanted if name not in by_name]
    if absent:
        raise ValueError(f"{path} has no row for {len(absent)} of {num} pictures, the first is {absent[0]}.png")
    try:
        return {name: torch.tensor([float(by_name[key][name]) for key in wanted]) for name in attributes}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} holds a score that is no number: {error}") from error
