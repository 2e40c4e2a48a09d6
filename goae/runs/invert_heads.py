"""Invert procedural heads by optimisation, and measure that beside what every method has to beat."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from eg3d.checkpoint import generator_hash
from eg3d.generator import TriPlaneGenerator
from eg3d.integrity import load_tensors, save_tensors
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from goae.baselines.floors import AverageCode, MeanView, NearestView, StoredViews
from goae.baselines.optimization import LatentOptimization
from goae.config import InvertHeadsConfig
from goae.data.datasets import PosedImages
from goae.evaluation.geometry import depth_errors
from goae.evaluation.image_metrics import mse, psnr
from goae.evaluation.intervals import mean_interval
from goae.evaluation.records import update_section
from goae.evaluation.runner import Method, Row, View, reconstruct, write_json, write_rows
from goae.extractors.lpips import LPIPS
from goae.loading import read_generator
from goae.runs.setup import device_of, stack
from goae.training.preview import shown_depth
from goae.viz.grid import save_grid

Batch = dict[str, Tensor]
Show = Callable[[Batch, slice], Any]  # a batch and its rows to the view from its cameras, which has a depth
METRICS = ("psnr", "mse", "depth_error")


def invert_heads(config: InvertHeadsConfig) -> Path:
    """Write `<method>.csv`, `inversions.png` and `summary.json`; returns the latter's path.

    Codes are kept batch by batch in `codes/`, so that a stopped run loses one batch at most.
    """
    folder, device = Path(config.output), device_of(config)
    generator = read_generator(config.generator_path).to(device)
    images = PosedImages(config.test, generator.config.image_resolution, extras=("depth", "parts"))
    num = min(config.num_images or len(images), len(images))
    batches = [
        stack([images[i] for i in range(start, min(start + config.batch_size, num))])
        for start in range(0, num, config.batch_size)
    ]
    summary: dict[str, Any] = {"made_from": made_from(config, generator, num), "methods": {}}
    views = {}
    for name, show in shows(config, generator, batches).items():
        rows, views[name] = measure(show, batches, images.names)
        write_rows(rows, folder / f"{name}.csv")
        summary["methods"][name] = summarize(rows)
    save_pictures(config, generator, batches[0], views, folder / "inversions.png")
    write_json(summary, folder / "summary.json")
    if config.metrics:
        update_section(Path(config.metrics), "prior", prior_numbers(summary))
    return folder / "summary.json"


def made_from(config: InvertHeadsConfig, generator: TriPlaneGenerator, num: int) -> dict[str, Any]:
    """What the numbers depend on."""
    files = {"generator": generator_hash(generator), "train": config.train, "test": config.test}
    return files | {"num_images": num, "optimization": dataclasses.asdict(config.optimization)}


def shows(config: InvertHeadsConfig, generator: TriPlaneGenerator, batches: list[Batch]) -> dict[str, Show]:
    """The floors and the optimised codes, by name."""
    stored = read_views(config.train, generator.config.image_resolution)
    floors: dict[str, Method[Any]] = {
        "mean_image": MeanView(stored),
        "nearest": NearestView(stored),
        "w_avg": AverageCode(generator),
    }
    found: dict[str, Show] = {name: show_method(method) for name, method in floors.items()}
    lpips = LPIPS("alex", config.lpips_path or None).to(generator.w_avg.device) if config.optimization.lpips else None
    for space in config.spaces:
        method = LatentOptimization(generator, config.optimization, space=space, lpips=lpips)
        found[space] = show_codes(method, optimized_codes(method, batches, Path(config.output) / "codes"))
    return found


def read_views(path: str, resolution: int) -> StoredViews:
    """The training images and depths, read with progress."""
    images = PosedImages(path, resolution, extras=("depth",))
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("training images", total=len(images))
        return StoredViews(images, lambda done: bar.update(task, completed=done))


def show_method(method: Method[Any]) -> Show:
    """What a method answers to each batch."""
    return lambda batch, rows: reconstruct(method, batch["image"], batch["c"])


def show_codes(method: LatentOptimization, codes: Tensor) -> Show:
    """The renders of codes (N, num_ws, w_dim) that were found before."""
    return lambda batch, rows: method.render(method.restore(codes[rows]), batch["c"])


def optimized_codes(method: LatentOptimization, batches: list[Batch], folder: Path) -> Tensor:
    """Codes (N, num_ws, w_dim) of all batches; those that `folder` holds are not found again.

    Raises: ValueError if it holds codes of other images or settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(f"steps in {method.space}", total=method.config.steps * len(batches))
        for i, batch in enumerate(batches):
            path, key = folder / f"{method.space}-{i:05d}.safetensors", batch_key(method, batch)
            if not path.exists():
                method.progress = lambda step, losses: bar.advance(task)
                _save_codes(method.invert(batch["image"], batch["c"]).ws, path, key)
            found.append(_load_codes(path, key))
            bar.update(task, completed=(i + 1) * method.config.steps)
    return torch.cat(found)


def batch_key(method: LatentOptimization, batch: Batch) -> str:
    """A hash of all that the codes of a batch depend on."""
    settings = json.dumps([method.space, generator_hash(method.generator), dataclasses.asdict(method.config)])
    digest = hashlib.sha256(settings.encode())
    for name in ("image", "c"):
        digest.update(batch[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _save_codes(ws: Tensor, path: Path, key: str) -> None:
    save_tensors({"ws": ws.cpu().contiguous()}, path, metadata={"made_from": key})


def _load_codes(path: Path, key: str) -> Tensor:
    tensors, metadata = load_tensors(path, remedy="Delete it to find its codes again.")
    if metadata.get("made_from") != key:
        raise ValueError(
            f"{path} holds codes of other images, another generator or other settings; delete its folder to find them "
            f"again, or choose another with output=FOLDER"
        )
    return tensors["ws"]


@torch.no_grad()
def measure(show: Show, batches: list[Batch], names: list[str]) -> tuple[list[Row], View]:
    """Numbers of every image, and the view of the first batch."""
    rows: list[Row] = []
    first = None
    for batch in batches:
        part = slice(len(rows), len(rows) + len(batch["image"]))
        view = show(batch, part)
        image, depth = view.image.cpu().clamp(-1, 1), view.image_depth.cpu()
        values = {
            "psnr": psnr(image, batch["image"]),
            "mse": mse(image, batch["image"]),
            "depth_error": depth_errors(depth, batch["depth"], batch["parts"]),
        }
        for i, name in enumerate(names[part]):
            rows.append({"name": name} | {key: float(value[i]) for key, value in values.items()})
        first = first or view
    assert first is not None
    return rows, first


def summarize(rows: list[Row]) -> dict[str, Any]:
    """Means over images, with their intervals."""
    found: dict[str, Any] = {"num_images": len(rows)}
    for name in METRICS:
        found |= mean_interval(torch.tensor([float(row[name]) for row in rows])).as_record(name)
    return found


def prior_numbers(summary: dict[str, Any]) -> dict[str, Any]:
    """`wplus_psnr`, `w_depth_error`, `nearest_psnr`, ...: what section `prior` records."""
    numbers: dict[str, Any] = {"inverted": summary["made_from"]}
    for method, values in summary["methods"].items():
        for metric in ("psnr", "depth_error"):
            for name in (metric, f"{metric}_interval"):
                numbers[f"{method.replace('w_plus', 'wplus')}_{name}"] = values[name]
    return numbers


def save_pictures(
    config: InvertHeadsConfig, generator: TriPlaneGenerator, batch: Batch, views: dict[str, Any], path: Path
) -> None:
    """A row per head: input, the answer of every method; then the true depth, and the depth of w_avg and the codes."""
    rendered = ["w_avg", *config.spaces]
    pictures = [batch["image"], *(view.image.cpu() for view in views.values())]
    depths = [batch["depth"], *(views[name].image_depth.cpu() for name in rendered)]
    pictures += [shown_depth(generator, depth) for depth in depths]
    save_grid(torch.stack([p[: config.num_shown] for p in pictures], 1).flatten(0, 1), path, columns=len(pictures))
