"""Penalties on codes and features: L_w+ (paper, App. A) and the ΔF term of the refinement stage (Sec. 4.2, App. A).

Both are norms in the paper. They are taken unsquared, as the encoders it builds on do: with their weights of 1e-3 and
1e-4 a mean of squares would be inert. "mse" is offered for comparison.
"""

import torch
from torch import Tensor

NORMS = ("l2norm", "mse")


def delta_w(ws: Tensor, norm: str = "l2norm") -> Tensor:
    """L_w+: Σ_i E‖w_i − w_0‖_2 over rows i ≥ 1, E the mean over the batch; 0 for a single row.

    Args:
        ws: the active rows, (B, rows, w_dim), row 0 first; adding w_avg to every row changes nothing.
        norm: "l2norm" as above, or "mse", the squares averaged over a row's entries.
    """
    return _reduced(ws[:, 1:] - ws[:, :1], norm).mean(0).sum()


def delta_f(features_star: Tensor, features: Tensor, norm: str = "l2norm") -> Tensor:
    """λ7 term: E‖ΔF‖_2 with ΔF = F* − F, the norm over channels and positions, the mean over the batch.

    Args:
        features_star, features: (B, C, r, r).
        norm: "l2norm" as above, or "mse", the mean of squares.
    """
    return _reduced((features_star - features).flatten(1), norm).mean()


def _reduced(x: Tensor, norm: str) -> Tensor:
    """Norm, or mean of squares, along the last dimension."""
    if norm not in NORMS:
        raise ValueError(f"norm is {norm!r}; expected one of {', '.join(NORMS)}")
    return torch.linalg.vector_norm(x, dim=-1) if norm == "l2norm" else x.square().mean(-1)
