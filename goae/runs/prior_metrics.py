"""Compare the images of a generator with those of a data set."""

import hashlib
from pathlib import Path

from eg3d import checkpoint
from rich.console import Console
from rich.progress import Progress

from goae import build
from goae.config import PriorMetricsConfig
from goae.data.datasets import PosedImages
from goae.evaluation.distribution import distances, floor, generated_features, real_features
from goae.evaluation.runner import write_json
from goae.runs.setup import device_of


def prior_metrics(config: PriorMetricsConfig) -> Path:
    """Write Fréchet and kernel distance, and those between halves of the real images, as JSON; returns its path."""
    wanted, device = config.distribution, device_of(config)
    weights = Path(config.weights)
    generator = checkpoint.load(weights).to(device)
    images = PosedImages(config.images, generator.config.image_resolution)
    features = build.build_features(wanted, device)
    real = real_features(images, features, batch_size=wanted.batch_size, device=device)
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
    found = distances(generated, real) | floor(real)
    made_from = {
        "weights": weights.name,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "images": config.images,
        "features": wanted.features,
        "num_generated": len(generated),
        "num_real": len(real),
        "seed": config.seed,
    }
    path = Path(config.output) if config.output else weights.with_name(f"{weights.stem}-metrics.json")
    write_json(found | made_from, path)
    return path
