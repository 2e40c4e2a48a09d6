"""The train loop that all stages share (paper, App. A)."""

import logging
import random
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed
from eg3d.losses import ema_decay
from torch import Tensor, nn

from goae.training import checkpoint
from goae.training.buffers import BufferMean
from goae.training.ema import WeightAverage
from goae.training.exchange import Overlap, sum_over_ranks
from goae.training.nonfinite import Failure, NonFiniteLossError, Trace, Watch, check_finite
from goae.training.phases import Batch, Draw, Phase, Stage
from goae.training.resume import gather_state, restore
from goae.training.tracking import Tracker

if TYPE_CHECKING:  # it takes seconds to import, and a configuration is checked without it
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)
Evaluate = Callable[[nn.Module], dict[str, float]]
Fetch = Callable[[int, int], Batch]


@dataclass
class FitConfig:
    """How long, how large and on what; one per stage."""

    steps: int = 1_000_000
    batch_size: int = 3
    micro_batch: int = 0  # images that share BatchNorm and the code pool; 0: the whole batch
    clip_grad_norm: float = 0.0  # 0: off
    skip_nonfinite: int = 0  # so many steps in a row may be NaN or infinite and are undone; 0: the first stops the run
    ema: float = 0.0  # decay per step of the averaged weights; 0: off, as in the paper
    ema_kimg: float = 0.0  # instead: their half-life in thousands of images (EG3D); 0: off
    ema_ramp: float = 0.0  # of ema_kimg: the half-life is at most this share of the images so far; 0: no ramp
    monitor: str = "mse"  # the validation metric, lower is better, that picks the best weights
    log_every: int = 50
    image_every: int = 2_000  # 0: never; else also before the first and after the last step
    evaluate_every: int = 5_000  # likewise
    save_every: int = 2_000

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch_size < 1 or self.micro_batch < 0:
            raise ValueError(
                f"steps {self.steps}, batch_size {self.batch_size}, micro_batch {self.micro_batch}: expected "
                f"steps >= 0, batch_size >= 1, micro_batch >= 0"
            )
        if self.batch_size % self.micro:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of micro_batch {self.micro_batch}")
        if not 0 <= self.ema < 1 or self.ema_kimg < 0 or self.ema_ramp < 0 or (self.ema and self.ema_kimg):
            raise ValueError(
                f"ema {self.ema}, ema_kimg {self.ema_kimg}, ema_ramp {self.ema_ramp}: expected one of ema (0 to 1) and "
                f"ema_kimg, and no negative number"
            )
        for name, least in (
            ("skip_nonfinite", 0),
            ("log_every", 1),
            ("image_every", 0),
            ("evaluate_every", 0),
            ("save_every", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {least}")

    @property
    def micro(self) -> int:
        """Images in one micro-batch."""
        return self.micro_batch or self.batch_size

    def looks_at(self, step: int) -> bool:
        """Check whether what the steps before `step` have made is shown, measured or stored."""
        last = step == self.steps
        intervals = (self.image_every, self.evaluate_every, self.save_every)
        return any(due(step, every, last) for every in intervals)

    @property
    def averages(self) -> bool:
        """Whether averaged weights are kept."""
        return bool(self.ema or self.ema_kimg)

    def decay(self, step: int) -> float:
        """What the averaged weights keep of themselves at the end of `step`."""
        if self.ema:
            return self.ema
        return ema_decay(self.batch_size, step * self.batch_size, kimg=self.ema_kimg, ramp=self.ema_ramp or None)


def fit(
    stage: Stage,
    fetch: Fetch,
    cfg: FitConfig,
    run_dir: Path,
    *,
    fabric: "Fabric",
    seed: int,
    preview: Batch,
    evaluate: Evaluate | None = None,
    tracker: Tracker,
    export: Callable[[nn.Module, Path], object],
    trace: Trace | None = None,
    failure: Failure | None = None,
    deterministic: bool = True,
) -> None:
    """Train `stage` to `cfg.steps`, from the newest checkpoint in `run_dir/checkpoints/<stage>` if there is one.

    Stopping and starting again gives the numbers of an uninterrupted run: all randomness follows from
    (seed, step, micro-batch), so only weights, optimisers, averages and pools have to survive.

    Args:
        fetch: (step, slot) -> the micro-batch at that place, with `cfg.micro` images.
        preview: the batch shown in the image grids.
        evaluate: the main module, or its average -> validation metrics; `cfg.monitor` picks the best
            once the stage is complete.
        export: writes the module to a path, for `run_dir/<stage>.safetensors` and `<stage>-best.safetensors`.
        trace: (step, slot) -> what the micro-batch is made of, for the record of a step that is not finite.
        failure: such a record; instead of training, its step is run again from the checkpoint before it, in
            `run_dir`, and nothing is written.
        deterministic: False lets processes exchange gradients while the backward pass runs, see `Overlap`.
    Raises: ValueError if the sizes do not divide; NonFiniteLossError naming step, phase and term.
    """
    slots = split_slots(cfg, fabric.global_rank, fabric.world_size)
    for module in stage.modules.values():
        module.to(fabric.device)
    average = WeightAverage(stage.modules[stage.main]) if cfg.averages else None
    folder = run_dir / "checkpoints" / stage.name
    watch = Watch(
        *(stage, average, run_dir),
        most=cfg.skip_nonfinite,
        seed=seed,
        num_slots=cfg.batch_size // cfg.micro,
        trace=trace,
        on_first=(lambda action: None) if failure else partial(on_rank_zero, fabric),
    )
    alone = deterministic or fabric.world_size == 1
    overlaps = {} if alone else {phase.name: Overlap(parameters_of(phase), fabric) for phase in stage.phases}
    newest = fabric.broadcast(checkpoint.newest(folder) if fabric.is_global_zero else None)  # rank 0 decides for all
    first, best = restore(stage, average, watch, newest)
    if failure:
        replay(stage, average, watch, fetch, cfg, first, failure, fabric)
        return
    tracker.start(stage.name, first, cfg.steps)

    for step in range(first, cfg.steps + 1):
        last = step == cfg.steps
        if watch.most or cfg.looks_at(step):
            watch.settle()
        stage.begin(step)
        shown = average.module if average else stage.modules[stage.main]

        # Pictures, validation, checkpoint: ahead of the gradient work, so that step 0 and the last step are covered
        if due(step, cfg.image_every, last):
            with average.lent_to(stage.modules[stage.main]) if average else nullcontext():
                tracker.images(step, stage.preview(move(preview, fabric)), columns=stage.preview_columns)
        if evaluate and due(step, cfg.evaluate_every, last):
            metrics = fabric.broadcast(evaluate(shown))  # rank 0 decides for all what is best
            tracker.scalars(step, {f"val/{name}": value for name, value in metrics.items()})
            if stage.complete and metrics[cfg.monitor] < best:
                best = metrics[cfg.monitor]
                on_rank_zero(fabric, partial(export, shown, run_dir / f"{stage.name}-best.safetensors"))
            stage.begin(step)
        if last or (step > first and step % cfg.save_every == 0):  # where it starts there is nothing new to keep
            state = gather_state(stage, average, watch, slots, step, best, fabric)
            check_finite(state, ("modules", "average", "optimizers"), step)
            on_rank_zero(fabric, partial(checkpoint.save, state, folder, step))
        if last:
            tracker.scalars(step, {"skipped": float(watch.skipped)} if watch.skipped else {})
            on_rank_zero(fabric, partial(export, shown, run_dir / f"{stage.name}.safetensors"))
            break

        # One update per phase that is due
        batches = [move(fetch(step, slot), fabric) for slot in slots]
        scalars = train_step(stage, average, watch, batches, slots, step, cfg, fabric, overlaps)
        if step % cfg.log_every == 0 and watch.settle():
            undone = {"skipped": float(watch.skipped)} if watch.skipped else {}
            tracker.scalars(step, {name: watch.values[name] for name in scalars} | undone)
        tracker.advance(step)
    tracker.finish()


def train_step(
    stage: Stage,
    average: WeightAverage | None,
    watch: Watch,
    batches: list[Batch],
    slots: list[int],
    step: int,
    cfg: FitConfig,
    fabric: "Fabric",
    overlaps: Mapping[str, Overlap] | None = None,
) -> dict[str, Tensor]:
    """Make the updates of one step, under `watch`; returns the detached terms and gradient norms of all phases."""
    watch.begin()
    scalars: dict[str, Tensor] = {}
    for phase in stage.phases:
        if phase.due(step):
            scalars |= update(phase, batches, slots, step, cfg, watch.seed, fabric, (overlaps or {}).get(phase.name))
    if average:
        average.update(stage.modules[stage.main], cfg.decay(step))
    watch.end(step, scalars)
    return scalars


def replay(
    stage: Stage,
    average: WeightAverage | None,
    watch: Watch,
    fetch: Fetch,
    cfg: FitConfig,
    first: int,
    failure: Failure,
    fabric: "Fabric",
) -> None:
    """Train from step `first` to the one that failed, then run that again and have autograd look for the operation.

    Raises: NonFiniteLossError with the numbers of now, if the step fails again.
    """
    slots = split_slots(cfg, fabric.global_rank, fabric.world_size)
    watch.most = failure.step + 1  # all bad steps before it were undone, and so is it
    for step in range(first, failure.step + 1):
        stage.begin(step)
        batches = [move(fetch(step, slot), fabric) for slot in slots]
        train_step(stage, average, watch, batches, slots, step, cfg, fabric)
        good = watch.settle()
        log.info("step %d of %d", step, failure.step)
    if good:
        return
    operation = "no backward operation makes it: it arises in the forward pass"
    try:
        with torch.autograd.set_detect_anomaly(True):
            train_step(stage, average, watch, batches, slots, step, cfg, fabric)
    except RuntimeError as error:
        if "returned nan values" not in str(error):
            raise
        operation = str(error)
    raise NonFiniteLossError(f"{watch.last}; {operation}", watch.last)


def update(
    phase: Phase,
    batches: list[Batch],
    slots: list[int],
    step: int,
    cfg: FitConfig,
    seed: int,
    fabric: "Fabric",
    overlap: Overlap | None = None,
) -> dict[str, Tensor]:
    """Make one optimiser step of `phase` over all micro-batches; returns its detached terms, averaged over them.

    Beside them `<phase>/gradient`: the norm of the gradient before any clipping.
    """
    parameters = parameters_of(phase)
    phase.optimizer.zero_grad(set_to_none=True)
    buffers = BufferMean(phase.modules)
    share = cfg.micro / cfg.batch_size
    sums: dict[str, Tensor] = {}
    for slot, batch in zip(slots, batches, strict=True):
        draw = Draw(seed, step, slot)
        seed_all(draw.number(phase.name))
        buffers.begin()
        with fabric.autocast():
            terms = phase.losses(batch, draw)
            total = torch.stack([phase.weights[name] * term.float() for name, term in terms.items()]).sum()
        with overlap.backward() if overlap and slot == slots[-1] else nullcontext():
            fabric.backward(total * share)
        buffers.end()
        for name, term in terms.items():
            key = f"{phase.name}/{name}"
            sums[key] = sums.get(key, torch.zeros((), device=fabric.device)) + term.detach().float() * share
    gradients = [p.grad for p in parameters if p.grad is not None]
    if overlap:
        overlap.finish()
    else:
        sum_over_ranks(gradients, fabric)
    sum_over_ranks(list(sums.values()), fabric)
    buffers.finish(share, lambda tensors: sum_over_ranks(tensors, fabric))
    norm = torch.nn.utils.get_total_norm(gradients)
    if cfg.clip_grad_norm:
        torch.nn.utils.clip_grads_with_norm_(parameters, cfg.clip_grad_norm, norm)
    phase.optimizer.step()
    return sums | {f"{phase.name}/gradient": norm}


def parameters_of(phase: Phase) -> list[nn.Parameter]:
    """List what the phase's optimiser updates."""
    return [p for group in phase.optimizer.param_groups for p in group["params"]]


def due(step: int, every: int, last: bool) -> bool:
    """Whether what happens every so many steps happens now; 0 is never."""
    return every > 0 and (step % every == 0 or last)


def split_slots(cfg: FitConfig, rank: int, num_ranks: int) -> list[int]:
    """The micro-batch slots of one process; every process has the same number of them."""
    num_slots = cfg.batch_size // cfg.micro
    if num_slots % num_ranks:
        raise ValueError(
            f"{num_slots} micro-batches (batch_size {cfg.batch_size} / micro_batch {cfg.micro}) cannot be shared "
            f"equally by {num_ranks} processes; change the stage's fit.batch_size or fit.micro_batch"
        )
    return list(range(rank, num_slots, num_ranks))


def seed_all(number: int) -> None:
    """Seed the global generators, which dropout and drop-path use."""
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number)


def move(batch: Batch, fabric: "Fabric") -> Batch:
    """The batch on this process's device."""
    return {name: value.to(fabric.device, non_blocking=True) for name, value in batch.items()}


def on_rank_zero(fabric: "Fabric", action: Callable[[], object]) -> None:
    """Do `action` on the first process; the others wait for it."""
    if fabric.is_global_zero:
        action()
    fabric.barrier()
