"""Cosine attention inside windows (Swin V2): PyTorch's fused attention without gradients, its plain steps with them.

The attention maps take more memory than all else in a Swin block. Training keeps small ones, and finds the others again
in the backward pass, by products of a head's few channels; the numbers are the same either way.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.swin_transformer_v2 import WindowAttention
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LARGEST_SCALE = math.log(100)  # of the logits
LARGEST_BIAS = 16.0
LARGEST_KEPT = 2**20  # numbers of a block's attention map


class FusedWindowAttention(WindowAttention):
    """timm's module with the same parameters and values; softmax(s q k / (|q| |k|) + bias) v."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(windows, tokens, channels) -> the same; `mask` (windows of an image, tokens, tokens) is added to logits."""
        biases: Any = (self.q_bias, self.k_bias, self.v_bias)
        bias = None if self.q_bias is None else torch.cat(biases)
        qkv = F.linear(x, self.qkv.weight, bias)
        if not torch.is_grad_enabled():
            x = self._attend_fused(qkv, mask)
        elif len(x) * self.num_heads * x.shape[1] ** 2 <= LARGEST_KEPT:
            x = self._attend(qkv, mask)
        else:
            x = checkpoint(self._attend, qkv, mask, use_reentrant=False)
        return self.proj_drop(self.proj(x))

    def _attend(self, qkv: Tensor, mask: Tensor | None) -> Tensor:
        """(windows, tokens, 3 channels) -> (windows, tokens, channels), rounded as released gradients were made."""
        q, k, v = self._heads(qkv)
        logits = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        logits = logits * self._scale() + self._position_bias()[None]
        if mask is not None:
            logits = (logits.unflatten(0, (-1, len(mask))) + mask[:, None]).flatten(0, 1)
        return _joined(self.attn_drop(logits.softmax(dim=-1)) @ v)

    def _attend_fused(self, qkv: Tensor, mask: Tensor | None) -> Tensor:
        """`_attend` by PyTorch's fused operator."""
        q, k, v = self._heads(qkv)
        added = self._position_bias()[None]
        if mask is not None:
            added = (added + mask[:, None]).repeat(len(q) // len(mask), 1, 1, 1)
        dropout = self.attn_drop.p if self.training else 0.0
        q, k = F.normalize(q, dim=-1) * self._scale(), F.normalize(k, dim=-1)
        return _joined(F.scaled_dot_product_attention(q, k, v, added, dropout_p=dropout, scale=1.0))

    def _heads(self, qkv: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values, (windows, heads, tokens, channels of a head)."""
        return qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def _scale(self) -> Tensor:
        """Of the logits, (heads, 1, 1)."""
        return self.logit_scale.clamp(max=LARGEST_SCALE).exp()

    def _position_bias(self) -> Tensor:
        """(heads, tokens, tokens), a function of the tokens' distance."""
        module: Any = self
        logits = module.cpb_mlp(self.relative_coords_table).view(-1, self.num_heads)
        table = LARGEST_BIAS * torch.sigmoid(logits)
        tokens = self.window_size[0] * self.window_size[1]
        return table[module.relative_position_index.view(-1)].view(tokens, tokens, -1).permute(2, 0, 1).contiguous()


def _joined(heads: Tensor) -> Tensor:
    """(windows, heads, tokens, channels of a head) -> (windows, tokens, channels)."""
    return heads.transpose(1, 2).flatten(2)
