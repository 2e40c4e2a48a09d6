"""The paper's figures: measure what they claim, and draw them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from eg3d.checkpoint import generator_hash
from eg3d.generator import TriPlaneGenerator
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from goae import build
from goae.config import FiguresConfig
from goae.evaluation.conditions import CONDITIONS, Measured, heads_under, latents, measure_heads
from goae.evaluation.intervals import mean_interval
from goae.evaluation.records import update_section
from goae.loading import read_generator
from goae.runs.diagram_figures import DIAGRAM_FIGURES
from goae.runs.edit_figures import EDIT_FIGURES
from goae.runs.inversion_figures import CATS, INVERSION_FIGURES
from goae.runs.setup import device_of
from goae.viz.figures import ConditionRow, figure_3


def draw_figure(config: FiguresConfig) -> Path:
    """Draw the figure asked for; returns the picture's path.

    Raises: ValueError for a figure that is not there.
    """
    if config.figure not in FIGURES:
        there = ", ".join(str(number) for number in sorted(FIGURES))
        raise ValueError(f"figure is {config.figure}; expected one of those that are there: {there}")
    return FIGURES[config.figure](config)


def list_figures(config: FiguresConfig) -> str:
    """All figures of the paper: what they show, and whether there is a picture."""
    lines = []
    for number in range(1, 20):
        path = Path(config.output) / f"figure-{number}.png"
        about = (FIGURES[number].__doc__ or "").splitlines()[0]
        state = "needs the full world" if number in CATS else "not drawn yet"
        lines.append(f"{number:2}  {f'drawn: {path}' if path.exists() else state}  | {about}")
    return "\n".join(lines)


def canonical_study(config: FiguresConfig) -> Path:
    """Fig. 3: one z under the pose conditions left, front and right; section `canonical` of the numbers."""
    device = device_of(config)
    generator = read_generator(config.generator_path).to(device)
    found = measure_conditions(config, generator)
    records = {name: condition_record(found[name], found["front"], name) for name in CONDITIONS}
    path = Path(config.output) / "figure-3.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(draw_conditions(config, generator, records))
    if config.metrics:
        for name, record in records.items():
            update_section(Path(config.metrics), f"canonical.{name}", record)
        made_from = {"generator": generator_hash(generator)} | dataclasses.asdict(config.conditions)
        networks = {"identity": config.networks.identity, "background": config.networks.background}
        update_section(Path(config.metrics), "canonical", {"made_from": made_from | networks})
    return path


FIGURES: dict[int, Callable[[FiguresConfig], Path]] = {
    3: canonical_study,
    **INVERSION_FIGURES,
    **DIAGRAM_FIGURES,
    **EDIT_FIGURES,
}


def measure_conditions(config: FiguresConfig, generator: TriPlaneGenerator) -> dict[str, Measured]:
    """Every z under every condition: condition -> numbers of all z, in one order."""
    settings, device = config.conditions, generator.w_avg.device
    networks = build.build_perception(config.networks, device)
    if networks.embed is None:
        raise ValueError("networks.identity is none, but the figure compares identities; name a network")
    parts: dict[str, list[Measured]] = {name: [] for name in CONDITIONS}
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("latents", total=settings.num_z)
        for z in latents(generator, settings):
            for name, condition in CONDITIONS.items():
                heads = heads_under(generator, z, condition, settings.yaws)
                numbers = measure_heads(
                    heads, settings.yaws, embed=networks.embed, segment=networks.background, erode=settings.erode
                )
                parts[name].append(numbers)
            bar.advance(task, len(z))
    return {name: Measured(*(torch.cat(column) for column in zip(*part, strict=True))) for name, part in parts.items()}


def condition_record(found: Measured, front: Measured, name: str) -> dict[str, Any]:
    """Means and their intervals over z; for the turned conditions, also how much the front is above them, z by z.

    A z without head or background in one of the two has no gap and is left out of that mean; `num_undefined` counts
    those of this condition.
    """
    record: dict[str, Any] = {"num_z": len(found.identity), "num_undefined": int(found.depth_gap.isnan().sum())}
    for metric in Measured._fields:
        values, reference = getattr(found, metric), getattr(front, metric)
        record |= mean_interval(defined(values, metric, name)).as_record(metric)
        if name != "front":
            above = mean_interval(defined(reference - values, metric, name))
            record |= above.as_record(f"{metric}_front_above")
    return record


def defined(values: Tensor, metric: str, name: str) -> Tensor:
    """The values that are numbers. Raises: ValueError if there are fewer than two."""
    kept = values[~values.isnan()]
    if len(kept) < 2:
        raise ValueError(
            f"only {len(kept)} of {len(values)} heads under the condition {name} have a {metric}: "
            f"networks.background sees a head without background, or none, in the others"
        )
    return kept


def draw_conditions(config: FiguresConfig, generator: TriPlaneGenerator, records: dict[str, dict[str, Any]]) -> bytes:
    """The picture for the z that is shown."""
    settings = config.conditions
    z = torch.cat(list(latents(generator, settings)))[config.shown][None]
    rows = {}
    for name, condition in CONDITIONS.items():
        heads = heads_under(generator, z, condition, settings.yaws)
        rows[name] = ConditionRow(heads.images[:, 0], heads.depths[:, 0], heads.planes[0])
    captions = {
        name: f"over {record['num_z']} z:\ngap {record['depth_gap']:.3f}\nidentity {record['identity']:.3f}"
        for name, record in records.items()
    }
    return figure_3(rows, settings.yaws, generator.config.rendering.plane_axes, captions=captions)
