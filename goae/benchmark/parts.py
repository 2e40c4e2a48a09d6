"""The parts that can be measured, by name; `NAME_bf16` runs the library's side of a part in bfloat16."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from goae.benchmark import stages, steps
from goae.benchmark.measure import Work
from goae.benchmark.networks import Scene, by_paper, place_jumps
from goae.config import PriorConfig, TrainConfig

BF16 = "_bf16"


@dataclass(frozen=True)
class Worlds:
    """What is measured: the full-size networks, the mini world's, and the training of its generator."""

    full: TrainConfig
    mini: TrainConfig
    prior: PriorConfig
    batch_size: int


@dataclass(frozen=True)
class Part:
    """How to make a part's `Work`, and about how many seconds the original needs for it, for the time left."""

    make: Callable[[Worlds, torch.device], Work]
    cost: float


def _full(make: Callable[[Scene], Work], cost: float) -> Part:
    return Part(lambda worlds, device: make(Scene(worlds.full, device, worlds.batch_size)), cost)


def _paper(make: Callable[[Scene], Work], cost: float) -> Part:
    def work(worlds: Worlds, device: torch.device) -> Work:
        scene = Scene(by_paper(worlds.full), device, worlds.batch_size)
        made = make(scene)
        place_jumps(scene)
        return made

    return Part(work, cost)


def _mini(make: Callable[[Scene], Work], cost: float) -> Part:
    return Part(lambda worlds, device: make(Scene(worlds.mini, device, worlds.batch_size)), cost)


def _prior(make: Callable[[PriorConfig, torch.device], Work], cost: float) -> Part:
    return Part(lambda worlds, device: make(worlds.prior, device), cost)


PARTS = {
    "mapping": _full(stages.mapping, 0.1),
    "encoder": _full(stages.encoder, 0.5),
    "backbone": _full(stages.backbone, 0.5),
    "renderer_forward": _full(stages.renderer_forward, 2.8),
    "renderer_backward": _full(stages.renderer_backward, 1.3),
    "superresolution": _full(stages.superresolution, 2.4),
    "afa": _full(stages.afa, 1.0),
    "mix": _full(stages.mix, 2.8),
    "novel_view": _full(stages.novel_view, 5.0),
    "full_inversion": _full(stages.full_inversion, 16.0),
    "full_inversion_paper": _paper(stages.full_inversion, 19.0),
    "stage1_step": _full(steps.stage1_step, 14.0),
    "stage2_step": _full(steps.stage2_step, 25.0),
    "stage2_step_paper": _paper(steps.stage2_step, 28.0),
    "mini_encoder": _mini(stages.encoder, 0.1),
    "mini_backbone": _mini(stages.backbone, 0.1),
    "mini_renderer_forward": _mini(stages.renderer_forward, 0.1),
    "mini_renderer_backward": _mini(stages.renderer_backward, 0.1),
    "mini_superresolution": _mini(stages.superresolution, 0.1),
    "mini_afa": _mini(stages.afa, 0.1),
    "mini_mix": _mini(stages.mix, 0.1),
    "mini_novel_view": _mini(stages.novel_view, 0.1),
    "mini_full_inversion": _mini(stages.full_inversion, 0.2),
    "mini_prior_step": _prior(steps.mini_prior_step, 1.5),
    "mini_prior_g_step": _prior(steps.mini_prior_g_step, 1.5),
    "mini_prior_d_step": _prior(steps.mini_prior_d_step, 1.0),
    "mini_stage1_step": _mini(steps.mini_stage1_step, 3.0),
    "mini_stage2_step": _mini(steps.mini_stage2_step, 5.0),
}
FULL_SIZE = tuple(name for name in PARTS if not name.startswith("mini_"))


def part_of(name: str) -> Part:
    """The part of a name with or without the suffix."""
    return PARTS[name.removesuffix(BF16)]


def choose(names: list[str], *, bf16: bool) -> list[str]:
    """The parts to measure: those named, or all of them, full-size ones in bfloat16 too if the machine has it.

    Raises: ValueError for a name that there is not, or a part in bfloat16 where `bf16` is False.
    """
    unknown = [name for name in names if name.removesuffix(BF16) not in PARTS]
    if unknown:
        raise ValueError(f"parts {', '.join(unknown)} do not exist; expected some of {', '.join(PARTS)}")
    emulated = [] if bf16 else [name for name in names if name.endswith(BF16)]
    if emulated:
        raise ValueError(f"parts {', '.join(emulated)} need a device with bfloat16 instructions; leave {BF16} out")
    return names or [*PARTS, *(name + BF16 for name in FULL_SIZE if bf16 and name != "mapping")]
