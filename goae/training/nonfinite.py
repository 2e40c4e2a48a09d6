"""Steps that yield a number which is not finite: found on the device, undone or fatal, and kept to be replayed.

A step is bad if a loss term, a gradient or an updated weight is NaN or infinite. The numbers of a step travel to the
host while the device works, and are read once. Where bad steps are undone, that is before the next step. Where the
first one stops the run, it is after the next step was asked for, so that a GPU never runs out of work, but before what
the step has changed is shown, measured, logged or stored.
"""

import copy
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from eg3d.limits import read_json
from torch import Tensor, nn

from goae.training import checkpoint
from goae.training.ema import WeightAverage
from goae.training.phases import Stage, optimizers

log = logging.getLogger(__name__)
KEPT = 5  # records of bad steps, of each stage; each keeps a checkpoint
Trace = Callable[[int, int], list[dict[str, Any]]]  # step, slot -> what the micro-batch is made of


@dataclass(frozen=True)
class Failure:
    """A bad step, as `failure.json` tells it. Its folder is a run folder cut down to what the step depends on."""

    stage: str
    step: int
    cause: str  # what is not finite, the first in order of computation: <phase>/<term>, <phase>/gradient, ...
    value: str  # nan, inf or -inf
    values: dict[str, str]  # all numbers of the step
    seed: int  # of the run: with step, slot and phase it decides all that is random
    images: dict[str, list[dict[str, Any]]]  # slot -> index, name and mirroring of its images
    start: int  # step of the checkpoint in the folder; 0: there was none

    def __str__(self) -> str:
        owner, _, name = self.cause.partition("/")
        kinds = {"gradient": f"The gradient of phase '{owner}'", "weights": f"A weight of the {owner}"}
        what = kinds.get(name) or f"The term '{name}' of phase '{owner}'"
        return f"{what} is {self.value} at step {self.step}"


class NonFiniteLossError(ValueError):
    """A loss term, a gradient or a weight is NaN or infinite."""

    def __init__(self, message: str, failure: Failure | None = None) -> None:
        super().__init__(message)
        self.failure = failure


def read_failure(folder: Path) -> Failure:
    """Read the record of a bad step.

    Raises: ValueError if `folder` is none.
    """
    try:
        return Failure(**read_json(folder / "failure.json"))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"{folder} is no record of a failed step ({error}); give a folder below RUN/failures, which training "
            f"names when a number is not finite"
        ) from error


class Undo:
    """All that a step changes, copied before it: weights, buffers, averages, optimisers, memories of the slots."""

    def __init__(self, stage: Stage, average: WeightAverage | None) -> None:
        self.stage = stage
        modules = [*stage.modules.values(), *([average.module] if average else [])]
        self.tensors = [(t, t.clone()) for module in modules for t in module.state_dict().values()]
        self.optimizers = [(o, copy.deepcopy(o.state_dict())) for o in optimizers(stage)]
        self.slots = copy.deepcopy(stage.slot_state())

    @torch.no_grad()
    def __call__(self) -> None:
        """Put everything back."""
        for live, kept in self.tensors:
            live.copy_(kept)
        for optimizer, state in self.optimizers:
            optimizer.load_state_dict(state)
        self.stage.load_slot_state(self.slots)


class Numbers:
    """Scalars on their way to the host, which waits for nothing that was asked of a GPU after them."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        """Start one copy of them all."""
        self.names = list(values)
        stacked = torch.stack([value.float() for value in values.values()])
        self.host = stacked.to("cpu", non_blocking=True)
        self.arrived = torch.cuda.Event() if stacked.is_cuda else None
        if self.arrived:
            self.arrived.record(torch.cuda.current_stream(stacked.device))

    def read(self) -> dict[str, float]:
        """Wait for the copy and give the numbers."""
        if self.arrived:
            self.arrived.synchronize()
        return dict(zip(self.names, self.host.tolist(), strict=True))


class Watch:
    """Reads each step's numbers late, and undoes a bad step or stops the run."""

    def __init__(
        self,
        stage: Stage,
        average: WeightAverage | None,
        run_dir: Path,
        *,
        most: int,
        seed: int,
        num_slots: int,
        trace: Trace | None,
        on_first: Callable[[Callable[[], object]], None],
    ) -> None:
        """`most` bad steps in a row are undone; `on_first` lets the first process write their records, others wait."""
        self.stage, self.average, self.run_dir, self.most = stage, average, run_dir, most
        self.seed, self.num_slots, self.trace, self.on_first = seed, num_slots, trace, on_first
        self.in_a_row = self.skipped = 0
        self.undo: Undo | None = None
        self.pending: tuple[int, Numbers] | None = None
        self.values: dict[str, float] = {}  # of the step that was read last
        self.last: Failure | None = None

    def state_dict(self) -> dict[str, int]:
        """Give what must survive a restart."""
        return {"in_a_row": self.in_a_row, "skipped": self.skipped}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Take back what `state_dict` gave; a checkpoint from before steps could be undone has nothing."""
        self.in_a_row, self.skipped = state.get("in_a_row", 0), state.get("skipped", 0)

    def begin(self) -> None:
        """Before a step: keep what it may have to give back."""
        self.undo = Undo(self.stage, self.average) if self.most else None

    def end(self, step: int, values: Mapping[str, Tensor]) -> None:
        """After a step: send its numbers to the host, and read those of the step before if nobody has yet.

        Raises: NonFiniteLossError as `settle`.
        """
        norms = {f"{name}/weights": norm_of(module) for name, module in self.stage.modules.items()}
        numbers = Numbers({name: value.detach() for name, value in ({**values} | norms).items()})
        self.settle()
        self.pending = step, numbers

    def settle(self) -> bool:
        """Read the last step's numbers; if it was bad, undo it. Returns: whether the step was good.

        Raises: NonFiniteLossError if it cannot be undone, or as many were undone in a row as are allowed.
        """
        if self.pending is None:
            return True
        (step, numbers), self.pending = self.pending, None
        read = self.values = numbers.read()
        if all(map(math.isfinite, read.values())):
            self.in_a_row, self.undo = 0, None
            return True
        failure = self.last = self._failure(step, read)
        folder = self.run_dir / "failures" / f"{failure.stage}-step-{step:09d}"
        self.on_first(lambda: self._keep(failure, folder))
        advice = (
            f"`python scripts/replay.py {folder}` runs it again. The same command goes on from the newest checkpoint, "
            f"also with a lower learning rate, with gradients clipped (fit.clip_grad_norm=1 of the stage), in another "
            f"precision, or leaving such steps out (fit.skip_nonfinite=10 of the stage)."
        )
        if failure.start == step:
            advice += f" If it fails at once again, delete step-{step:09d}.pt to go on from the one before it."
        if self.undo is None or self.in_a_row >= self.most:
            told = f", after {self.in_a_row} bad steps that were undone" if self.in_a_row else ""
            raise NonFiniteLossError(f"{failure}{told}. {advice}", failure)
        self.undo()
        self.in_a_row, self.skipped = self.in_a_row + 1, self.skipped + 1
        log.warning("%s: the step is undone, %d in a row of at most %d", failure, self.in_a_row, self.most)
        return False

    def _failure(self, step: int, values: Mapping[str, float]) -> Failure:
        cause = next(name for name, value in values.items() if not math.isfinite(value))
        start = checkpoint.newest(self.run_dir / "checkpoints" / self.stage.name)
        return Failure(
            stage=self.stage.name,
            step=step,
            cause=cause,
            value=str(values[cause]),
            values={name: f"{value:.9g}" for name, value in values.items()},
            seed=self.seed,
            images={str(slot): self.trace(step, slot) if self.trace else [] for slot in range(self.num_slots)},
            start=checkpoint.step_of(start) if start else 0,
        )

    def _keep(self, failure: Failure, folder: Path) -> None:
        """Write the record of a bad step, and drop the oldest of many."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in self._needed(failure.start):
            target = folder / path.relative_to(self.run_dir)
            target.parent.mkdir(parents=True, exist_ok=True)
            link(path, target)
        (folder / "failure.json").write_text(json.dumps(asdict(failure), indent=1) + "\n")
        for old in sorted(folder.parent.glob(f"{failure.stage}-step-*"))[:-KEPT]:
            shutil.rmtree(old)

    def _needed(self, start: int) -> list[Path]:
        """List what the steps from `start` on depend on: configuration, weights of other stages, the checkpoint."""
        config = self.run_dir / "config.yaml"
        state = self.run_dir / f"checkpoints/{self.stage.name}/step-{start:09d}.pt"
        weights = [p for p in self.run_dir.glob("*.*") if p.stem != self.stage.name and not p.stem.endswith("-best")]
        stored = [p for p in weights if p.suffix == ".safetensors" or p.with_suffix(".safetensors") in weights]
        return [path for path in (config, *stored, state) if path.exists()]


def norm_of(module: nn.Module) -> Tensor:
    """Compute the norm of all weights: not finite if one of them is not."""
    return torch.nn.utils.get_total_norm([p.detach() for p in module.parameters()])


def check_finite(state: Mapping[str, Any], names: tuple[str, ...], step: int) -> None:
    """Check that all tensors of the named parts of a checkpoint are finite.

    Raises: NonFiniteLossError naming the first that is not.
    """
    found = [(name, t) for part in names for name, t in _tensors(state[part], part) if t.is_floating_point()]
    good: dict[str, bool] = {}
    for device in {tensor.device for _, tensor in found}:  # the counters of some optimisers are on the host
        here = {name: tensor.isfinite().all() for name, tensor in found if tensor.device == device}
        good |= zip(here, torch.stack(list(here.values())).tolist(), strict=True)
    bad = next((name for name, _ in found if not good[name]), None)
    if bad:
        raise NonFiniteLossError(
            f"{bad} is not finite before step {step}, so no checkpoint of it is written; start the same command again "
            f"from the one before, with a lower learning rate"
        )


def _tensors(value: Any, name: str) -> list[tuple[str, Tensor]]:
    """List all tensors of nested dictionaries and lists, with dotted names."""
    if isinstance(value, Tensor):
        return [(name, value)]
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in _tensors(item, f"{name}.{key}")]


def link(source: Path, target: Path) -> None:
    """Give a file a second name, which costs no space while the first is there; a copy where links are not possible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
