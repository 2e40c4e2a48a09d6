"""Samples of a generator, with all that is known about them."""

import torch
from eg3d.generator import TriPlaneGenerator
from eg3d.transfer import send
from torch import Tensor


@torch.no_grad()
def sample_views(
    generator: TriPlaneGenerator, c: Tensor, conditioning: Tensor, rng: torch.Generator
) -> dict[str, Tensor]:
    """Random scenes as seen by cameras, rendered at midpoints with the stored noise.

    Args:
        c: (B, 25), one scene for each camera.
        conditioning: (B, 25) labels for the mapping network.
        rng: of z, on the CPU.
    Returns: `ws` (B, num_ws, w_dim), `c`, and `image` (B, 3, H, H), cut off at [-1, 1], on the generator's device.
    """
    device = generator.w_avg.device
    z = send(torch.randn(len(c), generator.config.z_dim, generator=rng), device)
    ws = generator.mapping(z, send(conditioning, device))
    c = send(c, device)
    return {"ws": ws, "c": c, "image": generator.synthesis(ws, c).image.clamp(-1, 1)}
