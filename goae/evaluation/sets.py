"""Distances between sets of shown and of real images, kept where the features themselves are too many to keep.

`<name>.sets.json` beside a method's rows has the distances of each group of rows: for all tasks, and for the subset
that other methods are limited to. Once it is there, tables need no features.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from eg3d.limits import read_json
from torch import Tensor

from goae.evaluation.distribution import compare_sets, distances
from goae.evaluation.results import Results, Row
from goae.evaluation.runner import write_json

Sets = list[dict[str, Any]]  # each with `tasks`, sorted numbers, and `groups`: group of rows -> distances


def image_distances(
    rows: Sequence[Row], features: Tensor, real: Mapping[str, Tensor], widths: Sequence[int]
) -> dict[str, Any]:
    """Distances between what rows show and their targets; empty for fewer than two images on either side.

    Args:
        features: (N, D) of what the rows show; `real`: (D,) of each target, by name.
        widths: how many of the D are of the network whose distances count, then of the one beside, if any.
    Returns: see `compare_sets`; `num_distinct` real images, as a target is compared with every render of it;
        `fid_beside` and `kid_beside`.
    """
    shown = [i for i, row in enumerate(rows) if "mse" not in row["failed"].split()]  # what is not finite has none
    if min(len(shown), len(rows)) < 2:
        return {}
    targets = torch.stack([real[row["target"]] for row in rows])
    split = [x.split(list(widths), 1) for x in (targets, features[shown])]
    pairs = list(zip(*split, strict=True))
    found: dict[str, Any] = compare_sets(*pairs[0]) | {"num_distinct": len({row["target"] for row in rows})}
    for first, second in pairs[1:]:
        beside = distances(first, second)
        found |= {"fid_beside": beside["fd"], "kid_beside": beside["kid"]}
    return found


def write_sets(results: Results, images: Results, widths: Sequence[int], chosen: Iterable[Sequence[int]]) -> None:
    """Write the distances of each of some sets of tasks that a method has rows of."""
    rows, features = results.read()
    names, found = images.read()
    real = {row["target"]: vector for row, vector in zip(names, found, strict=True)}
    sets: Sets = []
    for tasks in chosen:
        wanted, groups = set(tasks), {}
        members = [i for i, row in enumerate(rows) if int(row["task"]) in wanted]
        for group in dict.fromkeys(rows[i]["group"] for i in members):
            places = [i for i in members if rows[i]["group"] == group]
            groups[group] = image_distances([rows[i] for i in places], features[places], real, widths)
        sets.append({"tasks": sorted(wanted), "groups": groups})
    write_json(sets, results.sets_path)


def read_sets(results: Results) -> Sets:
    """What `write_sets` wrote; nothing if it has not."""
    found: Sets = read_json(results.sets_path) if results.sets_path.exists() else []
    return found


def of_these(sets: Sets, tasks: Iterable[str]) -> dict[str, Any]:
    """group -> distances of exactly these tasks; empty if they were not kept."""
    wanted = sorted(map(int, tasks))
    return next((entry["groups"] for entry in sets if entry["tasks"] == wanted), {})
