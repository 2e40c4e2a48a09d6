"""Invert photos from the command line."""

import hashlib
import json
import logging
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import torch
from eg3d.limits import read_json
from PIL import Image
from torch import Tensor

from goae.camera.level import level_label
from goae.camera.regressor import CameraRegressor, estimate_camera, load_regressor
from goae.config import InvertConfig
from goae.data.decoding import as_photo, decode, find_faults, photo_fault, raise_faults
from goae.data.labels import read_cameras
from goae.data.sources import IMAGE_SUFFIXES, FolderSource, Source, list_images, open_source, warn_of_left_out
from goae.editing.directions import load_edit
from goae.inversion import Inversion, Inverter
from goae.loading import load_inverter
from goae.runs.setup import device_of, open_run, run_inverter
from goae.viz.grid import depth_picture, save_grid

log = logging.getLogger(__name__)
MADE_FROM = "made_from.json"  # which image an output folder belongs to
STORED = "inversion.safetensors"
MADE = (MADE_FROM, STORED, "reconstruction.png", "views.png", "depth.png")
YAWS = (-40, -20, 0, 20, 40)  # degrees of the five novel views


class Picture(NamedTuple):
    """An image by its name in a folder or zip."""

    source: Source
    name: str

    def __str__(self) -> str:
        return f"{self.name} in {self.source.path}"

    @property
    def path(self) -> str:
        """Tell where it lies; of a zip, its name behind that of the zip."""
        return str(self.source.path.absolute() / self.name)

    def digest(self) -> str:
        """Return the SHA-256 of the file."""
        return hashlib.sha256(self.source.read(self.name)).hexdigest()

    def open(self) -> Image.Image:
        """Decode the image. Raises: ValueError if it is none, or no photo."""
        try:
            data = self.source.read(self.name)
        except (OSError, KeyError) as error:
            raise ValueError(f"{self} cannot be read ({error})") from error
        return as_photo(decode(data, str(self), photo_fault), str(self))


@dataclass(frozen=True)
class Job:
    """Hold what every photo needs: its camera is read, or estimated by `regressor`."""

    inverter: Inverter
    labels: Mapping[str, Tensor]
    regressor: CameraRegressor | None
    deltas: Mapping[str, Tensor]  # of edits by their labels


def invert(config: InvertConfig) -> Path:
    """For each photo: reconstruction, five views, depth as PNG, and the inversion; returns the output folder.

    For each edit, too: the edited head from the input camera and in the five views. A photo that fails is passed over.

    Raises: ValueError, as the last thing, listing photos that failed; before the networks are read, for what can be
        known by then.
    """
    pictures = find_images(Path(config.input))
    output = open_output(Path(config.output))
    folders = find_folders([picture.name for picture in pictures], output)
    for picture, folder in zip(pictures, folders, strict=True):
        check_folder(folder, picture)
    names = [picture.name for picture in pictures]
    faults = find_faults(pictures[0].source, names, photo_fault)
    if all(faults):
        raise_faults(faults, "cannot be inverted")
    labels = {} if config.regressor_path else dict(zip(names, read_cameras(config.camera, names), strict=True))
    job = open_job(config, labels)
    for i, (picture, folder) in enumerate(zip(pictures, folders, strict=True)):
        clear(folder)
        faults[i] = faults[i] or invert_one(job, picture, folder)
        if faults[i]:
            log.warning("%s", faults[i])
        else:
            print(folder)
    raise_faults(faults, f"could not be inverted; the others are in {output}", shown=len(faults))
    return output


def open_job(config: InvertConfig, labels: Mapping[str, Tensor]) -> Job:
    """Read the networks and the directions of edits."""
    inverter = open_inverter(config)
    regressor = load_regressor(config.regressor_path, inverter.device) if config.regressor_path else None
    deltas = {edit.label: load_edit(edit, inverter.goae, config.glasses) for edit in config.edits}
    return Job(inverter, labels, regressor, deltas)


def open_output(output: Path) -> Path:
    """Make the output folder. Raises: ValueError if there is a file of its name."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"output={output} is a file, or below one; give a folder") from None
    return output


def find_folders(names: Sequence[str], output: Path) -> list[Path]:
    """Find a folder below `output` for each image: of its name without ending, or with it where another has the same.

    Letter case and the form of accents make no difference, as on macOS and Windows.

    Raises: ValueError for names that lead elsewhere, and for two that are the same even with their endings.
    """
    stems = [name.removesuffix(PurePosixPath(name).suffix) for name in names]
    found = Counter(map(_alike, stems))
    usable = [found[_alike(stem)] == 1 and PurePosixPath(stem).name.strip(".") != "" for stem in stems]
    chosen = [stem if good else name for stem, name, good in zip(stems, names, usable, strict=True)]
    taken: dict[str, str] = {}
    for name, folder in zip(names, chosen, strict=True):
        other = taken.setdefault(_alike(folder), name)
        if other != name:
            raise ValueError(f"{other} and {name} would be written to one folder of {output}; rename one of them")
        inside = (output / folder).resolve()
        if not inside.is_relative_to(output.resolve()) or inside == output.resolve():
            raise ValueError(f"{name!r} would be written to {inside}, outside of output={output}; rename it")
    return [output / folder for folder in chosen]


def _alike(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def check_folder(folder: Path, picture: Picture) -> None:
    """Check that a folder has nothing that was made from another image; the same one may have changed, or moved.

    Raises: ValueError naming that image.
    """
    try:
        made_from = read_json(folder / MADE_FROM)
    except (OSError, ValueError):  # there is none, or it does not tell
        return
    known = made_from if isinstance(made_from, dict) else {}
    if known.get("input") != picture.path and known.get("sha256") != picture.digest():
        raise ValueError(
            f"{folder} holds the head of another image, {known.get('input')}; give another output=FOLDER, or move it "
            "away"
        )


def clear(folder: Path) -> None:
    """Remove what an earlier run made, so that none of it passes for new."""
    if any((folder / name).exists() for name in (MADE_FROM, STORED)):
        for path in [folder / name for name in MADE] + list(folder.glob("edit-*.png")):
            path.unlink(missing_ok=True)


def find_images(path: Path) -> list[Picture]:
    """List one image, or all images of a folder or zip and its subfolders, by name; without pictures of heads.

    Raises: FileNotFoundError if there is neither.
    """
    if path.is_file() and not zipfile.is_zipfile(path):
        return [Picture(FolderSource(path.parent), path.name)]
    if path.exists():
        source = open_source(path)
        names, notes = list_images(source)
        warn_of_left_out(source.path, tuple(notes))
        made = {PurePosixPath(name).parent for name in source.names() if PurePosixPath(name).name == MADE_FROM}
        return [Picture(source, name) for name in names if PurePosixPath(name).parent not in made]
    raise FileNotFoundError(
        f"input={path} is neither an image nor a folder or zip that holds {', '.join(IMAGE_SUFFIXES)} files; give one "
        "of them"
    )


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


def invert_one(job: Job, picture: Picture, folder: Path) -> str:
    """Invert a photo, and write what was made when all of it is there. Returns: what failed, or nothing."""
    try:
        image = picture.open()
    except ValueError as error:
        return str(error)
    try:
        c = estimate_camera(image, job.regressor)[0] if job.regressor else job.labels[picture.name]
        inversion = job.inverter.invert(image, c)
        pictures = draw(job, inversion)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MADE_FROM).write_text(json.dumps({"input": picture.path, "sha256": picture.digest()}, indent=1))
        inversion.save(folder / STORED)
        for name, shown in pictures.items():
            save_grid(shown, folder / name, columns=len(shown))
    except (ValueError, OSError) as error:
        return f"{picture} cannot be inverted: {error}"
    return ""


def draw(job: Job, inversion: Inversion) -> dict[str, Tensor]:
    """The pictures of a head by the names of their files, (N, 3, H, H) side by side."""
    inverter = job.inverter
    rendering, own = inverter.goae.generator.config.rendering, inverter.reconstruct(inversion)
    near, far = rendering.ray_start or 2.25, rendering.ray_end or 3.3
    found = {
        "reconstruction.png": own.image,
        "views.png": torch.cat(five_views(inverter, inversion)),
        "depth.png": depth_picture(own.image_depth, near=near, far=far),
    }
    for label, delta in job.deltas.items():
        edited = inverter.edit(inversion, delta)
        found[f"edit-{label}.png"] = torch.cat([inverter.reconstruct(edited).image, *five_views(inverter, edited)])
    return found


def five_views(inverter: Inverter, inversion: Inversion) -> list[Tensor]:
    """Images (1, 3, H, H) from `YAWS`."""
    cameras = [level_label(inverter.goae.generator, yaw, inversion.c) for yaw in YAWS]
    return [inverter.render(inversion, c).image for c in cameras]
