"""Invert photos from the command line."""

import io
import zipfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from goae.camera.level import level_label
from goae.camera.regressor import estimate_camera, load_regressor
from goae.config import InvertConfig
from goae.data.labels import read_cameras
from goae.data.sources import IMAGE_SUFFIXES, FolderSource, Source, list_images, open_source, warn_of_left_out
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
    if path.exists():
        source = open_source(path)
        names, notes = list_images(source)
        warn_of_left_out(source.path, tuple(notes))
        return [Picture(source, name) for name in names]
    raise FileNotFoundError(
        f"input={path} is neither an image nor a folder or zip that holds {', '.join(IMAGE_SUFFIXES)} files; give one "
        "of them"
    )


def find_cameras(config: InvertConfig, pictures: list[Picture], device: torch.device) -> list[Tensor]:
    """A label (25,) for each image: read, or estimated from the image alone."""
    if not config.regressor_path:
        return read_cameras(config.camera, [picture.name for picture in pictures])
    regressor = load_regressor(config.regressor_path, device)
    return [estimate_camera(picture.open(), regressor)[0] for picture in pictures]


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
