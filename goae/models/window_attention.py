"""Cosine attention inside windows (Swin V2) through PyTorch's fused attention, without gradients."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.swin_transformer_v2 import WindowAttention
from torch import Tensor

LARGEST_SCALE = math.log(100)  # of the logits
LARGEST_BIAS = 16.0


class FusedWindowAttention(WindowAttention):
    """timm's module with the same parameters and values; softmax(s q k / (|q| |k|) + bias) v by one operator."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(windows, tokens, channels) -> the same; `mask` (windows of an image, tokens, tokens) is added to logits."""
        if torch.is_grad_enabled():  # training keeps the rounding that released gradients were made with
            return super().forward(x, mask)
        windows, tokens, channels = x.shape
        biases: Any = (self.q_bias, self.k_bias, self.v_bias)
        bias = None if self.q_bias is None else torch.cat(biases)
        qkv = F.linear(x, self.qkv.weight, bias).reshape(windows, tokens, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q = F.normalize(q, dim=-1) * self.logit_scale.clamp(max=LARGEST_SCALE).exp()
        added = self._position_bias()[None]
        if mask is not None:
            added = (added + mask[:, None]).repeat(windows // len(mask), 1, 1, 1)
        dropout = self.attn_drop.p if self.training else 0.0
        x = F.scaled_dot_product_attention(q, F.normalize(k, dim=-1), v, added, dropout_p=dropout, scale=1.0)
        return self.proj_drop(self.proj(x.transpose(1, 2).reshape(windows, tokens, channels)))

    def _position_bias(self) -> Tensor:
        """(heads, tokens, tokens), a function of the tokens' distance."""
        module: Any = self
        logits = module.cpb_mlp(self.relative_coords_table).view(-1, self.num_heads)
        table = LARGEST_BIAS * torch.sigmoid(logits)
        tokens = self.window_size[0] * self.window_size[1]
        return table[module.relative_position_index.view(-1)].view(tokens, tokens, -1).permute(2, 0, 1).contiguous()
