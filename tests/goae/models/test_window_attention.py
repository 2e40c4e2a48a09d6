"""Fused window attention against timm's own: values and gradients, with and without a mask of shifted windows."""

import pytest
import torch
from timm.models.swin_transformer_v2 import WindowAttention
from torch import Tensor

from goae.models import window_attention
from goae.models.window_attention import FusedWindowAttention

TOKENS = 16


def modules() -> tuple[WindowAttention, FusedWindowAttention]:
    """timm's and ours, with the same weights."""
    torch.manual_seed(0)
    plain = WindowAttention(24, (4, 4), 2, pretrained_window_size=(3, 3)).double()
    torch.nn.init.normal_(plain.q_bias)
    torch.nn.init.normal_(plain.logit_scale, 4.0)
    fused = FusedWindowAttention(24, (4, 4), 2, pretrained_window_size=(3, 3)).double()
    fused.load_state_dict(plain.state_dict())
    return plain, fused


def inputs(masked: bool) -> tuple[Tensor, Tensor | None]:
    """Windows of two images, and the mask of an image's three."""
    x = torch.randn(6, TOKENS, 24, dtype=torch.float64)
    return x, torch.where(torch.rand(3, TOKENS, TOKENS) < 0.4, -100.0, 0.0).double() if masked else None


@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_plain_module(masked: bool) -> None:
    plain, fused = modules()
    x, mask = inputs(masked)
    with torch.no_grad():
        torch.testing.assert_close(fused(x, mask=mask), plain(x, mask=mask))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kept", [0, 6 * 2 * TOKENS**2])
def test_training_equals_the_plain_module(masked: bool, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_attention, "LARGEST_KEPT", kept)
    plain, fused = modules()
    x, mask = inputs(masked)
    x.requires_grad_()
    values, gradients = [], []
    for module in (plain, fused):
        values.append(module(x, mask=mask))
        gradients.append(torch.autograd.grad(values[-1].square().sum(), [x, *module.parameters()]))
    torch.testing.assert_close(values[1], values[0])
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("fits", [False, True])
def test_training_keeps_small_attention_maps_alone(fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_attention, "LARGEST_KEPT", 6 * 2 * TOKENS**2 - (not fits))
    _, fused = modules()
    x, mask = inputs(masked=True)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda t: t):
        fused(x, mask=mask)
    assert any(t.shape == (6, 2, TOKENS, TOKENS) for t in kept) == fits
