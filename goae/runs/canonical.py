"""Canonical statistics of a configuration's generator."""

from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from goae import build
from goae.config import TrainConfig
from goae.runs.setup import device_of
from goae.training.canonical import canonical_statistics


def canonical_stats(config: TrainConfig) -> Path:
    """Sample W_c, rendered as training does, and write the statistics where it looks; a stopped run goes on."""
    path = build.stats_path(config)
    generator = build.for_training(config, build.build_generator(config)).to(device_of(config))
    background = build.build_background(config.perception, device_of(config))
    partial = path.with_name(path.name + ".partial")
    wanted = config.canonical
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("canonical samples", total=wanted.num_samples)
        for stats in canonical_statistics(
            generator,
            background,
            num_samples=wanted.num_samples,
            batch_size=wanted.batch_size,
            seed=wanted.seed,
            erode=wanted.erode,
            partial=partial,
        ):
            progress.update(task, completed=stats.num_samples)
    stats.save(path)
    partial.unlink(missing_ok=True)
    print(f"D_avg {float(stats.d_avg):.4f} over {stats.num_samples} samples")
    return path
