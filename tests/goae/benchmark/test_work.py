"""Every part runs on the smallest networks, both sides of it."""

from functools import cache

import pytest
import torch
from composing import composed_as
from torch import Tensor

from goae.benchmark.networks import AT_JUMPS, Scene, by_paper, place_jumps
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


@torch.no_grad()
def test_the_paper_preset_renders_as_many_rays_as_heads_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random networks have no silhouettes: without them, the benchmark would not see what the mask costs."""
    scene = Scene(by_paper(worlds().full), torch.device("cpu"), 2)
    place_jumps(scene)
    goae, image, c, rays = scene.ours.goae, scene.image, scene.c, []
    assert goae.config == scene.ref.goae.config and goae.afa.config.variant == "paper"
    along = goae.generator.depth_along

    def counted(planes: Tensor, origins: Tensor, directions: Tensor, *, uniforms: None) -> Tensor:
        rays.append(origins.shape[1])
        return along(planes, origins, directions, uniforms=uniforms)

    monkeypatch.setattr(goae.generator, "depth_along", counted)
    code = goae.invert_w(image, c)
    goae.mix(code.planes, goae.refine_planes(image, code).planes, c)
    assert sum(rays) / (2 * 64**2) == pytest.approx(AT_JUMPS, rel=0.1)
