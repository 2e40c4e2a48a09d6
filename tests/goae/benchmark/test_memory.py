"""Memory counted on device `meta`, and that validation at full size needs less than the training it interrupts."""

import pytest
import torch
from composing import composed_as
from eg3d.generator import TriPlaneGenerator
from torch.nn.functional import mse_loss

from goae import build
from goae.benchmark.memory import peak_bytes
from goae.config import TrainConfig
from goae.models.goae import GOAE

META = torch.device("meta")


def test_what_is_freed_no_longer_counts() -> None:
    def run() -> None:
        x = torch.ones(1000, device=META)
        for _ in range(3):
            x = x + 1  # two at once

    assert peak_bytes(run) == 2 * 4 * 1000
    assert peak_bytes(lambda: torch.ones(10, 10, device=META).t()[:5]) == 400  # views hold nothing of their own


def step(goae: GOAE, size: int, *, train: bool) -> None:
    """Stage 2 with a plain L2 loss, or what validation renders of it, by the preset of the released code."""
    image, c = torch.empty(size, 3, 512, 512, device=META), torch.empty(size, 25, device=META)
    sigmas = torch.ones(size, 2, device=META)
    with torch.set_grad_enabled(train):
        with torch.no_grad():
            code = goae.invert_w(image, c)
        refined = goae.refine_planes(image, code)
        mixed = goae.mix(code.planes, refined.planes, c, sigmas=sigmas if train else None)
        view = goae.render(mixed.planes, code.ws, c).image
        if train:
            mse_loss(view, image).backward()


@pytest.mark.slow
def test_full_size_validation_fits_into_the_memory_of_a_step() -> None:
    config = composed_as(TrainConfig, "experiment=ffhq", "preset=official")
    with META:
        goae = build.build_goae(config, TriPlaneGenerator(config.generator).eval().requires_grad_(False))
    goae.encoder.eval().requires_grad_(False)
    validation = peak_bytes(lambda: step(goae.eval(), config.validation.batch_size, train=False))
    training = peak_bytes(lambda: step(goae.train(), config.stages.refiner.fit.batch_size, train=True))
    assert validation < training / 3
    assert 9e9 < training < 11e9  # with the plain renderer, in float32
