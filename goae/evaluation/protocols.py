"""The paper's two protocols (Sec. 5.1): the input view of single portraits, and novel views of synchronised cameras.

Input view, as on CelebA-HQ: every image is inverted and compared with the render from its own camera. Novel view, as on
MEAD: one of a person's synchronised views is inverted and rendered from the cameras of all others, which are the
targets; once from the side (yaw ±60°, over both signs) and once from the front. 43 persons with 5 frames and 5 views
give 430 inputs and 1,720 pairs at ±60°, 215 inputs and 860 pairs at 0°.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from goae.data.datasets import PosedImages
from goae.evaluation.intervals import Estimate, mean_intervals
from goae.evaluation.measuring import Measures
from goae.evaluation.results import Results, Row
from goae.evaluation.runner import Method, View, reconstruct
from goae.models import latent_inverter

PROTOCOLS = ("input_view", "novel_view")
COLUMNS = ("source", "target", "person", "group", "yaw")  # of every row, before the numbers; `failed` behind them
TABLE = ("psnr", "ssim", "mse", "lpips", "fid", "id", "geo", "time")  # columns of the paper's tables
RECORDED_METHODS = {"w_plus": "wplus", "full": "full"}  # method -> its name in the file of numbers
RECORDED = {  # column -> its name there
    **{name: name for name in ("psnr", "mse", "lpips")},
    **{"id": "identity", "id_independent": "identity_independent", "depth": "depth_error"},
}
Progress = Callable[[int], object]
Images = PosedImages | Sequence[dict[str, Any]]
Batch = dict[str, Any]  # tensors (B, ...) by name, and `name`, a list


@dataclass(frozen=True)
class Task:
    """One inversion: image number `source`, and the image numbers whose cameras show it."""

    source: int
    targets: tuple[int, ...]
    person: int
    group: str = ""  # suffix of the paper's columns: "" input view; "60", "0" novel views
    yaw: float = 0.0  # of the input, degrees; novel view only


class People(NamedTuple):
    """Numbers (N,) of each image: who is shown, in which frame (expression), from which view."""

    person: Tensor
    frame: Tensor
    view: Tensor


def input_view_tasks(persons: Tensor) -> list[Task]:
    """One task per image. `persons` (N,): images of one person are no independent draws."""
    return [Task(i, (i,), person) for i, person in enumerate(persons.tolist())]


def novel_view_tasks(people: People, yaws: Sequence[float], inputs: Sequence[float] = (60.0, 0.0)) -> list[Task]:
    """Every frame inverted from each view whose yaw is ±`inputs`, with all other views as targets.

    Args:
        yaws: degrees, of the views in order.
        inputs: absolute yaws to invert from; each names a group.
    Raises: ValueError if a frame lacks a view or has one twice, or no view has an input's yaw.
    """
    for angle in inputs:
        if all(abs(yaw) != angle for yaw in yaws):
            raise ValueError(f"no view has yaw ±{angle:g}; yaws are {', '.join(f'{y:g}' for y in yaws)}")
    frames: dict[tuple[int, int], dict[int, int]] = {}
    numbers = zip(*(x.tolist() for x in people), strict=True)
    for i, (person, frame, view) in enumerate(numbers):
        views = frames.setdefault((person, frame), {})
        if view in views:
            raise ValueError(f"person {person}, frame {frame} has view {view} twice")
        views[view] = i
    tasks = []
    for (person, frame), views in sorted(frames.items()):
        if sorted(views) != list(range(len(yaws))):
            raise ValueError(f"person {person}, frame {frame} has views {sorted(views)}; expected 0 to {len(yaws) - 1}")
        for view, yaw in enumerate(yaws):
            if abs(yaw) in inputs:
                targets = tuple(views[other] for other in range(len(yaws)) if other != view)
                tasks.append(Task(views[view], targets, person, f"{abs(yaw):g}", yaw))
    return tasks


def draw_subset(tasks: Sequence[Task], counts: Mapping[str, int], seed: int) -> list[int]:
    """Numbers of tasks, in order, `counts[group]` of each group, drawn over as many persons as there are; 0: all."""
    drawn: list[int] = []
    rng = torch.Generator().manual_seed(seed)
    for group in dict.fromkeys(task.group for task in tasks):
        members = [i for i, task in enumerate(tasks) if task.group == group]
        shuffled = [members[i] for i in torch.randperm(len(members), generator=rng).tolist()]
        seen: dict[int, int] = {}
        turn = {}
        for i in shuffled:  # the first task of every person goes before anyone's second
            turn[i] = seen[tasks[i].person] = seen.get(tasks[i].person, 0) + 1
        drawn += sorted(shuffled, key=turn.__getitem__)[: counts[group] or None]
    return sorted(drawn)


def chunks(numbers: Sequence[int], size: int, done: set[int]) -> list[Sequence[int]]:
    """Batches of task numbers that are not all done, always cut at the same places, so that no batch changes size."""
    cut = [numbers[start : start + size] for start in range(0, len(numbers), size)]
    return [chunk for chunk in cut if not set(chunk) <= done]


@torch.no_grad()
def measure_method(
    method: Method[Any],
    images: PosedImages,
    tasks: Sequence[Task],
    todo: Sequence[Sequence[int]],
    measures: Measures,
    results: Results,
    *,
    novel: bool,
    rank: int,
    device: torch.device,
    progress: Progress = lambda done: None,
) -> None:
    """Invert the tasks of each batch of `todo`, show their targets, and append a row for each; all or none of a batch.

    Args:
        novel: whether targets are rendered from their cameras, or the input reconstructed as the method does it.
        rank: of the process whose files are written.
    """
    for numbers in todo:
        chunk = [tasks[i] for i in numbers]
        source = read_batch(images, [task.source for task in chunk], device)
        places = range(len(chunk[0].targets))
        targets = (
            [read_batch(images, [task.targets[i] for task in chunk], device) for i in places] if novel else [source]
        )
        rows: list[dict[str, object]] = []
        features = []
        for place, (view, target) in enumerate(zip(show(method, source, targets, novel=novel), targets, strict=True)):
            values = measures(view, target)
            features.append(measures.features(view.image.nan_to_num()))
            read = {name: value.tolist() for name, value in values.items()}
            for k, (number, task) in enumerate(zip(numbers, chunk, strict=True)):
                numbers_of = {name: value[k] for name, value in read.items()}
                facts = {"task": number, "place": place, "source": source["name"][k], "target": target["name"][k]}
                facts |= {"person": task.person, "group": task.group, "yaw": f"{task.yaw:g}"}
                rows.append(facts | as_row(numbers_of))
        results.append(rank, rows, torch.cat(features))
        progress(len(chunk))


def show(method: Method[Any], source: Batch, targets: Sequence[Batch], *, novel: bool) -> list[View]:
    """A view of the source for each target; of an optimisation that diverged, views without a finite number.

    Where one of a batch diverges, each of it is inverted again by itself: the others are not to blame.
    """
    try:
        if not novel:
            return [reconstruct(method, source["image"], source["c"])]
        inversion = method.invert(source["image"], source["c"])
        return [method.render(inversion, target["c"]) for target in targets]
    except FloatingPointError as error:
        names = source["name"]
        if len(names) > 1:
            alone = [
                show(method, _row(source, k), [_row(target, k) for target in targets], novel=novel)
                for k in range(len(names))
            ]
            return [_together(views) for views in zip(*alone, strict=True)]
        print(f"{names[0]}: counted as failed, since {error}")
        return [_nothing(target["image"]) for target in targets]


def _row(batch: Batch, k: int) -> Batch:
    return {name: value[k : k + 1] for name, value in batch.items()}


def _together(views: Sequence[View]) -> View:
    """A batch of single views; depth in the size of the largest, as one that failed knows nothing of it."""
    image, depths = torch.cat([view.image for view in views]), [view.image_depth for view in views]
    shape = max((depth.shape for depth in depths), key=lambda shape: shape.numel())
    depths = [depth if depth.shape == shape else depth.new_full(shape, torch.nan) for depth in depths]
    return latent_inverter.View(image, image, torch.cat(depths))


def _nothing(image: Tensor) -> View:
    unknown = torch.full_like(image, torch.nan)
    return latent_inverter.View(unknown, unknown, unknown[:, :1, :1, :1])


@torch.no_grad()
def measure_images(
    images: PosedImages,
    numbers: Sequence[int],
    todo: Sequence[Sequence[int]],
    measures: Measures,
    results: Results,
    *,
    rank: int,
    device: torch.device,
) -> None:
    """Append the features of the images themselves, which all methods are compared with."""
    for chunk in todo:
        batch = read_batch(images, [numbers[i] for i in chunk], device)
        rows = [{"task": i, "place": 0, "target": name} for i, name in zip(chunk, batch["name"], strict=True)]
        results.append(rank, rows, measures.features(batch["image"]))


def read_batch(images: Images, numbers: Sequence[int], device: torch.device) -> Batch:
    """Images and their extras as tensors on the device, their names as a list."""
    samples = [images[i] for i in numbers]
    tensors = {
        name: torch.stack([s[name] for s in samples]).to(device)
        for name, value in samples[0].items()
        if isinstance(value, Tensor)
    }
    return tensors | {"name": [s["name"] for s in samples]}


def as_row(values: Mapping[str, float]) -> dict[str, str]:
    """Numbers as text that gives them back exactly; what could not be measured is empty and named in `failed`."""
    failed = [name for name, value in values.items() if np.isnan(value)]
    return {name: "" if name in failed else repr(value) for name, value in values.items()} | {
        "failed": " ".join(failed)
    }


def summarize_method(
    rows: Sequence[Row], sets: Mapping[str, Mapping[str, Any]], columns: Sequence[str], *, resamples: int
) -> dict[str, Any]:
    """Per group of rows: means with intervals over persons, failures, set distances; and the paper's columns.

    Args:
        sets: group -> distances between what its rows show and their targets, see `image_distances`.
        columns: the numbers.
    Returns: `groups`: group -> numbers; `table`: column of the paper's tables -> value.
    """
    groups: dict[str, Any] = {}
    table: dict[str, Any] = {}
    for group in dict.fromkeys(row["group"] for row in rows):
        members = [row for row in rows if row["group"] == group]
        values, persons = as_table(members, columns)
        estimates = mean_intervals(values, persons, num=resamples)
        found: dict[str, Any] = {
            "num_rows": len(members),
            "num_inputs": len({row["task"] for row in members}),
            "num_persons": len(persons.unique()),
            "num_targets": len({row["target"] for row in members}),
            "metrics": {n: as_estimate(e, v) for n, e, v in zip(columns, estimates, values.T, strict=True)},
            "sets": dict(sets.get(group, {})),
        }
        groups[group or "input"] = found
        numbers = {name: entry["mean"] for name, entry in found["metrics"].items()} | found["sets"]
        table |= {f"{name}{group}": numbers[name] for name in TABLE if name in numbers}
    return {"groups": groups, "table": table}


def method_record(rows: Sequence[Row], columns: Sequence[str], *, resamples: int) -> dict[str, Any]:
    """What the file of numbers says of a method: of all its rows, and of novel views also by the input's yaw.

    Returns: `means_record` of all rows; `yaw_60`, `yaw_0`: those of one group.
    """
    groups = [group for group in dict.fromkeys(row["group"] for row in rows) if group]
    found = means_record(rows, columns, resamples=resamples)
    for group in groups:
        members = [row for row in rows if row["group"] == group]
        found[f"yaw_{group}"] = means_record(members, columns, resamples=resamples)
    return found


def means_record(rows: Sequence[Row], columns: Sequence[str], *, resamples: int) -> dict[str, Any]:
    """Means of the `RECORDED` columns with 95 % intervals over persons, and the counts behind them.

    A column without a number is left out; `<name>_failed` counts rows that have none.
    """
    columns = [name for name in columns if name in RECORDED]
    values, persons = as_table(rows, columns)
    found: dict[str, Any] = {
        "num_inputs": len({row["task"] for row in rows}),
        "num_shown": len(rows),
        "num_persons": len(persons.unique()),
    }
    for column, estimate, value in zip(columns, mean_intervals(values, persons, num=resamples), values.T, strict=True):
        name, entry = RECORDED[column], as_estimate(estimate, value)
        known = {name: entry["mean"], f"{name}_interval": entry["interval"], f"{name}_failed": entry["failed"] or None}
        found |= {key: number for key, number in known.items() if number is not None}
    return found


def paired_differences(
    first: Sequence[Row], second: Sequence[Row], columns: Sequence[str], *, resamples: int
) -> dict[str, Any]:
    """group -> metric -> mean of first - second over the same rows, with its interval over persons."""
    found: dict[str, Any] = {}
    for group in dict.fromkeys(row["group"] for row in first):
        ours, theirs = ([row for row in rows if row["group"] == group] for rows in (first, second))
        if [(r["task"], r["place"]) for r in ours] != [(r["task"], r["place"]) for r in theirs]:
            raise ValueError("methods were not measured on the same rows; finish both")
        (a, persons), (b, _) = as_table(ours, columns), as_table(theirs, columns)
        estimates = mean_intervals(a - b, persons, num=resamples)
        found[group or "input"] = {n: as_estimate(e, v) for n, e, v in zip(columns, estimates, (a - b).T, strict=True)}
    return found


def of_tasks(rows: Sequence[Row], tasks: set[str]) -> list[int]:
    """Places of the rows whose task is among `tasks`."""
    return [i for i, row in enumerate(rows) if row["task"] in tasks]


def common_tasks(methods: Sequence[Sequence[Row]]) -> set[str]:
    """The tasks that every method has rows of."""
    return set.intersection(*({row["task"] for row in rows} for rows in methods))


def as_table(rows: Sequence[Row], columns: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Values (N, K) in float64, NaN where a row has none, and persons (N,)."""
    values = [[float(row[name]) if row[name] else float("nan") for name in columns] for row in rows]
    table = torch.tensor(values, dtype=torch.float64).reshape(len(rows), len(columns))  # also of no rows
    return table, torch.tensor([int(row["person"]) for row in rows])


def as_estimate(estimate: Estimate | None, values: Tensor) -> dict[str, Any]:
    """A mean for JSON: with its 95 % interval (None where there is but one person), count and failures."""
    known = ~values.isnan()
    counts = {"num": int(known.sum()), "failed": int((~known).sum())}
    if estimate is None:
        return {"mean": None, "interval": None} | counts
    ends = [estimate.low, estimate.high]
    return {"mean": estimate.value, "interval": None if np.isnan(ends).any() else ends} | counts
