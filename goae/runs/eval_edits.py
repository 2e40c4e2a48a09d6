"""Edit inverted test images, look at them from several cameras, and measure what became of attribute and identity."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from goae.camera.level import level_label
from goae.config import EditsConfig
from goae.data.datasets import PosedImages
from goae.editing.directions import EditConfig, load_edit
from goae.evaluation.edits import Seen, edit_record
from goae.evaluation.runner import write_json
from goae.extractors.mini import MiniPerception
from goae.inversion import Inversion, Inverter
from goae.runs.setup import device_of, open_run, run_inverter

PLAIN = ""  # the label of the heads as inverted


def eval_edits(config: EditsConfig) -> Path:
    """Write the numbers of every edit; returns the path.

    Raises: ValueError for a direction that is not named after an attribute; FileNotFoundError for what is not there.
    """
    network = MiniPerception(config.network_path or None).to(device_of(config))
    attributes = {edit.label: attribute_of(edit, network) for edit in config.edits}
    seen = measured(config, network)
    record = {
        "protocol": {
            "run": config.run,
            "num_images": len(seen[PLAIN].scores),
            "yaws": config.yaws,
            "resamples": config.resamples,
            "scores": "mini perception network, to whose scores scripts/train_directions.py fits directions; "
            "standard deviations of procedural heads",
            "identity": "mini perception network, which is also in the training loss",
        },
        "edits": {},
    }
    for edit in config.edits:
        column, sign = attributes[edit.label], 1.0 if edit.alpha > 0 else -1.0
        before, after = (Seen(s.scores[..., column], s.identities) for s in (seen[PLAIN], seen[edit.label]))
        numbers = edit_record(before, after, config.yaws, sign=sign, num=config.resamples)
        made = dataclasses.asdict(edit) | {"attribute": network.card["attributes"][column]}
        record["edits"][edit.label] = made | numbers
        changes = ", ".join(f"{yaw}°: {view['change']:+.2f}" for yaw, view in numbers["views"].items())
        print(f"{edit.label}: {changes}; views alike {numbers['alike']:.3f}, unedited {numbers['alike_unedited']:.3f}")
    path = Path(config.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(record, path)
    return path


def attribute_of(edit: EditConfig, network: MiniPerception) -> int:
    """The column of the attribute after which the direction's file is named. Raises: ValueError if there is none."""
    known: list[str] = network.card["attributes"]
    name = Path(edit.direction).stem
    if name not in known or not edit.alpha:
        raise ValueError(
            f"the edit {edit.label} is {edit.alpha:g} along {edit.direction}; expected a step that is not 0, and a "
            f"file named after what the mini network scores: {', '.join(known)}"
        )
    return known.index(name)


def measured(config: EditsConfig, network: MiniPerception) -> dict[str, Seen]:
    """Label -> scores (N, V, A) of all attributes, and identities (N, V, E), of the heads as inverted and edited."""
    inverter = run_inverter(open_run(config, config.run))
    deltas = {edit.label: load_edit(edit, inverter.goae, config.glasses) for edit in config.edits}
    parts: dict[str, list[Seen]] = {label: [] for label in (PLAIN, *deltas)}
    for image, c in batches(config):
        inversion = inverter.invert(image, c)
        for label in parts:
            state = inverter.edit(inversion, deltas[label]) if label else inversion
            parts[label].append(look(inverter, state, c, config.yaws, network))
    return {label: Seen(*(torch.cat(column) for column in zip(*found, strict=True))) for label, found in parts.items()}


def batches(config: EditsConfig) -> Iterator[tuple[Tensor, Tensor]]:
    """The first test images (B, 3, H, H) and their labels (B, 25), with a progress bar."""
    images = PosedImages(config.images)
    num = min(config.num_images or len(images), len(images))
    starts = range(0, num, config.batch_size)
    for start in track(list(starts), description="edits", console=Console(stderr=True)):
        samples = [images[i] for i in range(start, min(start + config.batch_size, num))]
        yield torch.stack([s["image"] for s in samples]), torch.stack([s["c"] for s in samples])


@torch.inference_mode()
def look(inverter: Inverter, state: Inversion, c: Tensor, yaws: list[float], network: MiniPerception) -> Seen:
    """All attributes' scores (B, V, A) and identities (B, V, E) of heads from level cameras."""
    scores, identities = [], []
    for yaw in yaws:
        image = inverter.render(state, level_label(inverter.goae.generator, yaw, c)).image.clamp(-1, 1)
        scores.append(network.attributes(image).cpu())
        identities.append(network.embed(image).cpu())
    return Seen(torch.stack(scores, 1), torch.stack(identities, 1))
