"""What a run of training will need, before it starts: data, files, parameters, time, memory, disk."""

import copy
import os
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from eg3d.generator import TriPlaneGenerator
from torch import Tensor, nn

from goae import build
from goae.config import TrainConfig, compare_run
from goae.data.copies import count_mirrored
from goae.fetching.fetch import entry
from goae.models.discriminator import LatentDiscriminator
from goae.models.goae import GOAE
from goae.runs.needs import Need, needed_files
from goae.runs.setup import check_order, check_splits, launch, open_images
from goae.runs.train import (
    NUM_PREVIEWS,
    build_parts,
    build_stage,
    fit_config,
    fit_stage,
    load_trained_encoder,
    open_splits,
    stages_to_do,
)
from goae.training import checkpoint
from goae.training.encoder_stage import EncoderStage
from goae.training.optim import OptimizerConfig, build_optimizer
from goae.training.preview import COLUMNS
from goae.training.tracking import LoggingConfig, Tracker

if TYPE_CHECKING:  # it takes seconds to import, and a configuration is checked without it
    from lightning_fabric import Fabric

TIMED_STEPS = 3  # after one that warms up
PNG = 0.6  # bytes of a picture's PNG over those of its pixels, roughly


class EnoughError(Exception):
    """All steps that were to be timed are done."""


class StopWatch(Tracker):
    """Takes the time of each step, writes nothing, and ends the loop when it has enough of them."""

    def __init__(self, run_dir: Path, device: torch.device) -> None:
        super().__init__(run_dir, LoggingConfig(), active=False)
        self.device, self.seconds = device, list[float]()

    def start(self, stage: str, step: int, steps: int) -> None:
        """Begin to count."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.since = time.perf_counter()

    def advance(self, step: int) -> None:
        """One step is done. Raises: EnoughError after the last that is timed."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds.append(now - self.since)
        self.since = now
        if len(self.seconds) > TIMED_STEPS:
            raise EnoughError


@dataclass(frozen=True)
class Cost:
    """What steps of a stage take: seconds of the first one, of a step on average, and bytes at the peak."""

    warm_up: float
    step: float
    memory: int


@dataclass(frozen=True)
class Network:
    """A network on the meta device, and what updates it in the stages to do; frozen without an optimiser."""

    module: nn.Module
    stage: str = ""
    optimizer: OptimizerConfig | None = None


def plan(config: TrainConfig) -> bool:
    """Print the plan of a run, on one screen; nothing is written, and nothing of the run is started.

    Returns: whether all files are there, all images can be read, and there is enough space on the disk.
    Raises: ValueError if the run could not go on with this configuration, as training does.
    """
    todo = stages_to_do(config)
    if not todo:
        print(f"{config.run_dir}: training is complete")
        return True
    changes = compare_run(config)
    check_order(config, todo)
    check_splits({name: fit_config(config, name) for name in todo}, config.num_devices)
    needs = needed_files(config, todo)
    missing = [need.key for need in needs if need.remedy]
    networks = networks_of(config, todo) if "rival.parts" not in missing else {}
    needed = disk_of(config, todo, networks)
    free = shutil.disk_usage(existing(Path(config.paths.runs))).free
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        print(f"{config.run_dir}: {', '.join(todo)}")
        for key, (before, after) in changes.items():
            print(f"  {key} changes from {before} to {after}")
        data, faulty = data_lines(config, missing)
        print("\n".join(data + file_lines(needs) + network_lines(networks)))
        print("\n".join(disk_lines(needed, free, config.paths.runs)))
        missing += faulty
    if missing:
        print(f"time and memory: not measured, since {', '.join(missing)} must be there, and whole, first")
        return False
    fabric = launch(config, deterministic=config.deterministic)
    costs = measure(config, todo, fabric)
    if fabric.is_global_zero:
        print("\n".join(time_lines(config, costs, fabric.device)))
    return sum(needed.values()) <= free


def data_lines(config: TrainConfig, missing: Sequence[str]) -> tuple[list[str], list[str]]:
    """Read all images, and say how many there are, and how many of them are mirrored copies of others.

    Returns: the lines, and the keys of the sets that cannot be used.
    """
    lines, faulty = ["data"], []
    for split in ("train", "validation"):
        if (key := f"data.{split}") in missing:
            continue
        try:
            images = open_images(config, getattr(config.data, split))
            images.check_pixels()
        except ValueError as error:
            faulty.append(key)
            lines += [f"  {split:<22} CANNOT BE USED", *(f"    {line}" for line in str(error).splitlines())]
        else:
            copies = f"of which {count_mirrored(images):,} are mirrored copies"
            lines.append(f"  {split:<22} {len(images):,} images, {copies}")
    return lines, faulty


def file_lines(needs: Sequence[Need]) -> list[str]:
    """List what is there, and below what is not, how to get it; as `scripts/fetch_weights.py --list` shows it."""
    lines = ["files"]
    for need in needs:
        lines.append(entry(need.state, need.key, need.file))
        lines += [" " * 12 + need.remedy] if need.remedy else []
    return lines


def networks_of(config: TrainConfig, todo: Sequence[str]) -> dict[str, Network]:
    """The networks of the method by name, without memory."""
    meta = torch.device("meta")
    with meta, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "for .* copying from a non-meta")  # of IDE-3D's parser
        generator = TriPlaneGenerator(config.generator)
        goae = build.build_networks(config, generator, meta)
        discriminator = LatentDiscriminator(config.latent_discriminator)
    stages = config.stages
    if "encoder" in todo:
        adversary = stages.encoder.adversary.optimizer if stages.encoder.adv else None
        networks = {
            "encoder": Network(goae.encoder, "encoder", stages.encoder.optimizer),
            "latent discriminator": Network(discriminator, "encoder", adversary),
        }
    else:
        networks = {"encoder": Network(goae.encoder)}
    if "refiner" in todo:
        assert isinstance(goae, GOAE)  # no other method has the stage
        networks["feature alignment"] = Network(goae.afa, "refiner", stages.refiner.optimizer)
    return networks | {"generator": Network(generator)}


def network_lines(networks: Mapping[str, Network]) -> list[str]:
    """Parameters, and where they are trained."""
    lines = ["parameters"]
    for name, network in networks.items():
        use = f"trained in stage {network.stage}" if network.optimizer else "not trained"
        lines.append(f"  {name:<22} {sum(p.numel() for p in network.module.parameters()):>13,}  {use}")
    return lines


def disk_of(config: TrainConfig, todo: Sequence[str], networks: Mapping[str, Network]) -> dict[str, int]:
    """Bytes that the run has still to write: checkpoints, weights, and pictures, roughly."""
    found = {"checkpoints": 0, "weights": 0, "pictures": 0}
    for name in todo:
        cfg = fit_config(config, name)
        own = [network for network in networks.values() if network.stage == name]
        main = size_of(own[0].module.state_dict()) if own else 0
        one = sum(size_of(network.module.state_dict()) + optimizer_bytes(network) for network in own)
        saved = max(-(-cfg.steps // cfg.save_every), 1)
        # the kept ones, and the next while it is written
        found["checkpoints"] += min(saved, checkpoint.KEEP + 1) * (one + main * cfg.averages)
        found["weights"] += main * (2 if cfg.evaluate_every else 1)
        pictures = cfg.steps // cfg.image_every + 1 if cfg.image_every else 0
        found["pictures"] += int(pictures * NUM_PREVIEWS * COLUMNS * 3 * config.data.resolution**2 * PNG)
    return found


def optimizer_bytes(network: Network) -> int:
    """Count the bytes that an optimiser remembers after an update; none is made for real, as nothing has memory."""
    if network.optimizer is None:
        return 0
    parameters = list(network.module.parameters())
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer = build_optimizer(network.optimizer, parameters)
    optimizer.step()
    return size_of(optimizer.state_dict()["state"])


def size_of(values: Any) -> int:
    """Bytes of all tensors in nested dictionaries."""
    if isinstance(values, Tensor):
        return values.numel() * values.element_size()
    return sum(size_of(value) for value in values.values()) if isinstance(values, Mapping) else 0


def disk_lines(needed: Mapping[str, int], free: int, folder: str) -> list[str]:
    """Say what is written, beside what is free."""
    parts = ", ".join(f"{name} {told_bytes(size)}" for name, size in needed.items())
    total = sum(needed.values())
    verdict = "" if total <= free else ": NOT ENOUGH"
    return ["disk", f"  {told_bytes(total)} at most ({parts}); {told_bytes(free)} free at {folder}{verdict}"]


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def measure(config: TrainConfig, todo: Sequence[str], fabric: "Fabric") -> dict[str, Cost]:
    """Train a few steps of each stage, with all rows of ws unlocked, and forget them."""
    trial, splits, costs = trial_of(config), open_splits(config), {}
    _, goae, perception = build_parts(trial, todo, fabric.device)
    if "encoder" not in todo:
        load_trained_encoder(trial, goae)
    for name in todo:
        stage = build_stage(trial, name, goae, perception, fabric.device)
        if isinstance(stage, EncoderStage):
            stage.schedule = lambda step: goae.encoder.last_stage
        with TemporaryDirectory() as folder, suppress(EnoughError):
            watch = StopWatch(Path(folder), fabric.device)
            elsewhere = replace(trial, paths=replace(trial.paths, runs=folder))
            fit_stage(elsewhere, stage, goae, perception, splits, fabric, watch)
        costs[name] = Cost(watch.seconds[0], average_step(watch.seconds, period_of(config, name)), peak(fabric.device))
    return costs


def trial_of(config: TrainConfig) -> TrainConfig:
    """The same training without pictures, validation and checkpoints; what is due rarely is due at every 2nd step."""
    trial = copy.deepcopy(config)
    trial.validation.num_images = 1
    trial.data.mirror = False  # costs nothing, and copies are told beside the number of images
    trial.stages.encoder.adversary.r1_every = min(trial.stages.encoder.adversary.r1_every, 2)
    for stage in (trial.stages.encoder, trial.stages.refiner):
        stage.background.every = min(stage.background.every, 2)
        stage.fit.steps = stage.fit.save_every = stage.fit.log_every = sys.maxsize
        stage.fit.image_every = stage.fit.evaluate_every = 0
    return trial


def period_of(config: TrainConfig, name: str) -> int:
    """Steps from one time that a rare term is due to the next: the shortest, so that no time is forgotten; 1: none."""
    stage = config.stages.encoder if name == "encoder" else config.stages.refiner
    periods = [stage.background.every] if stage.bg else []
    if name == "encoder" and config.stages.encoder.adv:
        periods.append(config.stages.encoder.adversary.r1_every)
    return min((period for period in periods if period > 1), default=1)


def average_step(seconds: Sequence[float], period: int) -> float:
    """Seconds of a step, from those of the first four, of which the third has what is due every `period` steps."""
    _, before, due, after = seconds
    plain = (before + after) / 2
    return plain + max(due - plain, 0.0) / period


def peak(device: torch.device) -> int:
    """Bytes: of the GPU since the stage began, or of this process in its life."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def time_lines(config: TrainConfig, costs: Mapping[str, Cost], device: torch.device) -> list[str]:
    """Say what steps cost, and what that makes of all of them."""
    where = "memory of the process"
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        where = f"of {told_bytes(facts.total_memory)} on {facts.name}"
    lines = [f"time and memory of {TIMED_STEPS} steps, without pictures, validation and checkpoints"]
    for name, cost in costs.items():
        cfg, newest = fit_config(config, name), checkpoint.newest(config.run_dir / "checkpoints" / name)
        left = cfg.steps - (checkpoint.step_of(newest) if newest else 0)
        whole = timedelta(seconds=round(left * cost.step))
        lines.append(
            f"  {name:<22} {left:,} steps of {cfg.batch_size} images to go: {whole} at {cost.step:.3g} s a step "
            f"(first step {cost.warm_up:.3g} s); at most {told_bytes(cost.memory)} {where}"
        )
    return lines


def told_bytes(size: int) -> str:
    """Format bytes in the unit that fits."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
