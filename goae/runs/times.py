"""Times of methods under test: one method's beside its rows, or all of a table's in one go, so that they compare."""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from eg3d.limits import read_json

from goae import build
from goae.config import ProtocolConfig
from goae.data.datasets import PosedImages
from goae.evaluation.runner import machine, write_json
from goae.evaluation.stored import TOGETHER, time_path
from goae.evaluation.timing import inversion_seconds
from goae.runs.protocol_inputs import given_of, open_tasks


def time_method(
    config: ProtocolConfig, name: str, tested: build.Tested, images: PosedImages, device: torch.device
) -> None:
    """Write `<method>.time.json`, unless it is there."""
    wanted = conditions(config, name, tested)
    if wanted["timing_images"] and not holds(time_path(config.folder, name), wanted):
        write_json(seconds_of(tested, images, wanted, device), time_path(config.folder, name))


def time_together(jobs: Sequence[ProtocolConfig], device: torch.device) -> None:
    """Time the methods of all jobs one after another in this process, unless that has been done for all of them."""
    if _timed_together(jobs, device):
        return
    began = {TOGETHER: f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
    for config in jobs:
        given, (images, _) = given_of(config, device), open_tasks(config)
        for name in config.methods:
            tested = build.build_method(name, given)
            wanted = conditions(config, name, tested)
            if wanted["timing_images"]:
                found = seconds_of(tested, images, wanted, device)
                write_json(found | began, time_path(config.folder, name))


def _timed_together(jobs: Sequence[ProtocolConfig], device: torch.device) -> bool:
    """Whether the times of all methods are there, of the same methods and as many images as wanted, from one pass."""
    passes = set()
    for config in jobs:
        given = given_of(config, device)
        for name in config.methods:
            path, wanted = time_path(config.folder, name), conditions(config, name, build.build_method(name, given))
            if not wanted["timing_images"]:
                continue
            if not holds(path, wanted):
                return False
            passes.add(_read(path).get(TOGETHER))
    return len(passes) <= 1 and None not in passes


def conditions(config: ProtocolConfig, name: str, tested: build.Tested) -> dict[str, Any]:
    """What a time depends on besides the machine: how many images, after how many inversions, the method's settings.

    Those stand as beside the rows, which were compared with the method's and may lack what came later.
    """
    stored = _read(config.folder / f"{name}.settings.json")
    settings = json.dumps({key: stored.get(key, value) for key, value in tested.settings.items()}, sort_keys=True)
    made = {"settings_sha256": hashlib.sha256(settings.encode()).hexdigest()}
    if tested.optimises:
        return made | {"timing_images": config.subset.timing_images, "warm_up": min(1, config.warm_up)}
    return made | {"timing_images": config.timing_images, "warm_up": config.warm_up}


def holds(path: Path, wanted: dict[str, Any]) -> bool:
    """Whether the file has times of as many images by the same weights and settings."""
    return _read(path).items() >= wanted.items()


def seconds_of(
    tested: build.Tested, images: PosedImages, wanted: dict[str, Any], device: torch.device
) -> dict[str, Any]:
    """The times with what they depend on."""
    samples = [images[i] for i in range(min(wanted["timing_images"], len(images)))]
    found = inversion_seconds(tested.method, samples, warm_up=wanted["warm_up"], device=device, steps=tested.steps)
    iterations = {} if tested.iterations is None else {"iterations_at_most": tested.iterations}
    return found | wanted | iterations | machine(device)


def _read(path: Path) -> dict[str, Any]:
    return dict(read_json(path)) if path.exists() else {}
