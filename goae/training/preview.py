"""The pictures that show how training goes."""

import torch
from eg3d.generator import TriPlaneGenerator
from torch import Tensor
from torch.nn import functional as F

from goae.camera.level import level_label
from goae.models.goae import GOAE
from goae.models.latent_inverter import LatentInverter
from goae.viz.grid import depth_picture

COLUMNS = 5
YAWS = (-30.0, 30.0)  # degrees


def preview(goae: LatentInverter, batch: dict[str, Tensor], *, refine: bool, level: int | None = None) -> Tensor:
    """A row for each image: input, reconstruction, views from -30 and +30 degrees, depth: (B * 5, 3, H, W).

    `level` of progressive training is the one that encodes; None: the last.
    """
    training = {module: module.training for module in goae.children()}
    for module in training:
        module.eval()
    pictures = _pictures(goae, batch["image"], batch["c"], refine, level)
    for module, mode in training.items():
        module.train(mode)
    return torch.stack(pictures, 1).flatten(0, 1)


@torch.no_grad()
def _pictures(goae: LatentInverter, image: Tensor, c: Tensor, refine: bool, level: int | None) -> list[Tensor]:
    code = goae.invert_w(image, c, stage=level)
    planes, own = code.planes, code.view
    if refine:
        assert isinstance(goae, GOAE)  # a rival has no second stage
        planes = goae.mix(code.planes, goae.refine_planes(image, code).planes, c).planes
        own = goae.render(planes, code.ws, c)
    others = [goae.render(planes, code.ws, level_label(goae.generator, yaw, c)).image for yaw in YAWS]
    return [image, own.image, *others, shown_depth(goae.generator, own.image_depth)]


def shown_depth(generator: TriPlaneGenerator, depth: Tensor) -> Tensor:
    """Ray depth (B, 1, R, R) as grey (B, 3, H, W) in the size of the generator's images, its limits white and black."""
    rendering, size = generator.config.rendering, generator.config.image_resolution
    grey = depth_picture(depth, near=rendering.ray_start or 2.25, far=rendering.ray_end or 3.3)
    return F.interpolate(grey, (size, size))
