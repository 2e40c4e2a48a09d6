"""The parts of an inversion: what runs, on what, once plain and once as the library does it. No gradients."""

from collections.abc import Callable
from typing import Any

import torch
from eg3d.generator import TriPlaneGenerator
from torch import Tensor, nn

from goae.benchmark.measure import Work
from goae.benchmark.networks import Networks, Scene
from goae.benchmark.original import invert_and_view
from goae.inversion import Inverter
from goae.models.goae import GOAE


def work_of(scene: Scene, run: Callable[[Networks], Any], *touched: nn.Module | Tensor) -> Work:
    """The same steps with both implementations, without gradients."""
    ref, ours = (torch.no_grad()(lambda networks=networks: run(networks)) for networks in (scene.ref, scene.ours))
    return Work(ref, ours, list(touched), images=scene.batch_size)


def mapping(scene: Scene) -> Work:
    """z, c -> ws."""
    z, c = scene.normal(scene.config.generator.z_dim), scene.c
    return work_of(scene, lambda n: n.generator.mapping(z, c), scene.ours.generator.backbone.mapping, z, c)


def encoder(scene: Scene) -> Work:
    """Image at the encoder's resolution -> ws."""
    side = scene.config.encoder.backbone.image_resolution
    image = scene.normal(3, side, side)
    return work_of(scene, lambda n: n.goae.encode(image), scene.ours.goae.encoder, image)


def backbone(scene: Scene) -> Work:
    """ws -> planes."""
    ws, resolution = scene.ws, scene.config.generator.plane_resolution

    def run(networks: Networks) -> Tensor:
        generator = networks.generator
        return generator.planes(generator.features(ws, resolution), ws)

    return work_of(scene, run, scene.ours.generator.backbone.synthesis, ws)


def renderer_forward(scene: Scene) -> Work:
    """Planes, c -> feature image and depth, at the generator's own raw resolution."""
    planes, c = scene.planes, scene.c
    return work_of(scene, lambda n: n.generator.render(planes, c), scene.ours.generator.decoder, planes)


def superresolution(scene: Scene) -> Work:
    """Raw image, feature image, ws -> image."""
    ws, side = scene.ws, scene.config.generator.neural_rendering_resolution
    features = scene.normal(scene.ours.generator.superresolution.channels, side, side)
    raw = features[:, :3]
    module = scene.ours.generator.superresolution
    return work_of(scene, lambda n: n.generator.superresolve(raw, features, ws), module, features)


def afa(scene: Scene) -> Work:
    """Image, its reconstruction and F -> F*."""
    config = scene.config.afa
    image, features = scene.image, scene.normal(*[config.feature_channels, *2 * [config.feature_resolution]])
    image_w = image.flip(3)
    return work_of(scene, lambda n: n.goae.afa(image, image_w, features), scene.ours.goae.afa, image, image_w, features)


def mix(scene: Scene) -> Work:
    """Refined planes and W+ planes -> mixed planes, the depth render for the mask included."""
    planes_w, c = scene.planes, scene.c
    planes_f, sigmas = planes_w.flip(0, 4), torch.full((len(c), 2), 1.5)
    return work_of(scene, lambda n: n.goae.mix(planes_w, planes_f, c, sigmas=sigmas), planes_w, planes_f)


def novel_view(scene: Scene) -> Work:
    """Planes of an inversion, a new camera -> image."""
    planes, ws, c = scene.planes, scene.ws, scene.novel_c
    generator = scene.ours.generator
    modules = (generator.decoder, generator.superresolution)
    return work_of(scene, lambda n: n.goae.render(planes, ws, c), *modules, planes)


def full_inversion(scene: Scene) -> Work:
    """Image, c -> inversion -> image of a new camera.

    The FLOPs counted are those of the library's steps with plain operators: it does not render what it does not show.
    """
    image, c, novel_c = scene.image, scene.c, scene.novel_c
    inverter, plain = Inverter(scene.ours.goae), Inverter(scene.ref.goae)

    def ours() -> Any:
        return inverter.render(inverter.invert(image, c), novel_c)

    def counted() -> Any:
        with torch.no_grad():
            return _view(plain.goae, image, c, novel_c)

    ref = torch.no_grad()(lambda: invert_and_view(scene.ref.goae, image, c, novel_c))
    return Work(ref, ours, [scene.ours.goae, image], counted, images=scene.batch_size)


def _view(goae: GOAE, image: Tensor, c: Tensor, novel_c: Tensor) -> Tensor:
    """What `Inverter` does for a view, outside of inference mode, in which nothing can be counted."""
    code = goae.invert_w(image, c)
    refined = goae.refine_planes(image, code)
    mixed = goae.mix(code.planes, refined.planes, c)
    return goae.render(mixed.planes, code.ws, novel_c).image


def renderer_backward(scene: Scene) -> Work:
    """A render at half the raw resolution, forward and backward to planes and decoder."""
    side = max(1, scene.config.generator.neural_rendering_resolution // 2)
    c, weights = scene.c, scene.normal(3, side, side)

    def training(generator: TriPlaneGenerator) -> Callable[[], Any]:
        planes, parameters = scene.planes.requires_grad_(), list(generator.decoder.parameters())
        generator.decoder.requires_grad_(True)

        def run() -> Any:
            image = generator.render(planes, c, resolution=side).feature_image
            return torch.autograd.grad((image[:, :3] * weights).sum(), [planes, *parameters])

        return run

    ref, ours = training(scene.ref.generator), training(scene.ours.generator)
    return Work(ref, ours, [scene.ours.generator.decoder, scene.planes], images=scene.batch_size)
