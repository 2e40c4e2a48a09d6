"""The cross-attention block shared by the encoder and feature alignment (paper, Sec. 4.1 and Eq. 7).

The paper only says "cross-attention". The order of residuals and norms, the four heads and the non-affine LayerNorm are
those that the released weights need: one norm, after the attention's residual, none around the feed-forward part.
"""

import torch
from torch import Tensor, nn


class CrossAttention(nn.Module):
    """y = LN(q + Attn(q, m, m)); out = y + Lin(ReLU(Lin(y))). Keys and values are both the memory, without positions.

    Args:
        dim: width d of queries and memory; a multiple of `num_heads`.
        num_heads: heads of width d / num_heads, logits scaled by its inverse square root.
        feedforward_dim: hidden width of the feed-forward part.
        dropout: on attention weights, attention output, hidden and output of the feed-forward part; training mode only.
    """

    def __init__(self, dim: int, *, num_heads: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(dim, num_heads, dropout=dropout, batch_first=True)
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.linear1 = nn.Linear(dim, feedforward_dim)
        self.linear2 = nn.Linear(feedforward_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """(B, n, d) queries and (B, m, d) memory -> (B, n, d)."""
        attended, _ = self.multihead_attn(queries, memory, memory, need_weights=False)
        y = self.norm(queries + self.dropout(attended))
        hidden = self.dropout(torch.relu(self.linear1(y)))
        return y + self.dropout(self.linear2(hidden))
