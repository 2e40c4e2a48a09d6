"""Penalties on codes and features: L_w+ (paper, App. A) and the ΔF term of the refinement stage (Sec. 4.2, App. A).

Both are norms in the paper. They are taken unsquared, as the encoders it builds on do: with their weights of 1e-3 and
1e-4 a mean of squares would be inert. `kind="mse"` is offered for comparison.
"""

import torch
from torch import Tensor

NORMS = ("norm", "mse")


def delta_w(ws: Tensor, rows: int | None = None, kind: str = "norm") -> Tensor:
    """L_w+: Σ_i E‖w_i − w_0‖_2 over the active rows i = 1 ... rows − 1, E the mean over the batch.

    Args:
        ws: (B, num_ws, w_dim); adding w_avg to every row changes nothing.
        rows: number of active rows, row 0 included; None: all. With one row the loss is 0.
        kind: "norm" as above, or "mse", the squares averaged over a row's entries.
    """
    return _reduced(ws[:, 1:rows] - ws[:, :1], kind).mean(0).sum()


def delta_features(features_star: Tensor, features: Tensor, kind: str = "norm") -> Tensor:
    """λ7 term: E‖ΔF‖_2 with ΔF = F* − F, the norm over channels and positions, the mean over the batch.

    Args:
        features_star, features: (B, C, r, r).
        kind: "norm" as above, or "mse", the mean of squares.
    """
    return _reduced((features_star - features).flatten(1), kind).mean()


def check_norm(name: str, kind: str) -> None:
    """Raises: ValueError unless `kind` is one of `NORMS`; `name` is what it is of."""
    if kind not in NORMS:
        raise ValueError(f"{name} is {kind!r}; expected {' or '.join(NORMS)}")


def _reduced(x: Tensor, kind: str) -> Tensor:
    """Norm, or mean of squares, along the last dimension."""
    check_norm("kind of norm", kind)
    return torch.linalg.vector_norm(x, dim=-1) if kind == "norm" else x.square().mean(-1)
