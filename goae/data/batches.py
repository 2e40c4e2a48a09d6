"""Training batches: what stands at (step, micro-batch) depends on the seed alone, and is read ahead by threads."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from torch import Tensor

from goae.data.cameras import mirror_sample
from goae.data.datasets import PosedImages
from goae.data.loader import Order, Visit, collate
from goae.paths import path


@dataclass
class DataConfig:
    """The images to train on and to check with; folders or zips in EG3D's format."""

    train: str = path()
    validation: str = path()
    test: str = path()
    resolution: int = 512
    loss_resolution: int = 256  # images are averaged down to this size before the losses and metrics
    mirror: bool = True  # half of the images, drawn anew at each visit, are mirrored together with their label
    extras: list[str] = field(default_factory=list)  # also read: depth, parts, factors, ... (mini world)
    radius: float = 2.7  # every camera's distance from the origin; 0 switches the check off
    workers: int = 2  # threads that read ahead

    def __post_init__(self) -> None:
        if self.resolution % self.loss_resolution:
            raise ValueError(
                f"data.loss_resolution {self.loss_resolution} must divide data.resolution {self.resolution}"
            )
        if self.workers < 1:
            raise ValueError(f"data.workers is {self.workers}; expected at least 1")


class Batches:
    """`fetch(step, slot)` for the slots of one process, the next steps being read while one computes."""

    AHEAD = 2  # steps

    def __init__(
        self,
        images: PosedImages,
        config: DataConfig,
        *,
        seed: int,
        micro: int,
        num_slots: int,
        slots: Sequence[int],
        pin: bool = False,
    ) -> None:
        """`micro` images in each of the `num_slots` micro-batches of a step, of which this process takes `slots`.

        `pin` puts them where a GPU can copy them from while it computes; it needs one.
        """
        self.images, self.slots, self.pin = images, slots, pin
        self.order = Order(len(images), seed, micro, num_slots, mirror=config.mirror)
        self.pool = ThreadPoolExecutor(config.workers)
        self.waiting: dict[tuple[int, int], list[Future[dict[str, Tensor]]]] = {}

    def __enter__(self) -> "Batches":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pool.shutdown(cancel_futures=True)

    def fetch(self, step: int, slot: int) -> dict[str, Tensor]:
        """The micro-batch `slot` of `step`: image (micro, 3, R, R), c (micro, 25), and the extras."""
        for ahead in range(step, step + 1 + self.AHEAD):
            for other in self.slots:
                if (ahead, other) not in self.waiting and (ahead, other) >= (step, slot):
                    visits = self.order.visits(ahead, other)
                    self.waiting[ahead, other] = [self.pool.submit(self._load, visit) for visit in visits]
        return collate([future.result() for future in self.waiting.pop((step, slot))], pin=self.pin)

    def trace(self, step: int, slot: int) -> list[dict[str, Any]]:
        """List what the micro-batch `slot` of `step` is made of: index, name and mirroring of each image."""
        visits = self.order.visits(step, slot)
        return [{"index": v.index, "name": self.images.names[v.index], "mirrored": v.mirrored} for v in visits]

    def _load(self, visit: Visit) -> dict[str, Tensor]:
        sample = self.images[visit.index]
        sample = mirror_sample(sample) if visit.mirrored else sample
        return {name: value for name, value in sample.items() if isinstance(value, Tensor)}
