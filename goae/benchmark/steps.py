"""Training steps: of the full-size networks with a plain L2 loss, and of the mini world as its experiments train."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from eg3d import losses
from eg3d.cameras import canonical_label
from eg3d.discriminator import DualDiscriminator
from eg3d.generator import TriPlaneGenerator
from torch.nn.functional import mse_loss

from goae import build
from goae.benchmark.measure import Work
from goae.benchmark.networks import Networks, Scene
from goae.benchmark.original import plain_generator
from goae.benchmark.recipe import random_perception
from goae.config import PriorConfig, TrainConfig
from goae.data.heads import NUM_FACTORS
from goae.models.goae import GOAE
from goae.runs.setup import launch
from goae.training.loop import FitConfig, update
from goae.training.phases import Batch, Stage
from goae.training.prior import WarmStartStage

Call = Callable[[], Any]


def stage1_step(scene: Scene) -> Work:
    """Encoder in training mode, frozen generator, L2 of the image, backward to the encoder; no optimiser."""
    image, c = scene.image, scene.c

    def step(networks: Networks) -> Call:
        goae = networks.goae
        goae.encoder.train()
        parameters = list(goae.encoder.parameters())

        def run() -> Any:
            code = goae.invert_w(image, c, uniforms=_rng(scene))
            return torch.autograd.grad(mse_loss(code.view.image, image), parameters, allow_unused=True)

        return run

    modules = scene.ours.goae.encoder, scene.ours.goae.generator
    return Work(step(scene.ref), step(scene.ours), [*modules, image], images=scene.batch_size)


def stage2_step(scene: Scene) -> Work:
    """Inversion by the frozen encoder, AFA in training mode, mix, L2 of the image, backward to AFA; no optimiser."""
    image, c = scene.image, scene.c
    sigmas = torch.full((len(c), 2), 1.5)

    def step(networks: Networks) -> Call:
        goae = networks.goae
        goae.encoder.requires_grad_(False)
        goae.afa.train()
        parameters = list(goae.afa.parameters())

        def run() -> Any:
            with torch.no_grad():
                code = goae.invert_w(image, c)
            refined = goae.refine_planes(image, code)
            mixed = goae.mix(code.planes, refined.planes, c, sigmas=sigmas)
            view = goae.render(mixed.planes, code.ws, c, uniforms=_rng(scene))
            return torch.autograd.grad(mse_loss(view.image, image), parameters, allow_unused=True)

        return run

    return Work(step(scene.ref), step(scene.ours), [scene.ours.goae, image], images=scene.batch_size)


def _rng(scene: Scene) -> torch.Generator:
    return torch.Generator(scene.device).manual_seed(scene.config.seed)


def mini_stage1_step(scene: Scene) -> Work:
    """Stage 1 as configured, all rows active, over as many steps as lie between two depth terms."""
    stage = scene.config.stages.encoder
    every = stage.background.every if stage.bg else 1
    first = (stage.stage_steps[-1] // every + 1) * every
    return _stage_work(scene, stage.fit, build.build_encoder_stage, range(first, first + every))


def mini_stage2_step(scene: Scene) -> Work:
    """Stage 2 as configured, over as many steps as lie between two depth terms."""
    stage = scene.config.stages.refiner
    every = stage.background.every if stage.bg else 1
    return _stage_work(scene, stage.fit, build.build_refiner_stage, range(every))


def _stage_work(
    scene: Scene, fit: FitConfig, make: Callable[[TrainConfig, GOAE, Any, torch.device], Stage], steps: range
) -> Work:
    side = scene.config.generator.image_resolution
    batches = [_images(scene, fit.micro, side, slot) for slot in range(fit.batch_size // fit.micro)]
    with tempfile.TemporaryDirectory() as folder:
        perception = random_perception(scene.config.perception, scene.device, Path(folder))

    def trainer(networks: Networks) -> Call:
        stage = make(scene.config, networks.training_goae, perception, scene.device)
        return _trainer(scene.config, stage, fit, batches, steps)

    ref, ours = trainer(scene.ref), trainer(scene.ours)
    return Work(ref, ours, [scene.ours.training_goae], steps=len(steps), images=fit.batch_size)


def mini_prior_step(config: PriorConfig, device: torch.device) -> Work:
    """A generator's warm start: one whole step, optimiser included."""
    fit = config.warm_start.fit
    with tempfile.TemporaryDirectory() as folder:
        perception = random_perception(config.perception, device, Path(folder))
    batches = [_heads(config, fit.micro, slot, device) for slot in range(fit.batch_size // fit.micro)]

    def trainer(generator: TriPlaneGenerator) -> Call:
        stage = WarmStartStage(generator, perception.lpips, config.warm_start)
        return _trainer(config, stage, fit, batches, range(1, 2))

    ref, ours = _prior_generators(config, device)
    return Work(trainer(ref), trainer(ours), [ours], images=fit.batch_size)


def mini_prior_d_step(config: PriorConfig, device: torch.device) -> Work:
    """EG3D's discriminator phase: dual discrimination of generated and real images, backward to the discriminator."""
    fit = config.warm_start.fit
    batch = _heads(config, fit.batch_size, 0, device)

    def step(generator: TriPlaneGenerator, discriminator: DualDiscriminator) -> Call:
        def run() -> Any:
            with torch.no_grad():
                fake = _generate(generator, batch)
            c, now = batch["c"], _now(generator)
            judged = losses.discriminator_main(discriminator, fake, c, batch["image"], c, now)
            return torch.autograd.grad(judged.loss.mean(), list(discriminator.parameters()))

        return run

    return _adversarial_work(config, device, step)


def mini_prior_g_step(config: PriorConfig, device: torch.device) -> Work:
    """EG3D's generator phase: synthesis, dual discrimination, backward to the generator."""
    batch = _heads(config, config.warm_start.fit.batch_size, 0, device)

    def step(generator: TriPlaneGenerator, discriminator: DualDiscriminator) -> Call:
        parameters = list(generator.requires_grad_(True).parameters())
        discriminator.requires_grad_(False)

        def run() -> Any:
            judged = losses.generator_main(discriminator, _generate(generator, batch), batch["c"], _now(generator))
            return torch.autograd.grad(judged.loss.mean(), parameters, allow_unused=True)

        return run

    return _adversarial_work(config, device, step)


def _adversarial_work(
    config: PriorConfig, device: torch.device, step: Callable[[TriPlaneGenerator, DualDiscriminator], Call]
) -> Work:
    made = [
        (generator.train(), build.build_discriminator(config, impl).to(device))
        for generator, impl in zip(_prior_generators(config, device), ("ref", "auto"), strict=True)
    ]
    (ref, ours), batch_size = made, config.warm_start.fit.batch_size
    return Work(step(*ref), step(*ours), list(ours), images=batch_size)


def _generate(generator: TriPlaneGenerator, batch: Batch) -> Any:
    rng = torch.Generator(batch["z"].device).manual_seed(0)
    swap = torch.zeros(len(batch["z"]), 1, device=batch["z"].device)
    return losses.generate(generator, batch["z"], batch["c"], _now(generator), swap=swap, uniforms=rng, rng=rng)


def _now(generator: TriPlaneGenerator) -> losses.Step:
    """The end of EG3D's schedules: no blur, half of the labels swapped."""
    return losses.Step(generator.config.neural_rendering_resolution, 0.0, 0.5)


def _prior_generators(config: PriorConfig, device: torch.device) -> tuple[TriPlaneGenerator, TriPlaneGenerator]:
    """The plain one and the library's, with random weights."""
    torch.manual_seed(config.seed)
    ours = TriPlaneGenerator(config.generator).to(device)
    return plain_generator(ours), ours


def _trainer(
    config: TrainConfig | PriorConfig, stage: Stage, fit: FitConfig, batches: list[Batch], steps: range
) -> Call:
    """The train loop's updates at `steps`, phases that are due and optimisers included."""
    fabric = launch(replace(config, device=str(batches[0]["image"].device.type)))

    def run() -> None:
        for step in steps:
            stage.begin(step)
            for phase in stage.phases:
                if phase.due(step):
                    update(phase, batches, list(range(len(batches))), step, fit, config.seed, fabric)
                    phase.optimizer.zero_grad(set_to_none=True)

    return run


def _images(scene: Scene, size: int, side: int, seed: int) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    image = torch.rand(size, 3, side, side, generator=rng) * 2 - 1
    return {"image": image.to(scene.device), "c": scene.c[:1].expand(size, -1)}


def _heads(config: PriorConfig, size: int, seed: int, device: torch.device) -> Batch:
    """Noise in place of heads: what a training batch of the warm start holds."""
    rng, side = torch.Generator().manual_seed(seed), config.data.resolution
    batch = {
        "image": torch.rand(size, 3, side, side, generator=rng) * 2 - 1,
        "c": canonical_label(config.generator.avg_camera_radius).expand(size, -1),
        "z": torch.randn(size, config.generator.z_dim, generator=rng),
        "factors": torch.randn(size, min(NUM_FACTORS, config.generator.z_dim), generator=rng),
        "depth": 2.2 + torch.rand(size, 1, side, side, generator=rng),
        "parts": torch.randint(0, 2, (size, 1, side, side), generator=rng),
    }
    return {name: value.to(device) for name, value in batch.items()}
