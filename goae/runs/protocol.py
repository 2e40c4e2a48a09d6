"""Measure methods by one of the paper's protocols: resumable, in one process or several, with the same results."""

import json
import platform
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import Progress

from goae import build
from goae.config import ProtocolConfig, TrainConfig, load_run
from goae.data.datasets import PosedImages
from goae.evaluation.measuring import Measures
from goae.evaluation.protocols import (
    COLUMNS,
    People,
    Task,
    chunks,
    input_view_tasks,
    measure_images,
    measure_method,
    novel_view_tasks,
    paired_differences,
    summarize_method,
)
from goae.evaluation.results import Results, images_hash
from goae.evaluation.runner import hardware, write_json
from goae.evaluation.timing import inversion_seconds
from goae.runs.setup import launch, trained

PEOPLE = ("person", "expression", "view")


def run_protocol(config: ProtocolConfig) -> Path:
    """Write `<method>.csv`, one row per shown image, and `summary.json` into the results' folder; returns the latter.

    Rows that are there are kept, if they were made with the same settings.
    """
    fabric = launch(config)
    images, tasks = open_tasks(config)
    networks = build.build_metric_networks(config.metrics, config.pseudo_depth.of(config.protocol), fabric.device)
    measures = Measures(networks, resolution=config.metric_resolution, grid=config.metrics.grid)
    given = build.Given(**weight_files(config), preset=config.preset_name, device=fabric.device)
    tested = {name: build.build_method(name, given) for name in config.methods}
    width = measures.width(fabric.device)
    columns = [*COLUMNS, *measures.columns, "failed"]
    places = len(tasks[0].targets)
    shared = {}
    if fabric.is_global_zero:
        shared = settings_of(config, images, tasks, build.networks_settings(config.metrics, networks), fabric.device)

    targets = sorted({i for task in tasks for i in task.targets})
    real = Results(config.folder, "images", ["target"], width=width, places=1)
    done = prepare(real, shared, fabric)
    todo = chunks(len(targets), config.batch_size, done)[fabric.global_rank :: fabric.world_size]
    measure_images(images, targets, todo, measures, real, rank=fabric.global_rank, device=fabric.device)
    finish(real, fabric)

    results = {name: Results(config.folder, name, columns, width=width, places=places) for name in config.methods}
    for name, method in tested.items():
        done = prepare(results[name], shared | {"method": name} | method.settings, fabric)
        todo = chunks(len(tasks), config.batch_size, done)[fabric.global_rank :: fabric.world_size]
        with Progress(console=Console(stderr=True), disable=not fabric.is_global_zero) as bar:
            shown = bar.add_task(name, total=sum(len(chunk) for chunk in todo))
            measure_method(
                method.method,
                images,
                tasks,
                todo,
                measures,
                results[name],
                novel=config.protocol == "novel_view",
                rank=fabric.global_rank,
                device=fabric.device,
                progress=partial(bar.advance, shown),
            )
        finish(results[name], fabric)
        if fabric.is_global_zero and config.protocol == "input_view" and config.timing_images:
            time_method(config, name, method, images, fabric.device)
        fabric.barrier()
    if fabric.is_global_zero:
        write_json(summary(config, results, real, measures.columns, shared), config.folder / "summary.json")
    fabric.barrier()
    return config.folder / "summary.json"


def open_tasks(config: ProtocolConfig) -> tuple[PosedImages, list[Task]]:
    """The test images with what the metrics need of them, and the protocol's tasks.

    Raises: ValueError if the novel-view protocol finds no numbers of persons, frames and views.
    """
    path, metrics = config.images.of(config.protocol), config.metrics
    maps = ("depth", "parts") if metrics.true_depth or metrics.geometry == "true" else ()
    novel = config.protocol == "novel_view"
    has_people = "people.npz" in PosedImages(path, config.resolution, radius=config.radius or None).source.names()
    if novel and not has_people:
        raise ValueError(
            f"{path} has no people.npz with {', '.join(PEOPLE)} of every image, which the novel-view protocol needs; "
            "scripts/prepare_mead.py and scripts/make_mini_data.py write it"
        )
    rows = PEOPLE if novel else ("person",) if has_people else ()
    images = PosedImages(path, config.resolution, extras=(*maps, *rows), radius=config.radius or None)
    if novel:
        tasks = novel_view_tasks(People(*(images.rows[name] for name in PEOPLE)), config.yaws, config.inputs)
    else:
        tasks = input_view_tasks(images.rows["person"] if has_people else torch.arange(len(images)))
    return images, tasks[: config.num_inputs or None]


def weight_files(config: ProtocolConfig) -> dict[str, str]:
    """Generator, encoder and refiner: the files that were given, or those of the run."""
    if config.generator_path:
        return {
            "generator": config.generator_path,
            "encoder": config.encoder_path,
            "refiner": config.refiner_path,
        }
    run = load_run(Path(config.runs) / config.run, TrainConfig)
    files = {name: str(trained(run, name)) for name in ("encoder", "refiner")}
    return {"generator": run.paths.generator} | files


def settings_of(
    config: ProtocolConfig, images: PosedImages, tasks: Sequence[Task], metrics: dict[str, Any], device: torch.device
) -> dict[str, Any]:
    """What every row depends on besides its method."""
    return {
        "protocol": config.protocol,
        "images_sha256": images_hash(images),
        "num_tasks": len(tasks),
        "yaws": config.yaws if config.protocol == "novel_view" else [],
        "inputs": config.inputs if config.protocol == "novel_view" else [],
        "resolution": config.resolution,
        "metric_resolution": config.metric_resolution,
        "batch_size": config.batch_size,
        "device": device.type,
        "metrics": metrics,
    }


def prepare(results: Results, settings: dict[str, Any], fabric: Fabric) -> set[int]:
    """Claim and merge what is there, on one process before all others read it. Returns: the complete tasks."""
    if fabric.is_global_zero:
        results.claim(settings)
        results.merge()
    fabric.barrier()
    done = results.merge()  # nothing is left to merge: every process reads the same
    fabric.barrier()
    return done


def finish(results: Results, fabric: Fabric) -> None:
    """Merge what all processes wrote."""
    fabric.barrier()
    if fabric.is_global_zero:
        results.merge()
    fabric.barrier()


def time_method(
    config: ProtocolConfig, name: str, tested: build.Tested, images: PosedImages, device: torch.device
) -> None:
    """Write `<method>.time.json`, unless it is there."""
    path = config.folder / f"{name}.time.json"
    wanted = {"timing_images": config.timing_images, "warm_up": config.warm_up}
    if path.exists():
        stored = json.loads(path.read_text())
        if {key: stored.get(key) for key in wanted} == wanted:
            return
    samples = [images[i] for i in range(min(config.timing_images, len(images)))]
    found = inversion_seconds(tested.method, samples, warm_up=config.warm_up, device=device, steps=tested.steps)
    write_json(found | wanted | machine(device), path)


def machine(device: torch.device) -> dict[str, Any]:
    """What a time was measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return hardware([name]) | {"torch": torch.__version__}


def summary(
    config: ProtocolConfig, results: dict[str, Results], real: Results, columns: list[str], settings: dict[str, Any]
) -> dict[str, Any]:
    """Numbers of all methods, and their differences on the same images."""
    image_rows, image_features = real.read()
    by_name = {row["target"]: features for row, features in zip(image_rows, image_features, strict=True)}
    read = {name: found.read() for name, found in results.items()}
    methods: dict[str, Any] = {}
    for name, (rows, features) in read.items():
        methods[name] = summarize_method(rows, features, by_name, columns, resamples=config.resamples)
        path = config.folder / f"{name}.time.json"
        if path.exists():
            methods[name]["seconds"] = json.loads(path.read_text())
            methods[name]["table"]["time"] = methods[name]["seconds"]["time"]
    names = list(results)
    differences = {
        f"{second} - {first}": paired_differences(read[second][0], read[first][0], columns, resamples=config.resamples)
        for i, first in enumerate(names)
        for second in names[i + 1 :]
    }
    head = {"protocol": config.protocol, "world": config.world_name, "settings": settings}
    return head | {"methods": methods, "differences": differences}
