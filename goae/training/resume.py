"""Keep what a run needs to go on as if never stopped: weights, optimisers, averages, memories of the slots."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed
from torch import Tensor

from goae.training import checkpoint
from goae.training.ema import WeightAverage
from goae.training.nonfinite import Watch
from goae.training.phases import Stage, optimizers

if TYPE_CHECKING:  # it takes seconds to import, and a configuration is checked without it
    from lightning_fabric import Fabric


def gather_state(
    stage: Stage,
    average: WeightAverage | None,
    watch: Watch,
    slots: list[int],
    step: int,
    best: float,
    fabric: "Fabric",
) -> dict[str, Any]:
    """Gather all that must survive a restart; each slot's memory comes from the process that works on it."""
    slot_state = {slot: on_host(value) for slot, value in stage.slot_state().items() if slot in slots}
    if fabric.world_size > 1:
        gathered: list[dict[int, Any]] = [{} for _ in range(fabric.world_size)]
        torch.distributed.all_gather_object(gathered, slot_state)
        slot_state = {slot: value for part in gathered for slot, value in part.items()}
    return {
        "step": step,
        "best": best,
        "modules": {name: module.state_dict() for name, module in stage.modules.items()},
        "optimizers": [optimizer.state_dict() for optimizer in optimizers(stage)],
        "average": average.module.state_dict() if average else None,
        "slots": slot_state,
        "nonfinite": watch.state_dict(),
    }


def restore(stage: Stage, average: WeightAverage | None, watch: Watch, path: Path | None) -> tuple[int, float]:
    """Load `path` into the stage; returns (step, best metric so far), (0, inf) without a checkpoint.

    Learning rates are those of the configuration, which may have changed since.

    Raises: ValueError if it is no checkpoint of this stage.
    """
    if path is None:
        return 0, float("inf")
    state = checkpoint.load(path, torch.device("cpu"))  # optimisers count on the host; the rest is copied in place
    try:
        take_state(stage, average, watch, state)
        return state["step"], state["best"]
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        why = str(error).partition("\n")[0]
        raise ValueError(
            f"{path} is no checkpoint of this stage ({type(error).__name__}: {why}). Delete it to go on from the one "
            "before it, or choose another run=NAME"
        ) from error


def take_state(stage: Stage, average: WeightAverage | None, watch: Watch, state: dict[str, Any]) -> None:
    """Put what `gather_state` gave in place."""
    for name, module in stage.modules.items():
        module.load_state_dict(state["modules"][name])
    for optimizer, saved in zip(optimizers(stage), state["optimizers"], strict=True):
        rates = [group["lr"] for group in optimizer.param_groups]
        optimizer.load_state_dict(saved)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
    if average:
        average.module.load_state_dict(state["average"])
    stage.load_slot_state(state["slots"])
    watch.load_state_dict(state.get("nonfinite", {}))


def on_host(value: Any) -> Any:
    """Copy the tensors of nested dictionaries and lists to the host."""
    if isinstance(value, dict):
        return {key: on_host(item) for key, item in value.items()}
    if isinstance(value, list):
        return [on_host(item) for item in value]
    return value.cpu() if isinstance(value, Tensor) else value
