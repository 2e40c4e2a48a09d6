"""Measure methods by a protocol: resumable, in one process or several, with the same results."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from eg3d.limits import read_json
from rich.console import Console
from rich.progress import Progress

from goae import build
from goae.config import ProtocolConfig
from goae.data.datasets import PosedImages
from goae.evaluation.measuring import METRICS, Measures
from goae.evaluation.protocols import COLUMNS, Task, chunks, measure_images, measure_method
from goae.evaluation.results import Results
from goae.evaluation.runner import machine, write_json
from goae.evaluation.sets import read_sets, write_sets
from goae.evaluation.stored import is_complete
from goae.runs.protocol_inputs import (
    chosen_settings,
    drawn_settings,
    drawn_tasks,
    given_of,
    open_tasks,
    settings_of,
    subset_tasks,
)
from goae.runs.times import time_method

if TYPE_CHECKING:  # it takes seconds to import, and a configuration is checked without it
    from lightning_fabric import Fabric

FREE = ("device",)  # what results that are all there may have been made on


class Finished(NamedTuple):
    """What a protocol has measured."""

    results: dict[str, Results]  # of each method
    columns: list[str]  # the numbers
    settings: dict[str, Any]  # what all rows depend on; of the first process alone


@dataclass(frozen=True)
class Job:
    """What measuring any method of a protocol needs."""

    config: ProtocolConfig
    fabric: "Fabric"
    images: PosedImages
    tasks: Sequence[Task]
    measures: Measures
    widths: list[int]  # how many features the networks behind distances between sets have
    settings: dict[str, Any]  # of the first process alone

    @property
    def columns(self) -> list[str]:
        """Of a row, behind the numbers of task and place."""
        return [*COLUMNS, *self.measures.columns, "failed"]

    def results(self, name: str) -> Results:
        """Where a method's rows go."""
        places = len(self.tasks[0].targets)
        return Results(self.config.folder, name, self.columns, width=sum(self.widths), places=places)

    def share(self, numbers: Sequence[int], size: int, done: set[int]) -> list[Sequence[int]]:
        """The batches that this process has to do."""
        return chunks(numbers, size, done)[self.fabric.global_rank :: self.fabric.world_size]


def measure(config: ProtocolConfig, fabric: "Fabric") -> Finished:
    """Make what is missing of the rows, distances and times of all methods.

    Rows that are there are kept, if they were made with the same settings.
    """
    job, given = open_job(config, fabric), given_of(config, fabric.device)
    tested = {name: build.build_method(name, given) for name in config.methods}
    complete = {name for name in tested if is_complete(config.folder, name)}
    fabric.barrier()  # every process has looked before the first one writes
    real = measure_real(job) if complete < tested.keys() else None
    for name, method in tested.items():
        measure_one(job, name, method, None if name in complete else real)
        if fabric.is_global_zero and config.protocol == "input_view" and config.timing_images:
            time_method(config, name, method, job.images, fabric.device)
        fabric.barrier()
    return Finished({name: job.results(name) for name in tested}, job.measures.columns, job.settings)


def check_complete(config: ProtocolConfig, present: dict[str, Any], fabric: "Fabric") -> None:
    """Refuse results that are all there but were made with other weights, settings, images or networks.

    Args:
        present: `present_settings` of the protocol; what is not there is not compared.
    Raises: ValueError listing each setting that differs; FileNotFoundError for weights.
    """
    given = given_of(config, fabric.device)
    for name in config.methods:
        tested, results = build.build_method(name, given), Results.stored(config.folder, name)
        stored, chosen = results.settings, chosen_settings(config) | tested.settings
        metrics = stored["metrics"] | config.metrics.chosen | present["metrics"]
        current = stored | chosen | present | {"metrics": metrics} | drawn_settings(config, tested)
        results.check(current, defaults=METRICS | tested.defaults)


def open_job(config: ProtocolConfig, fabric: "Fabric") -> Job:
    """Open the images and what measures."""
    images, tasks = open_tasks(config)
    networks = build.build_meters(config.metrics, config.pseudo_depth.of(config.protocol), fabric.device)
    measures = Measures(networks, resolution=config.metric_resolution, grid=config.metrics.grid)
    shared = {}
    if fabric.is_global_zero:
        shared = settings_of(config, images, tasks, build.networks_settings(config.metrics, networks), fabric.device)
    return Job(config, fabric, images, tasks, measures, measures.widths(fabric.device), shared)


def measure_real(job: Job) -> Results:
    """The features of the images themselves."""
    targets = sorted({i for task in job.tasks for i in task.targets})
    real = Results(job.config.folder, "images", ["target"], width=sum(job.widths), places=1)
    done = prepare(real, job.settings, job.fabric, METRICS)
    todo = job.share(range(len(targets)), job.config.batch_size, done)
    rank, device = job.fabric.global_rank, job.fabric.device
    measure_images(job.images, targets, todo, job.measures, real, rank=rank, device=device)
    finish(real, job.fabric)
    return real


def measure_one(job: Job, name: str, tested: build.Tested, real: Results | None) -> None:
    """A method's rows and distances; `real` is None for one that is all there, whose settings are compared."""
    config, fabric, results = job.config, job.fabric, job.results(name)
    settings, numbers = job.settings | {"method": name} | tested.settings, drawn_tasks(config, job.tasks, tested)
    settings |= drawn_settings(config, tested)
    if len(numbers) < len(job.tasks):
        settings |= {"subset": [job.tasks[i].source for i in numbers]}
    if real is None:
        if fabric.is_global_zero:
            results.check(settings, besides=FREE, defaults=METRICS | tested.defaults)
        return
    done = prepare(results, settings, fabric, METRICS | tested.defaults)
    todo = job.share(numbers, 1 if tested.one_by_one else config.batch_size, done)
    with Progress(console=Console(stderr=True), disable=not fabric.is_global_zero) as bar:
        shown = bar.add_task(name, total=sum(len(chunk) for chunk in todo))
        cost = Cost(results.cost_path, fabric)

        def progress(inverted: int) -> None:
            bar.advance(shown, inverted)
            cost.add(inverted)

        measure_method(
            tested.method,
            job.images,
            job.tasks,
            todo,
            job.measures,
            results,
            novel=config.protocol == "novel_view",
            rank=fabric.global_rank,
            device=fabric.device,
            progress=progress,
        )
    finish(results, fabric)
    if fabric.is_global_zero and (todo or not read_sets(results)):
        subset = subset_tasks(config, job.tasks)
        write_sets(results, real, job.widths, [numbers, *([subset] if len(subset) < len(numbers) else [])])


class Cost:
    """Seconds that the first process spent on a method, kept on disk from one start to the next."""

    def __init__(self, path: Path, fabric: "Fabric") -> None:
        self.path = path if fabric.is_global_zero else None
        self.began = time.perf_counter()
        self.facts = machine(fabric.device) | {"processes": fabric.world_size}

    def add(self, inverted: int) -> None:
        """Count the time since the last call, for so many inversions more."""
        now = time.perf_counter()
        if self.path is not None:
            before = read_json(self.path) if self.path.exists() else {"seconds": 0.0, "inversions": 0}
            spent = {
                "seconds": before["seconds"] + now - self.began,
                "inversions": before["inversions"] + inverted,
            }
            write_json(spent | self.facts, self.path)
        self.began = now


def prepare(results: Results, settings: dict[str, Any], fabric: "Fabric", defaults: dict[str, Any]) -> set[int]:
    """Claim and merge what is there, on one process before all others read it. Returns: the complete tasks."""
    if fabric.is_global_zero:
        results.claim(settings, defaults=defaults)
        results.merge()
    fabric.barrier()
    done = results.merge()  # nothing is left to merge: every process reads the same
    fabric.barrier()
    return done


def finish(results: Results, fabric: "Fabric") -> None:
    """Merge what all processes wrote."""
    fabric.barrier()
    if fabric.is_global_zero:
        results.merge()
    fabric.barrier()
