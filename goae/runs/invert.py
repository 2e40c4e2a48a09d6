"""Invert photos from the command line."""

import io
import json
import os
import zipfile
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from eg3d.cameras import check_label
from PIL import Image
from torch import Tensor

from goae.camera.level import level_label
from goae.camera.regressor import estimate_camera, load_regressor
from goae.config import InvertConfig
from goae.data.datasets import IMAGE_SUFFIXES
from goae.data.sources import FolderSource, Source, open_source
from goae.editing.directions import load_edit
from goae.inversion import Inversion, Inverter
from goae.loading import load_inverter
from goae.runs.setup import device_of, open_run, run_inverter
from goae.viz.grid import depth_picture, save_grid, to_uint8

YAWS = (-40, -20, 0, 20, 40)  # degrees of the five novel views


class Picture(NamedTuple):
    """An image by its name in a folder or zip."""

    source: Source
    name: str

    def open(self) -> Image.Image:
        """The image. Raises: OSError if it is none."""
        return Image.open(io.BytesIO(self.source.read(self.name)))


def invert(config: InvertConfig) -> Path:
    """For each photo: reconstruction, five views, depth as PNG, and the inversion; returns the output folder.

    For each edit, too: the edited head from the input camera and in the five views.
    """
    inverter = open_inverter(config)
    deltas = {edit.label: load_edit(edit, inverter.goae, config.glasses) for edit in config.edits}
    pictures = find_images(Path(config.input))
    labels = find_cameras(config, pictures, inverter.device)
    output = Path(config.output)
    for picture, c in zip(pictures, labels, strict=True):
        folder = output / PurePosixPath(picture.name).with_suffix("")
        inversion = _invert_one(inverter, picture, c, folder)
        for label, delta in deltas.items():
            edited = inverter.edit(inversion, delta)
            images = torch.cat([inverter.reconstruct(edited).image, *five_views(inverter, edited)])
            save_grid(images, folder / f"edit-{label}.png", columns=1 + len(YAWS))
        print(folder)
    return output


def find_images(path: Path) -> list[Picture]:
    """One image, or all images of a folder or zip and its subfolders, by name."""
    if path.is_file() and not zipfile.is_zipfile(path):
        return [Picture(FolderSource(path.parent), path.name)]
    found: list[Picture] = []
    if path.exists():
        source = open_source(path)
        found = [Picture(source, n) for n in source.names() if PurePosixPath(n).suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise FileNotFoundError(
            f"input={path} is neither an image nor a folder or zip that holds {', '.join(IMAGE_SUFFIXES)} files; give "
            f"one of them"
        )
    return found


def find_cameras(config: InvertConfig, pictures: list[Picture], device: torch.device) -> list[Tensor]:
    """A label (25,) for each image: read, or estimated from the image alone."""
    if not config.regressor_path:
        return read_cameras(config.camera, [picture.name for picture in pictures])
    regressor = load_regressor(config.regressor_path, device)
    return [estimate_camera(picture.open(), regressor)[0] for picture in pictures]


def read_labels(camera: str) -> str:
    """The text of a label file, or of the dataset.json in a folder or zip.

    Raises: FileNotFoundError if there is none in it.
    """
    if os.path.isfile(camera) and not zipfile.is_zipfile(camera):
        return Path(camera).read_text()
    try:
        return open_source(camera).read("dataset.json").decode()
    except KeyError:
        raise FileNotFoundError(f"camera={camera} holds no dataset.json; give a file of labels") from None


def read_cameras(camera: str, names: list[str]) -> list[Tensor]:
    """A label (25,) for each image: from 25 numbers for all, or of a JSON file with a list of [name, 25 numbers]."""
    if not os.path.exists(camera):  # unlike Path's, False for 25 long numbers, which no file name may have
        return [parse_numbers(camera)] * len(names)
    try:
        content = json.loads(read_labels(camera))
    except ValueError:  # neither text nor JSON
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("labels"), list):
        raise ValueError(
            f"{camera} has no list `labels`; expected EG3D's dataset.json: "
            '{"labels": [["NAME.png", [25 numbers]], ...]}, or a folder or zip that holds one'
        )
    labels = [torch.tensor(numbers, dtype=torch.float32) for numbers in matched(content["labels"], names, camera)]
    for name, label in zip(names, labels, strict=True):
        try:
            check_label(label)
        except ValueError as error:
            raise ValueError(f"the label of {name} in {camera} is not usable: {error}") from error
    return labels


def matched(labels: list[Any], names: list[str], camera: str) -> list[list[float]]:
    """The label of each image: of its own name, or else the one whose file's name without folder and ending is its.

    Raises: ValueError for names without a label, and where several labels could be meant.
    """
    named, stems = dict(labels), defaultdict(list)
    for name, numbers in labels:
        stems[PurePosixPath(name).stem].append(numbers)
    found = {name: [named[name]] if name in named else stems[PurePosixPath(name).stem] for name in names}
    if missing := [name for name in names if not found[name]]:
        raise ValueError(f"{camera} has no label for {', '.join(missing[:5])}; add it, matched by file name")
    if several := [name for name in names if len(found[name]) > 1]:
        raise ValueError(
            f"{camera} has several labels of files that are called as {', '.join(several[:5])}, in other folders; give "
            f"labels whose names are those of the images, folders included"
        )
    return [found[name][0] for name in names]


def parse_numbers(text: str) -> Tensor:
    """25 numbers separated by commas or blanks, brackets allowed."""
    try:
        numbers = [float(word) for word in text.strip("[] ").replace(",", " ").split()]
    except ValueError:
        raise FileNotFoundError(
            f"camera={text} is neither a file nor 25 numbers; give a dataset.json, or 16 numbers of cam2world and 9 of "
            f"the intrinsics"
        ) from None
    label = torch.tensor(numbers)
    check_label(label)
    return label


def open_inverter(config: InvertConfig) -> Inverter:
    """The run asked for, or the three files."""
    if config.run:
        run = open_run(config, config.run)
        run.force_fp32 |= config.force_fp32
        return run_inverter(run, preset=config.preset_name or None)
    return load_inverter(
        generator=config.generator_path,
        encoder=config.encoder_path,
        refiner=config.refiner_path,
        preset=config.preset_name or None,
        device=device_of(config),
        force_fp32=config.force_fp32,
    )


def _invert_one(inverter: Inverter, picture: Picture, c: Tensor, folder: Path) -> Inversion:
    try:
        inversion = inverter.invert(picture.open(), c)
    except (ValueError, OSError) as error:
        raise ValueError(f"{picture.name} in {picture.source.path} cannot be inverted: {error}") from error
    folder.mkdir(parents=True, exist_ok=True)
    own = inverter.reconstruct(inversion)
    Image.fromarray(to_uint8(own.image[0])).save(folder / "reconstruction.png")
    save_grid(torch.cat(five_views(inverter, inversion)), folder / "views.png", columns=len(YAWS))
    rendering = inverter.goae.generator.config.rendering
    near, far = rendering.ray_start or 2.25, rendering.ray_end or 3.3
    Image.fromarray(to_uint8(depth_picture(own.image_depth, near=near, far=far)[0])).save(folder / "depth.png")
    inversion.save(folder / "inversion.safetensors")
    return inversion


def five_views(inverter: Inverter, inversion: Inversion) -> list[Tensor]:
    """Images (1, 3, H, H) from `YAWS`."""
    cameras = [level_label(inverter.goae.generator, yaw, inversion.c) for yaw in YAWS]
    return [inverter.render(inversion, c).image for c in cameras]
