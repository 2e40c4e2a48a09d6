"""Find edit directions of a generator by InterFaceGAN, or write its heads for a classifier to score."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from eg3d.checkpoint import generator_hash
from eg3d.generator import TriPlaneGenerator
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from goae.config import DirectionsConfig
from goae.editing.directions import save_direction
from goae.editing.interfacegan import Direction, draw_heads, fit_direction, front_images, orthogonal
from goae.editing.scores import read_codes, read_scores, write_codes, write_pictures
from goae.evaluation.runner import write_json
from goae.extractors.mini import MiniPerception
from goae.loading import read_generator
from goae.runs.setup import device_of
from goae.viz.sheet import sheet

ALPHAS = (-1.0, -0.5, 0.0, 0.5, 1.0)  # of the pictures
NUM_SHOWN = 4


def train_directions(config: DirectionsConfig) -> Path:
    """A direction for each attribute, its numbers and a picture; or, with `export`, only heads to be scored.

    Returns: the folder written.
    """
    device = device_of(config)
    generator = read_generator(config.generator_path).to(device)
    if config.export:
        return export_heads(config, generator)
    network = None if config.scores else MiniPerception(config.network_path or None).to(generator.w_avg.device)
    codes, scores = scored_heads(config, generator, network) if network else scores_from_file(config, generator)
    found = {name: fit_direction(codes, scores[name], config.sampling) for name in config.attributes}
    heads = fresh_codes(config, generator)
    for name, direction in conditioned(found, config.orthogonal).items():
        write_direction(config, generator, heads, name, direction, network)
    return Path(config.output)


def export_heads(config: DirectionsConfig, generator: TriPlaneGenerator) -> Path:
    """Write the heads as numbered pictures, and the codes that made them."""
    folder = Path(config.export)
    folder.mkdir(parents=True, exist_ok=True)
    write_codes(
        draw_all(config, generator, lambda image, first: write_pictures(image, first, folder)), generator, folder
    )
    return folder


def scored_heads(
    config: DirectionsConfig, generator: TriPlaneGenerator, network: MiniPerception
) -> tuple[Tensor, dict[str, Tensor]]:
    """Codes (N, w_dim) of the heads drawn, and the mini network's scores (N,) of each attribute."""
    known: list[str] = network.card["attributes"]
    unknown = [name for name in config.attributes if name not in known]
    if unknown:
        raise ValueError(f"attributes has {', '.join(unknown)}; the mini network scores {', '.join(known)}")
    found: list[Tensor] = []
    codes = draw_all(config, generator, lambda image, _: found.append(network.attributes(image.clamp(-1, 1)).cpu()))
    scores = torch.cat(found)
    return codes, {name: scores[:, known.index(name)] for name in config.attributes}


def scores_from_file(config: DirectionsConfig, generator: TriPlaneGenerator) -> tuple[Tensor, dict[str, Tensor]]:
    """Codes (N, w_dim) of exported heads, and their scores (N,) of each attribute from the user's file."""
    codes = read_codes(Path(config.codes), generator)
    if len(codes) != config.sampling.num_samples:
        raise ValueError(f"{config.codes} has {len(codes)} heads; set sampling.num_samples={len(codes)}")
    return codes, read_scores(Path(config.scores), config.attributes, len(codes))


def draw_all(config: DirectionsConfig, generator: TriPlaneGenerator, use: Callable[[Tensor, int], object]) -> Tensor:
    """Codes (N, w_dim) of the heads drawn; `use` gets each batch of images and the number of its first."""
    codes: list[Tensor] = []
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("heads", total=config.sampling.num_samples)
        for w, image in draw_heads(generator, config.sampling):
            use(image, sum(map(len, codes)))
            codes.append(w.cpu())
            bar.advance(task, len(w))
    return torch.cat(codes)


def conditioned(found: dict[str, Direction], others: dict[str, list[str]]) -> dict[str, Direction]:
    """Each direction, orthogonal to those it shall not touch; step and accuracy stay those of the fit.

    Raises: ValueError if a name is not among those found.
    """
    unknown = ({name for names in others.values() for name in names} | set(others)) - set(found)
    if unknown:
        raise ValueError(f"orthogonal names {', '.join(sorted(unknown))}; attributes has {', '.join(found)}")
    return found | {
        name: found[name]._replace(normal=orthogonal(found[name].normal, [found[other].normal for other in names]))
        for name, names in others.items()
    }


def write_direction(
    config: DirectionsConfig,
    generator: TriPlaneGenerator,
    heads: Tensor,
    name: str,
    direction: Direction,
    network: MiniPerception | None,
) -> None:
    """NAME.npy, its numbers in NAME.json, and in NAME.png the first of `heads`, ws (B, num_ws, w_dim), along it."""
    path = Path(config.output) / f"{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        "step": direction.step,
        "held_out_accuracy": direction.accuracy,
        "orthogonal_to": config.orthogonal.get(name, []),
        "scores": config.scores or "mini perception network",
        "sampling": vars(config.sampling),
        "generator": generator_hash(generator),
    }
    if network:
        record["effect"] = effect(generator, heads, direction, network)
    save_direction(direction.normal, direction.step, path, num_ws=generator.num_ws)
    write_json(record, path.with_suffix(".json"))
    path.with_suffix(".png").write_bytes(picture(generator, heads[:NUM_SHOWN], name, direction))
    print(f"{path}: accuracy {direction.accuracy:.3f} on extremes that the fit did not see")


def fresh_codes(config: DirectionsConfig, generator: TriPlaneGenerator) -> Tensor:
    """ws (num_measured, num_ws, w_dim) of heads that the fit did not see."""
    fresh = replace(config.sampling, num_samples=config.num_measured, extremes=2, seed=config.sampling.seed + 1)
    w = torch.cat([w for w, _ in draw_heads(generator, fresh)])
    return w[:, None].expand(-1, generator.num_ws, -1)


@torch.inference_mode()
def effect(generator: TriPlaneGenerator, ws: Tensor, direction: Direction, network: MiniPerception) -> dict[str, float]:
    """Mean change by a step of 1, front views: attributes in standard deviations of true heads; cosine of identity."""
    rows = []
    for part in ws.split(20):
        before, after = (front_images(generator, moved(part, direction, a)).clamp(-1, 1) for a in (0.0, 1.0))
        change = network.attributes(after) - network.attributes(before)
        identity = (network.embed(before) * network.embed(after)).sum(1, keepdim=True)
        rows.append(torch.cat([change, identity], 1))
    means = torch.cat(rows).mean(0).tolist()
    return dict(zip([*network.card["attributes"], "identity"], means, strict=True))


def moved(ws: Tensor, direction: Direction, alpha: float) -> Tensor:
    """ws (B, num_ws, w_dim) + alpha step normal, in all rows."""
    return ws + alpha * direction.step * direction.normal.to(ws)


@torch.inference_mode()
def picture(generator: TriPlaneGenerator, ws: Tensor, name: str, direction: Direction) -> bytes:
    """A row for each head, a column for each alpha."""
    columns = [front_images(generator, moved(ws, direction, alpha)) for alpha in ALPHAS]
    rows = [list(row) for row in zip(*columns, strict=True)]
    caption = f"{name}: heads moved along the direction; accuracy {direction.accuracy:.3f} on unseen extremes"
    return sheet(rows, [f"{alpha:+g}" for alpha in ALPHAS], [str(i) for i in range(len(rows))], caption=caption)
