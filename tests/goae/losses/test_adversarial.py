"""The latent discriminator's game, Eq. 2 and 3."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from goae.losses.adversarial import encoder_adversarial, fake_logistic, r1_penalty, real_logistic
from goae.models.discriminator import CodePool, LatentDiscriminator, LatentDiscriminatorConfig
from goae.models.encoder import active_rows


def test_eq2_and_eq3_are_logarithms_of_probabilities() -> None:
    real, fake = torch.tensor([[0.3], [-1.2], [2.0]]), torch.tensor([[-0.7], [1.1]])
    real_probability, fake_probability = (1 / (1 + np.exp(-logits.double().numpy())) for logits in (real, fake))
    assert real_logistic(real).item() == pytest.approx(-np.log(real_probability).mean())
    assert fake_logistic(fake).item() == pytest.approx(-np.log(1 - fake_probability).mean())
    assert math.isfinite(real_logistic(torch.tensor([[-1e4]])).item())


def test_r1_of_a_linear_discriminator_is_its_squared_weight() -> None:
    discriminator = nn.Linear(5, 1)
    penalty = r1_penalty(discriminator, torch.randn(7, 5))
    torch.testing.assert_close(penalty, 5 * discriminator.weight.square().sum())


def test_r1_is_a_mean_over_codes_and_reaches_the_weights() -> None:
    scale, codes = nn.Parameter(torch.tensor(2.0)), torch.randn(4, 3)
    penalty = r1_penalty(lambda w: scale * w.square().sum(1, keepdim=True), codes, gamma=2.0)
    torch.testing.assert_close(penalty, (2 * scale * codes).square().sum(1).mean())
    penalty.backward()
    assert scale.grad is not None and scale.grad > 0


def players() -> tuple[LatentDiscriminator, nn.Linear, Tensor]:
    """A discriminator, an encoder of ten rows of 16, and its codes of three images."""
    encoder = nn.Linear(4, 10 * 16)
    return LatentDiscriminator(LatentDiscriminatorConfig(w_dim=16)), encoder, encoder(torch.randn(3, 4)).view(3, 10, 16)


def test_T12_the_discriminator_step_leaves_the_encoder_alone() -> None:
    discriminator, encoder, ws = players()
    real = torch.randn(5, 16, requires_grad=True)
    fake = CodePool(50).exchange(ws[:, active_rows(1, 10)].flatten(0, 1), torch.Generator().manual_seed(0))
    terms = real_logistic(discriminator(real.detach())), fake_logistic(discriminator(fake))
    (sum(terms) + r1_penalty(discriminator, real)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in discriminator.parameters() if p.ndim > 1)
    assert real.grad is None and encoder.weight.grad is None and encoder.bias.grad is None


def test_T12_the_encoder_step_leaves_the_discriminator_and_inactive_rows_alone() -> None:
    discriminator, encoder, ws = players()
    encoder_adversarial(discriminator, ws, active_rows(1, 10).stop).backward()
    assert all(p.grad is None for p in discriminator.parameters())
    moved = encoder.weight.grad.view(10, -1).abs().sum(1) > 0
    assert moved.tolist() == [True] * 4 + [False] * 6


def test_the_encoder_term_averages_over_images_and_active_rows() -> None:
    discriminator, _, ws = players()
    logits = torch.stack([discriminator(ws[i, row][None])[0] for i in range(3) for row in range(2)])
    torch.testing.assert_close(encoder_adversarial(discriminator, ws, 2), real_logistic(logits))
    for rows in (0, 11):
        with pytest.raises(ValueError, match="active rows"):
            encoder_adversarial(discriminator, ws, rows)
