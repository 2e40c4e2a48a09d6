"""Measure the chosen parts one after another, and write what was found."""

from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from goae.benchmark.child import PartError, Setting, measure_machine, measure_part
from goae.benchmark.figures import lazy_parts
from goae.benchmark.machine import Machine, has_bf16
from goae.benchmark.measure import num_calls
from goae.benchmark.parts import Worlds, choose, part_of
from goae.benchmark.record import updated
from goae.benchmark.report import FILE_WIDTH, Values, draw_chart, part_values, table, write_json
from goae.config import BenchConfig
from goae.runs.setup import device_of

RECORD, SCRATCH = Path("docs/results/bench"), Path("runs/bench")
SPEED_PERIOD = 3600.0  # seconds over which the time left is estimated


def bench(config: BenchConfig, worlds: Worlds) -> Path:
    """Write the JSON and, beside it, the chart; print the table. Returns: the path of the JSON.

    Raises: before measuring, FileNotFoundError or ValueError if a record is to be updated that is not there, or of
        another machine or other sizes; when all is written, ValueError if a part failed or a plain reference is slower
        than it may be.
    """
    comparable = config.full == BenchConfig().full and config.batch_size == 1
    if config.update and not comparable:
        raise ValueError("update=true keeps the record's sizes: leave out batch_size and full, or update=true")
    setting = Setting(device_of(config), config.num_threads, config.repeats, config.impl, config.renderer)
    names = choose(config.parts, bf16=has_bf16(setting.device))
    machine = measure_machine(setting)
    output = output_path(config, setting.device)
    if config.update:
        updated(output, {}, machine)  # fails before anything is measured
    parts, failures = measure_parts(names, machine, setting, worlds, comparable=comparable)
    record = {"machine": machine.as_dict(), "parts": parts}
    record = updated(output, parts, machine) if config.update else record
    write_json(record, output)
    if record["parts"]:
        draw_chart(record["parts"], record["machine"], output.with_suffix(".png"))
    console = Console() if Console().is_terminal else Console(width=FILE_WIDTH)
    console.print(table(parts, machine.as_dict()))
    problems = [*failures, *lazy_parts(parts)]
    if problems:
        raise ValueError("\n".join([f"{output} is written, but:", *problems]))
    return output


def measure_parts(
    names: list[str], machine: Machine, setting: Setting, worlds: Worlds, *, comparable: bool
) -> tuple[dict[str, Values], list[str]]:
    """Entries of the JSON by name, and a sentence for each part that failed; the others are kept."""
    parts: dict[str, Values] = {}
    failures = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=SPEED_PERIOD) as progress:
        total = sum(part_of(name).cost for name in names)
        task = progress.add_task("", total=total)
        done = 0.0
        for name in names:
            progress.update(task, description=name, completed=done)
            share = part_of(name).cost / num_calls(setting.repeats)
            try:
                measured = measure_part(name, worlds, setting, _advance(progress, task, share))
            except PartError as error:
                failures.append(f"{name} failed: {error}")
                progress.console.print(f"{name}: failed")
            else:
                parts[name] = part_values(name, measured, machine, comparable=comparable)
                progress.console.print(_line(name, parts[name]))
            done += part_of(name).cost
        progress.update(task, description="done", completed=total)
    return parts, failures


def _advance(progress: Progress, task: int, share: float) -> Callable[[], None]:
    return lambda: progress.advance(task, share)  # type: ignore[arg-type]


def _line(name: str, part: Values) -> str:
    return f"{name}: reference {part['ref_s']:.3g} s, ours {part['ours_s']:.3g} s, ratio {part['ratio']:.2f}"


def output_path(config: BenchConfig, device: torch.device) -> Path:
    """`output`; by default the recorded results for a whole run or an update, else a file that git ignores."""
    name = "gpu.json" if device.type == "cuda" else f"{device.type}.json"
    folder = RECORD if config.update or not config.parts else SCRATCH
    return Path(config.output) if config.output else folder / name
