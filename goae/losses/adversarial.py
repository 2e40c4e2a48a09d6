"""The canonical latent discriminator's game (paper, Eq. 2 and 3), on logits d = D_Wc(w).

With D the sigmoid of the logit, −log D = softplus(−d) and −log(1 − D) = softplus(d).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus


def discriminator_terms(real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
    """First two terms of Eq. 2: `real`, −E[log D(w_c)], and `fake`, −E[log(1 − D(w_i))]; logits of any shape."""
    return {"real": softplus(-real_logits).mean(), "fake": softplus(fake_logits).mean()}


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """E[‖∇D(w_c)‖²] of Eq. 2, to be weighted by γ/2: squared gradient summed over a code, averaged over codes.

    Args:
        discriminator: codes (N, w_dim) -> logits (N, 1), one code not touching another's logit.
        real: (N, w_dim) canonical codes; no gradient flows back to where they come from.
    """
    real = real.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return gradient.square().sum(1).mean()


def encoder_loss(fake_logits: Tensor) -> Tensor:
    """Eq. 3: −E[log D(w_i)], the mean over images and active rows."""
    return softplus(-fake_logits).mean()
