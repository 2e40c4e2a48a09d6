"""Every part runs on the smallest networks, both sides of it."""

from functools import cache

import pytest
import torch
from composing import composed_as

from goae.benchmark.parts import PARTS, Worlds
from goae.config import PriorConfig, TrainConfig


@cache
def worlds() -> Worlds:
    plain = ("stages.encoder.bg=0", "stages.refiner.bg=0")  # no statistics of the random generator
    mini = composed_as(TrainConfig, "experiment=tiny", "goae.mix.depth_density=0.5", *plain)
    full = composed_as(TrainConfig, "experiment=tiny", "preset=official")
    prior = composed_as(PriorConfig, "experiment=tiny_prior", "warm_start.fit.micro_batch=2", name="train_prior")
    return Worlds(full, mini, prior, batch_size=2)


@pytest.mark.parametrize("name", PARTS)
def test_both_sides_run(name: str) -> None:
    work = PARTS[name].make(worlds(), torch.device("cpu"))
    work.ref()
    work.ours()
    assert work.touched
    assert work.images == {"mini_stage1_step": 4, "mini_stage2_step": 4}.get(name, 4 if "prior" in name else 2)
