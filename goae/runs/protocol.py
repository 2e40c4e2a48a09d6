"""Scripts of the paper's protocols: measure methods, summarise them, and record what the mini world's card reads."""

from pathlib import Path
from typing import Any

from eg3d.limits import read_json

from goae.config import ProtocolConfig
from goae.evaluation.protocols import (
    RECORDED_METHODS,
    common_tasks,
    method_record,
    of_tasks,
    paired_differences,
    summarize_method,
)
from goae.evaluation.records import update_section
from goae.evaluation.results import Row
from goae.evaluation.runner import write_json
from goae.evaluation.sets import Sets, of_these, read_sets
from goae.runs.measure import Finished, measure
from goae.runs.setup import launch

SECTIONS = {"input_view": "goae.test", "novel_view": "goae.multiview"}  # of the file of numbers


def run_protocol(config: ProtocolConfig) -> Path:
    """Write `<method>.csv`, one row per shown image, and `summary.json` into the results' folder; returns this."""
    fabric = launch(config)
    found = measure(config, fabric)
    if fabric.is_global_zero:
        write_json(summary(config, found), config.folder / "summary.json")
        if config.records:
            record(config, found)
    fabric.barrier()
    return config.folder / "summary.json"


def record(config: ProtocolConfig, found: Finished) -> None:
    """Put the numbers of GOAE's two methods, and what they depend on, into the file of numbers."""
    for method, name in RECORDED_METHODS.items():
        if method in found.results:
            results = found.results[method]
            numbers = method_record(results.rows(), found.columns, resamples=config.resamples)
            values = {name: numbers | {"made_from": results.settings}}
            update_section(Path(config.records), SECTIONS[config.protocol], values)


def summary(config: ProtocolConfig, found: Finished) -> dict[str, Any]:
    """Numbers of all methods, and their differences on the same images."""
    read = {name: (results.rows(), read_sets(results)) for name, results in found.results.items()}
    whole: dict[str, Any] = {"protocol": config.protocol, "world": config.world_name, "settings": found.settings}
    shared = common_tasks([rows for rows, _ in read.values()])
    whole["methods"] = {name: numbers_of(config, found, *stored) for name, stored in read.items()}
    for name, numbers in whole["methods"].items():
        path = config.folder / f"{name}.time.json"
        if path.exists():
            numbers["seconds"] = read_json(path)
            if "time" in numbers["seconds"]:  # not where every optimisation diverged
                numbers["table"]["time"] = numbers["seconds"]["time"]
    whole["differences"] = all_differences(config, found, {name: rows for name, (rows, _) in read.items()})
    if any({row["task"] for row in rows} != shared for rows, _ in read.values()):
        on_subset = {
            name: numbers_of(config, found, [rows[k] for k in of_tasks(rows, shared)], sets)
            for name, (rows, sets) in read.items()
        }
        whole["subset"] = {"num_inputs": len(shared), "methods": on_subset}
    return whole


def numbers_of(config: ProtocolConfig, found: Finished, rows: list[Row], sets: Sets) -> dict[str, Any]:
    """Of a method on the tasks of some rows."""
    groups = of_these(sets, {row["task"] for row in rows})
    return summarize_method(rows, groups, found.columns, resamples=config.resamples)


def all_differences(config: ProtocolConfig, found: Finished, rows: dict[str, list[Row]]) -> dict[str, Any]:
    """`second - first` -> paired differences on the tasks that both have."""
    names, differences = list(rows), {}
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            pair = rows[second], rows[first]
            tasks = common_tasks(pair)
            a, b = ([part[k] for k in of_tasks(part, tasks)] for part in pair)
            differences[f"{second} - {first}"] = paired_differences(a, b, found.columns, resamples=config.resamples)
    return differences
