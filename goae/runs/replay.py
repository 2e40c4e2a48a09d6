"""A training step that failed, run again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from goae.config import RANDOM, CameraConfig, PriorConfig, TrainConfig, check_device, load_run
from goae.runs.prior import train_prior
from goae.runs.renderers import stored_renderer
from goae.runs.train import train
from goae.runs.train_camera import train_camera
from goae.training.nonfinite import Failure, NonFiniteLossError, read_failure

JOBS: dict[str, tuple[type[Any], Callable[[Any, Failure], Path]]] = {
    "encoder": (TrainConfig, train),
    "refiner": (TrainConfig, train),
    "warm_start": (PriorConfig, train_prior),
    "adversarial": (PriorConfig, train_prior),
    "camera": (CameraConfig, train_camera),
}


def replay(folder: Path, *, device: str = "") -> tuple[Failure, str, Failure | None]:
    """Run a bad step again in one process, from the checkpoint in its record; nothing is written.

    Args:
        folder: the record, below `failures` of a run folder.
        device: auto, cpu, cuda or cuda:N; empty: the run's.
    Returns: the record; what fails now, in words; and the numbers of now, None if the step is good now.
    Raises: ValueError if `folder` is no record; as training does.
    """
    failure = read_failure(folder)
    schema, job = JOBS[failure.stage]
    config = load_run(folder, schema)
    config.num_devices, config.device = 1, device or config.device
    check_device(config.device)
    if config.renderer == "auto":
        config.renderer = stored_renderer(folder.parents[1])
    config.paths.backbone = config.paths.backbone or RANDOM  # what an empty path meant before it had to be said
    try:
        job(config, failure)
    except NonFiniteLossError as error:
        return failure, str(error), error.failure
    return failure, "", None
