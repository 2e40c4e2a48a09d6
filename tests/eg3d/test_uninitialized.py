"""Networks built without first values leave the random state alone, and loading makes them the ones that were saved."""

import torch
from eg3d.uninitialized import Uninitialized
from timm.models.swin_transformer_v2 import SwinTransformerV2
from tiny import tiny_generator
from torch import nn


def built() -> list[nn.Module]:
    """Modules that draw their weights in every way that this project's networks do."""
    swin = SwinTransformerV2(img_size=32, window_size=2, embed_dim=24, depths=(2, 2), num_heads=(1, 2))
    return [tiny_generator(), nn.Conv2d(3, 4, 3), nn.Linear(5, 6), nn.MultiheadAttention(8, 2), swin]


def test_nothing_is_drawn() -> None:
    before = torch.get_rng_state()
    with Uninitialized():
        nn.Linear(500, 600), nn.Conv2d(3, 400, 3), nn.init.trunc_normal_(torch.empty(9)), torch.randn(7)
    assert torch.equal(torch.get_rng_state(), before)
    nn.Linear(5, 6)
    assert not torch.equal(torch.get_rng_state(), before)


def test_deterministic_values_are_there() -> None:
    with Uninitialized():
        norm, table = nn.BatchNorm2d(4), torch.linspace(0, 1, 5)
    assert torch.equal(norm.weight, torch.ones(4)) and table[-1] == 1


def test_loaded_networks_are_equal() -> None:
    made = built()
    with Uninitialized():
        empty = built()
    for network, other in zip(made, empty, strict=True):
        other.load_state_dict(network.state_dict())
        buffers = dict(other.named_buffers())  # those that are not stored too
        assert all(torch.equal(buffer, buffers[name]) for name, buffer in network.named_buffers())
        assert all(torch.equal(p, q) for p, q in zip(network.parameters(), other.parameters(), strict=True))
