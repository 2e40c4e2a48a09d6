"""What a protocol measures: its images and tasks, the weights of its methods, and what every row depends on."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from goae import build
from goae.config import ProtocolConfig, TrainConfig, find_run, load_run
from goae.data.datasets import PosedImages
from goae.data.mini import drawn_split
from goae.evaluation.protocols import People, Task, draw_subset, input_view_tasks, novel_view_tasks
from goae.evaluation.results import file_hash, images_hash
from goae.runs.setup import trained
from goae.weights import find

PEOPLE = ("person", "expression", "view")


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
    return subset_tasks(config, tasks) if tested.optimises else range(len(tasks))


def subset_tasks(config: ProtocolConfig, tasks: Sequence[Task]) -> list[int]:
    """Numbers of the tasks that methods which optimise are measured on."""
    subset = config.subset
    counts = {"": subset.input_view, "0": subset.front}
    groups = {task.group for task in tasks}
    return draw_subset(tasks, {group: counts.get(group, subset.side) for group in groups}, subset.seed)


def weight_files(config: ProtocolConfig) -> build.Weights:
    """The files that were given, or those of the run; a rival's run has its own encoder and none of GOAE's."""
    rivals = {name: rival_file(config, name) for name in config.methods if getattr(config.rivals, name, "")}
    weights = partial(build.Weights, preset=config.preset_name, rivals=rivals, parts=config.rivals.parts_path)
    if config.generator_path:
        files = config.generator_path, config.encoder_path, config.refiner_path
        return weights(*files, force_fp32=config.force_fp32)
    run = load_run(find_run(config.runs, config.run), TrainConfig)
    forced = run.force_fp32 or config.force_fp32
    if run.method != "goae":
        rivals[run.method] = str(trained(run, "encoder"))
        return weights(run.paths.generator, force_fp32=forced)
    refiner = run.run_dir / "refiner.safetensors"  # missing: encoders alone are measured
    files = run.paths.generator, str(trained(run, "encoder")), str(refiner) if refiner.exists() else ""
    return weights(*files, force_fp32=forced)


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
    if file_hash(find(own)) != file_hash(find(run.paths.generator)):
        raise ValueError(
            f"rivals.{name} is {path}, which was trained on the generator {run.paths.generator}, but {own} is "
            "measured; codes mean nothing to another generator"
        )
    file = path / "encoder.safetensors"
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist: stage `encoder` of this run has not finished")
    return str(file)


def given_of(config: ProtocolConfig, device: torch.device) -> build.Given:
    """What methods under test are made of."""
    metrics = config.metrics
    return build.Given(
        weight_files(config), config.baselines, lpips=metrics.lpips, lpips_path=metrics.lpips_path, device=device
    )


def settings_of(
    config: ProtocolConfig, images: PosedImages, tasks: Sequence[Task], metrics: dict[str, Any], device: torch.device
) -> dict[str, Any]:
    """What every row depends on besides its method."""
    return chosen_settings(config) | {
        "images": drawn_split(images.source) or {"sha256": images_hash(images)},
        "num_tasks": len(tasks),
        "device": device.type,
        "metrics": metrics,
    }


def present_settings(config: ProtocolConfig, device: torch.device) -> dict[str, Any]:
    """Of what every row depends on, what is there: images, and below `metrics` hashes of depth maps and networks."""
    folder = config.pseudo_depth.of(config.protocol)
    found: dict[str, Any] = {"metrics": build.present_hashes(config.metrics, folder, device)}
    if Path(config.images.of(config.protocol)).exists():
        images = open_tasks(config)[0]
        found["images"] = drawn_split(images.source) or {"sha256": images_hash(images)}
    return found


def chosen_settings(config: ProtocolConfig) -> dict[str, Any]:
    """Those that the configuration alone decides."""
    novel = config.protocol == "novel_view"
    return {
        "protocol": config.protocol,
        "num_inputs": config.num_inputs,
        "yaws": config.yaws if novel else [],
        "inputs": config.inputs if novel else [],
        "resolution": config.resolution,
        "metric_resolution": config.metric_resolution,
        "batch_size": config.batch_size,
    }


def drawn_settings(config: ProtocolConfig, tested: build.Tested) -> dict[str, Any]:
    """Likewise, how the inputs of a method that optimises are drawn."""
    if not tested.optimises:
        return {}
    subset = config.subset
    groups = {"side": subset.side, "front": subset.front}
    counts = groups if config.protocol == "novel_view" else {"input_view": subset.input_view}
    return {"drawn": counts | {"seed": subset.seed}}
