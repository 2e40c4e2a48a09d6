"""Compare the images of a generator, and of those before it, with the images of a data set."""

from pathlib import Path
from typing import Any

import torch
from eg3d.generator import TriPlaneGenerator
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from goae import build
from goae.config import PRIOR_STAGES, PriorConfig, PriorMetricsConfig, load_run
from goae.data.datasets import PosedImages
from goae.evaluation.distribution import (
    Features,
    check_number,
    distances,
    generated_features,
    halves,
    note_of_few,
    real_features,
)
from goae.evaluation.records import update_section
from goae.evaluation.results import file_hash
from goae.evaluation.runner import write_json
from goae.loading import read_generator
from goae.runs.prior import validate
from goae.runs.setup import device_of
from goae.training.tracking import read_metrics

Found = dict[str, Any]


def prior_metrics(config: PriorMetricsConfig) -> Path:
    """Write Fréchet and kernel distances, those between real images, and errors on known heads as JSON; its path."""
    device, weights = device_of(config), Path(config.weights)
    seen = config.images_seen or images_seen(weights)
    features = build.build_features(config.distribution, device)
    compared = {"": config.weights, "_warm_start": config.warm_start, "_previous": config.previous}
    generators = {name: read_generator(path).to(device) for name, path in compared.items() if path}
    resolution = generators[""].config.image_resolution
    images = PosedImages(config.images, resolution)
    others = PosedImages(config.floor_images, resolution) if config.floor_images else None
    check_number(images, least=2 if others else 4)
    check_number(others or images, least=2)
    heads = known_heads(config, images.resolution)
    real = features_of(images, config, features, device)
    made_from = files_of(config) | {"num_generated": config.distribution.num_samples, "num_real": len(real)}
    found: Found = {}
    for name, generator in generators.items():
        values = compare(config, generator, images, features, real) | from_factors(generator, heads, device)
        found |= {f"{key}{name}": value for key, value in values.items()}
    sides = real_sides(config, others, features, real, device)
    found |= {f"{distance}_floor": value for distance, value in distances(*sides).items()}
    made_from |= {"num_floor": [len(side) for side in sides]} | ({"num_heads": len(heads)} if heads else {})
    made_from |= note_of_few(min(config.distribution.num_samples, *map(len, (real, *sides))), real.shape[1])
    if seen is not None:
        found["images_seen"] = seen
    path = Path(config.output) if config.output else weights.with_name(f"{weights.stem}-metrics.json")
    write_json(found | made_from, path)
    if config.metrics:
        update_section(Path(config.metrics), "prior", prior_numbers(found, made_from))
    return path


def images_seen(weights: Path) -> int | None:
    """Real images that a stage of scripts/train_prior.py had drawn when it wrote these weights; None for other files.

    Raises: ValueError if the run's log does not tell, as while the stage goes on.
    """
    stage = weights.stem.removesuffix("-best")
    if stage not in PRIOR_STAGES[1:] or not (weights.parent / "config.yaml").exists():
        return None
    fit = getattr(load_run(weights.parent, PriorConfig), stage).fit
    metric = f"val/{fit.monitor}"
    rows = [row for row in read_metrics(weights.parent, stage) if metric in row]
    if not rows or (weights.stem == stage and rows[-1]["step"] != fit.steps):
        raise ValueError(
            f"{weights.parent / stage}.jsonl has no {metric} of the step at which {weights.name} was written; train "
            f"the stage to its end, or give the number of images with images_seen=N"
        )
    row = rows[-1] if weights.stem == stage else min(rows, key=lambda row: row[metric])
    return int(row["step"]) * int(fit.batch_size)


def files_of(config: PriorMetricsConfig) -> Found:
    """What the numbers depend on besides the counts."""
    weights = Path(config.weights)
    found = {"weights": weights.name, "sha256": file_hash(weights), "images": config.images}
    for name in ("warm_start", "previous"):
        if path := getattr(config, name):
            found[f"{name}_sha256"] = file_hash(Path(path))
    if config.floor_images:
        found["floor_images"] = config.floor_images
    return found | {"features": config.distribution.features, "seed": config.seed}


def features_of(images: PosedImages, config: PriorMetricsConfig, features: Features, device: torch.device) -> Tensor:
    """Features (N, D) of all images of a data set."""
    return real_features(images, features, batch_size=config.distribution.batch_size, device=device)


def known_heads(config: PriorMetricsConfig, resolution: int) -> list[dict[str, Tensor]]:
    """The first procedural heads of `images`, as many as configured, with their factors, depth and parts."""
    if config.heads == 0:
        return []
    images = PosedImages(config.images, resolution, extras=("factors", "depth", "parts"))
    return [images[i] for i in range(min(config.heads, len(images)))]


def from_factors(generator: TriPlaneGenerator, heads: list[dict[str, Tensor]], device: torch.device) -> Found:
    """Mean PSNR and depth error of heads rendered from their true factors; nothing without heads."""
    if not heads:
        return {}
    errors = validate(generator, samples=heads, batch_size=10, device=device)
    return {"factors_psnr": errors["psnr"], "factors_depth_error": errors["depth"]}


def compare(
    config: PriorMetricsConfig, generator: TriPlaneGenerator, images: PosedImages, features: Features, real: Tensor
) -> dict[str, float]:
    """Both distances of a generator, whose z and cameras are those of every other that is compared."""
    wanted = config.distribution
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("generated images", total=wanted.num_samples)
        generated = generated_features(
            generator,
            images.labels,
            features,
            num=wanted.num_samples,
            batch_size=wanted.batch_size,
            seed=config.seed,
            progress=lambda done: bar.update(task, completed=done),
        )
    return distances(generated, real)


def real_sides(
    config: PriorMetricsConfig, others: PosedImages | None, features: Features, real: Tensor, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Features of the two sets of real images whose distances are the floor.

    The `others` stand in for the generated ones: as many of them, from the first, where there are so many.
    """
    if others is None:
        return halves(real)
    num = min(config.distribution.num_samples, len(others))
    return features_of(others, config, features, device)[:num], real


def prior_numbers(found: Found, made_from: Found) -> Found:
    """`images_seen`, `fd`, `kid_floor`, ...: what section `prior` records; None for what was not measured."""
    kinds = ("", "_floor", "_warm_start", "_previous")
    names = ["images_seen", *(f"{number}{kind}" for kind in kinds for number in ("fd", "kid"))]
    names += [f"factors_{number}{kind}" for kind in kinds if kind != "_floor" for number in ("psnr", "depth_error")]
    return {name: found.get(name) for name in names} | {"compared": made_from}
