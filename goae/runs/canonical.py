"""Canonical statistics of a configuration's generator."""

from pathlib import Path

from eg3d.generator import TriPlaneGenerator
from rich.console import Console
from rich.progress import Progress

from goae import build
from goae.config import TrainConfig
from goae.runs.setup import device_of
from goae.training.canonical import CanonicalStats, canonical_statistics


def canonical_stats(config: TrainConfig) -> Path:
    """Sample W_c, rendered as training does, and write the statistics where it looks; a stopped run goes on.

    Raises: ValueError if other statistics are there, which may be those that are shipped.
    """
    path = build.stats_path(config)
    device = device_of(config)
    generator = build.for_training(config, build.build_generator(config)).to(device)
    background = build.build_background(config.perception, device)
    partial = path.with_name(path.name + ".partial")
    wanted = config.canonical
    if path.exists():
        check_same(path, generator, wanted.num_samples, build.mask_of(config))
        print(f"{path} is complete")
        return path
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("canonical samples", total=wanted.num_samples)
        for stats in canonical_statistics(
            generator,
            background,
            num_samples=wanted.num_samples,
            batch_size=wanted.batch_size,
            seed=wanted.seed,
            erode=wanted.erode,
            mask=build.mask_of(config),
            partial=partial,
        ):
            progress.update(task, completed=stats.num_samples)
    stats.save(path)
    partial.unlink(missing_ok=True)
    print(f"D_avg {float(stats.d_avg):.4f} over {stats.num_samples} samples")
    return path


def check_same(path: Path, generator: TriPlaneGenerator, num_samples: int, mask: str) -> None:
    """Raises: ValueError unless the file holds as many samples of this generator, rendered and masked likewise."""
    remedy = "Name another file with paths.canonical_stats=FILE, for training too, or delete this one"
    try:
        found = CanonicalStats.load(path, generator, mask=mask).num_samples
    except ValueError as error:
        raise ValueError(f"{path} is there already. {error} {remedy} first.") from None
    if found != num_samples:
        raise ValueError(f"{path} is there already, over {found} samples, not {num_samples}. {remedy}.")
