"""What is compared of the fused renderer at its first use on a device: rays by given depths, and by uniforms."""

from collections.abc import Iterator
from itertools import product

import torch
from eg3d.nn.decoder import Decoder
from eg3d.ops.first_use import Case
from eg3d.rendering import fused, reference
from eg3d.rendering.marching import Settings
from eg3d.uninitialized import Uninitialized
from torch import Tensor

CHANNELS, HIDDEN, COLORS = 32, 64, 32  # of the published decoder
# Far above the rounding of correct kernels, 2e-6 on a CPU. Planes of half precision are compared with the definition on
# the same rounded numbers, but their gradient comes back rounded.
TOLERANCE, OF_HALF_PLANES = 2e-4, 2e-2


def cases(operator: str, device: str) -> Iterator[Case]:
    """Yield renders of scenes whose rays leave the box, with gradients in planes, rays and decoder."""
    assert operator == "render"
    orders = (False, True) if device == "cuda" else (False,)  # of sums: any, or the same in every run
    for dtype, fine_is_depth, deterministic in product(fused.DTYPES[device], (True, False), orders):
        name = f"planes in {str(dtype).removeprefix('torch.')}, {'depths' if fine_is_depth else 'uniforms'} given"
        scene = _scene(name, dtype, fine_is_depth, TOLERANCE if dtype == torch.float32 else OF_HALF_PLANES)
        yield scene._replace(name=f"{name}, deterministic" if deterministic else name, deterministic=deterministic)


def _scene(name: str, dtype: torch.dtype, fine_is_depth: bool, tolerance: float) -> Case:
    rng = torch.Generator().manual_seed(3)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    batch, rays, coarse, fine = 2, 5, 48, 37  # as many as a published model takes, and an odd number
    aim = randn(batch, rays, 3) * 0.1 + torch.tensor([0.0, 0.0, -1.0])
    inputs = {
        "planes": randn(batch, 3, CHANNELS, 9, 13),
        "origins": randn(batch, rays, 3) * 0.1 + torch.tensor([0.0, 0.0, 2.7]),
        "directions": torch.nn.functional.normalize(aim, dim=-1),
        "first matrix": randn(HIDDEN, CHANNELS),
        "first bias": randn(HIDDEN),
        "second matrix": randn(1 + COLORS, HIDDEN),
        "second bias": randn(1 + COLORS) + 2,
    }
    depths = 2.25 + 1.05 * torch.rand(batch, rays, coarse, 1, generator=rng).sort(dim=2).values
    numbers = torch.rand(batch, rays, fine, generator=rng)
    settings = Settings("xy,xz,zx", 1.0, fine_is_depth)

    def call(impl: str, planes: Tensor, origins: Tensor, directions: Tensor, *weights: Tensor) -> list[Tensor]:
        given = [depths.to(origins), (2.25 + 1.05 * numbers if fine_is_depth else numbers).to(origins)]
        decoder, rays = _decoder(*weights), (origins, directions)
        if impl == "ref":
            found = reference.march_rays(planes, decoder, *rays, given[0], given[1], settings)
        else:
            found = fused.march_rays(planes, decoder, *rays, given[0], given[1], settings, backend=impl)
        return [found.features, found.depth, found.total]

    dtypes = (dtype, *(torch.float32,) * (len(inputs) - 1))
    return Case(name, call, inputs, dtypes, ("features", "depth", "weight sum"), tolerance)


def _decoder(w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Decoder:
    """A decoder of these weights, which stay the leaves of the graph."""
    with Uninitialized():
        decoder = Decoder(CHANNELS, HIDDEN, COLORS)
    for layer, weight, bias in ((decoder.net[0], w1, b1), (decoder.net[2], w2, b2)):
        del layer.weight, layer.bias
        layer.weight, layer.bias = weight, bias
    return decoder
