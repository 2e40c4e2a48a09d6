"""The canonical latent discriminator's game (paper, Eq. 2 and 3), on logits d = D_Wc(w).

With D the sigmoid of the logit, −log D = softplus(−d) and −log(1 − D) = softplus(d). Codes reach the discriminator's
losses detached, and the encoder's loss sees a discriminator with detached weights: neither step touches the other.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import softplus


def real_logistic(logits: Tensor) -> Tensor:
    """−E[log D(w)] = E[softplus(−d)]: the first term of Eq. 2 for w_c, and Eq. 3 for the encoder's codes."""
    return softplus(-logits).mean()


def fake_logistic(logits: Tensor) -> Tensor:
    """−E[log(1 − D(w_i))] = E[softplus(d)]: the second term of Eq. 2; the codes w_i are to be detached."""
    return softplus(logits).mean()


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor, gamma: float = 10.0) -> Tensor:
    """Third term of Eq. 2: (γ/2) E[‖∇D(w_c)‖²], the squared gradient summed over a code, averaged over codes.

    Args:
        discriminator: codes (N, w_dim) -> logits (N, 1), one code not touching another's logit.
        real: (N, w_dim) canonical codes; no gradient flows back to where they come from.
        gamma: γ, 10 in the paper. A penalty taken every k steps is to be multiplied by k by the caller.
    """
    real = real.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return gamma / 2 * gradient.square().sum(1).mean()


def encoder_adversarial(discriminator: nn.Module, ws: Tensor, rows: int) -> Tensor:
    """Eq. 3: L_E = −E[log D(w_i)], the mean over images and active rows; no gradient to the discriminator.

    Args:
        ws: (B, num_ws, w_dim), of which the first `rows` are active at the current stage.
    Raises: ValueError unless 1 <= rows <= num_ws.
    """
    if not 1 <= rows <= ws.shape[1]:
        raise ValueError(f"{rows} active rows of {ws.shape[1]}; expected at least one and at most all")
    weights = {name: value.detach() for name, value in discriminator.named_parameters()}
    return real_logistic(functional_call(discriminator, weights, (ws[:, :rows].flatten(0, 1),)))
