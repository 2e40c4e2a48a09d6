"""Measure methods by one of the paper's protocols: resumable, in one process or several, with the same results."""

import json
import platform
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import Progress

from goae import build
from goae.config import ProtocolConfig, TrainConfig, find_run, load_run
from goae.data.datasets import PosedImages
from goae.evaluation.measuring import Measures
from goae.evaluation.protocols import (
    COLUMNS,
    RECORDED_METHODS,
    People,
    Task,
    chunks,
    common_tasks,
    draw_subset,
    input_view_tasks,
    measure_images,
    measure_method,
    method_record,
    novel_view_tasks,
    of_tasks,
    paired_differences,
    summarize_method,
)
from goae.evaluation.records import update_section
from goae.evaluation.results import Results, file_hash, images_hash
from goae.evaluation.runner import hardware, write_json
from goae.evaluation.timing import inversion_seconds
from goae.runs.setup import launch, trained

if TYPE_CHECKING:  # it takes seconds to import, and a configuration is checked without it
    from lightning_fabric import Fabric

PEOPLE = ("person", "expression", "view")
SECTIONS = {"input_view": "goae.test", "novel_view": "goae.multiview"}  # of the file of numbers


class Finished(NamedTuple):
    """What a protocol has measured."""

    results: dict[str, Results]  # of each method
    images: Results  # of the images themselves
    columns: list[str]  # the numbers
    settings: dict[str, Any]  # what all rows depend on; of the first process alone


def run_protocol(config: ProtocolConfig) -> Path:
    """Write `<method>.csv`, one row per shown image, and `summary.json` into the results' folder; returns this."""
    fabric = launch(config)
    found = measure(config, fabric)
    if fabric.is_global_zero:
        write_json(
            summary(config, found.results, found.images, found.columns, found.settings), config.folder / "summary.json"
        )
        if config.records:
            record(config, found)
    fabric.barrier()
    return config.folder / "summary.json"


def measure(config: ProtocolConfig, fabric: "Fabric") -> Finished:
    """Make what is missing of the rows and times of all methods.

    Rows that are there are kept, if they were made with the same settings.
    """
    images, tasks = open_tasks(config)
    networks = build.build_meters(config.metrics, config.pseudo_depth.of(config.protocol), fabric.device)
    measures = Measures(networks, resolution=config.metric_resolution, grid=config.metrics.grid)
    given = build.Given(
        weight_files(config),
        config.baselines,
        lpips=config.metrics.lpips,
        lpips_path=config.metrics.lpips_path,
        device=fabric.device,
    )
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
    todo = chunks(range(len(targets)), config.batch_size, done)[fabric.global_rank :: fabric.world_size]
    measure_images(images, targets, todo, measures, real, rank=fabric.global_rank, device=fabric.device)
    finish(real, fabric)

    results = {name: Results(config.folder, name, columns, width=width, places=places) for name in config.methods}
    for name, method in tested.items():
        settings, numbers = shared | {"method": name} | method.settings, drawn_tasks(config, tasks, method)
        if len(numbers) < len(tasks):
            settings |= {"subset": [tasks[i].source for i in numbers]}
        done = prepare(results[name], settings, fabric)
        todo = chunks(numbers, 1 if method.one_by_one else config.batch_size, done)[
            fabric.global_rank :: fabric.world_size
        ]
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
    return Finished(results, real, measures.columns, shared)


def record(config: ProtocolConfig, found: Finished) -> None:
    """Put the numbers of GOAE's two methods, and what they depend on, into the file of numbers."""
    for method, name in RECORDED_METHODS.items():
        if method in found.results:
            results = found.results[method]
            numbers = method_record(results.read()[0], found.columns, resamples=config.resamples)
            values = {name: numbers | {"made_from": results.settings}}
            update_section(Path(config.records), SECTIONS[config.protocol], values)


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


def drawn_tasks(config: ProtocolConfig, tasks: Sequence[Task], tested: build.Tested) -> Sequence[int]:
    """Numbers of the tasks that a method is measured on."""
    if not tested.optimises:
        return range(len(tasks))
    subset = config.subset
    counts = {"": subset.input_view, "0": subset.front}
    groups = {task.group for task in tasks}
    return draw_subset(tasks, {group: counts.get(group, subset.side) for group in groups}, subset.seed)


def weight_files(config: ProtocolConfig) -> build.Weights:
    """The files that were given, or those of the run; a rival's run has its own encoder and none of GOAE's."""
    rivals = {name: rival_file(config, name) for name in config.methods if getattr(config.rivals, name, "")}
    parts = config.rivals.parts_path
    if config.generator_path:
        files = config.generator_path, config.encoder_path, config.refiner_path
        return build.Weights(*files, preset=config.preset_name, rivals=rivals, parts=parts)
    run = load_run(find_run(config.runs, config.run), TrainConfig)
    if run.method != "goae":
        rivals[run.method] = str(trained(run, "encoder"))
        return build.Weights(run.paths.generator, rivals=rivals, parts=parts)
    refiner = run.run_dir / "refiner.safetensors"  # missing: encoders alone are measured
    files = run.paths.generator, str(trained(run, "encoder")), str(refiner) if refiner.exists() else ""
    return build.Weights(*files, preset=config.preset_name, rivals=rivals, parts=parts)


def rival_file(config: ProtocolConfig, name: str) -> str:
    """The encoder's file of rivals.<name>, which may be the folder of a run.

    Raises: ValueError if the run is one of another method; FileNotFoundError if its stage has not finished.
    """
    path = Path(getattr(config.rivals, name))
    if not path.is_dir():
        return str(path)
    run = load_run(path, TrainConfig)
    if run.method != name:
        raise ValueError(f"rivals.{name} is {path}, which is a run of method={run.method}")
    own = config.generator_path or load_run(find_run(config.runs, config.run), TrainConfig).paths.generator
    if file_hash(Path(own)) != file_hash(Path(run.paths.generator)):
        raise ValueError(
            f"rivals.{name} is {path}, which was trained on the generator {run.paths.generator}, but {own} is "
            "measured; codes mean nothing to another generator"
        )
    file = path / "encoder.safetensors"
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist: stage `encoder` of this run has not finished")
    return str(file)


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


def prepare(results: Results, settings: dict[str, Any], fabric: "Fabric") -> set[int]:
    """Claim and merge what is there, on one process before all others read it. Returns: the complete tasks."""
    if fabric.is_global_zero:
        results.claim(settings)
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


def time_method(
    config: ProtocolConfig, name: str, tested: build.Tested, images: PosedImages, device: torch.device
) -> None:
    """Write `<method>.time.json`, unless it is there."""
    path = config.folder / f"{name}.time.json"
    wanted = {"timing_images": config.timing_images, "warm_up": config.warm_up}
    if tested.optimises:
        wanted = {"timing_images": config.subset.timing_images, "warm_up": min(1, config.warm_up)}
    if not wanted["timing_images"]:
        return
    if path.exists():
        stored = json.loads(path.read_text())
        if {key: stored.get(key) for key in wanted} == wanted:
            return
    samples = [images[i] for i in range(min(wanted["timing_images"], len(images)))]
    found = inversion_seconds(tested.method, samples, warm_up=wanted["warm_up"], device=device, steps=tested.steps)
    iterations = {} if tested.iterations is None else {"iterations_at_most": tested.iterations}
    write_json(found | wanted | iterations | machine(device), path)


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
    differences = {}
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            pair = read[second][0], read[first][0]
            tasks = common_tasks(pair)
            a, b = ([rows[k] for k in of_tasks(rows, tasks)] for rows in pair)
            differences[f"{second} - {first}"] = paired_differences(a, b, columns, resamples=config.resamples)
    head = {"protocol": config.protocol, "world": config.world_name, "settings": settings}
    whole = head | {"methods": methods, "differences": differences}
    shared = common_tasks([rows for rows, _ in read.values()])
    if any({row["task"] for row in rows} != shared for rows, _ in read.values()):
        on_subset: dict[str, Any] = {}
        for name, (rows, features) in read.items():
            chosen = of_tasks(rows, shared)
            on_subset[name] = summarize_method(
                [rows[k] for k in chosen], features[chosen], by_name, columns, resamples=config.resamples
            )
        whole["subset"] = {"num_inputs": len(shared), "methods": on_subset}
    return whole
