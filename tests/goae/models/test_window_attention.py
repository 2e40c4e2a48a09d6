"""Fused window attention against timm's own: values, with and without a mask of shifted windows."""

import pytest
import torch
from timm.models.swin_transformer_v2 import WindowAttention

from goae.models.window_attention import FusedWindowAttention


@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_plain_module(masked: bool) -> None:
    torch.manual_seed(0)
    plain = WindowAttention(16, (4, 4), 2, pretrained_window_size=(3, 3)).double()
    torch.nn.init.normal_(plain.q_bias)
    torch.nn.init.normal_(plain.logit_scale, 4.0)
    fused = FusedWindowAttention(16, (4, 4), 2, pretrained_window_size=(3, 3)).double()
    fused.load_state_dict(plain.state_dict())
    x = torch.randn(6, 16, 16, dtype=torch.float64)
    mask = torch.where(torch.rand(3, 16, 16) < 0.4, -100.0, 0.0).double() if masked else None
    with torch.no_grad():
        torch.testing.assert_close(fused(x, mask=mask), plain(x, mask=mask))
