"""Any inversion method over a data set: one row of numbers per image, and a summary."""

import csv
import json
import platform
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

T = TypeVar("T")
Metrics = Callable[[Tensor, Tensor], dict[str, Tensor]]
Row = dict[str, float | str]


class View(Protocol):
    """What `render` returns."""

    @property
    def image(self) -> Tensor:
        """(B, 3, H, W) in [-1, 1]."""

    @property
    def image_depth(self) -> Tensor:
        """(B, 1, R, R) along the ray."""


class Method(Protocol[T]):
    """An inversion method: `Inverter` and every baseline."""

    def invert(self, image: Tensor, c: Tensor) -> T:
        """(B, 3, H, W) in [-1, 1] and (B, 25) to whatever the method keeps."""

    def render(self, inversion: T, c: Tensor) -> View:
        """A view of it from (B, 25) cameras."""


def reconstruct(method: Method[T], image: Tensor, c: Tensor) -> View:
    """Invert and show the input view, by the method's own `reconstruct` where it has one (paper, Fig. 4)."""
    inversion = method.invert(image, c)
    own = getattr(method, "reconstruct", None)
    return method.render(inversion, c) if own is None else own(inversion)


@torch.no_grad()
def evaluate_input_view(
    method: Method[T], samples: Sequence[dict[str, Any]], metrics: Metrics, *, batch_size: int, label: str
) -> list[Row]:
    """Invert every sample and compare the render from its own camera with it; rows in the order of `samples`."""
    rows: list[Row] = []
    starts = range(0, len(samples), batch_size)
    for start in track(starts, description=label, console=Console(stderr=True)):
        chunk = [samples[i] for i in range(start, min(start + batch_size, len(samples)))]
        image, c = torch.stack([s["image"] for s in chunk]), torch.stack([s["c"] for s in chunk])
        values = {name: value.tolist() for name, value in metrics(reconstruct(method, image, c).image, image).items()}
        for i, sample in enumerate(chunk):
            rows.append({"name": sample["name"]} | {name: value[i] for name, value in values.items()})
    return rows


def summarize(rows: list[Row]) -> dict[str, float]:
    """The mean of every numeric column, and the number of images."""
    columns = [name for name, value in rows[0].items() if not isinstance(value, str)]
    means = {name: float(np.mean([row[name] for row in rows])) for name in columns}
    return means | {"num_images": len(rows)}


def write_rows(rows: list[Row], path: Path) -> None:
    """Per-image results as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_json(value: object, path: Path) -> None:
    """Indented JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def hardware(devices: Iterable[str]) -> dict[str, Any]:
    """What the times were measured on."""
    return {"machine": platform.machine(), "threads": torch.get_num_threads(), "devices": list(devices)}


def machine(device: torch.device) -> dict[str, Any]:
    """`hardware` with the device's own name, and PyTorch's version."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return hardware([name]) | {"torch": torch.__version__}


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    return next(iter(cpu_facts("model name")), platform.processor() or platform.machine())


def cpu_facts(key: str) -> list[str]:
    """What the system says of each core under a key; nothing where it lists no cores."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split(":", 1)[1].strip() for line in lines if line.split(":", 1)[0].strip() == key]
