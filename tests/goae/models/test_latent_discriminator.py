"""The latent discriminator and its pool of codes."""

import pytest
import torch
import torch.nn.functional as F
from parity import seeded
from torch import Tensor, nn

from goae.models.discriminator import CodePool, LatentDiscriminator, LatentDiscriminatorConfig


@pytest.fixture
def discriminator() -> LatentDiscriminator:
    torch.manual_seed(0)
    return LatentDiscriminator(LatentDiscriminatorConfig(w_dim=16))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def codes(start: int, count: int) -> Tensor:
    """Codes that carry their running number."""
    return torch.arange(start, start + count).float()[:, None].expand(-1, 3).clone()


def test_is_four_linear_layers_with_leaky_relu_between(discriminator: LatentDiscriminator) -> None:
    linear = [m for m in discriminator.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(16, 16), (16, 16), (16, 16), (16, 1)]
    w = seeded("w", [5, 16])
    x = w
    for layer in linear[:-1]:
        x = layer(x)
        x = torch.where(x > 0, x, 0.2 * x)
    torch.testing.assert_close(discriminator(w), linear[-1](x))
    full = LatentDiscriminator(LatentDiscriminatorConfig())
    assert sum(p.numel() for p in full.parameters()) == 3 * (512 * 512 + 512) + 513


def test_rejects_empty_sizes() -> None:
    with pytest.raises(ValueError, match="num_layers"):
        LatentDiscriminatorConfig(num_layers=0)


def test_T12_each_step_moves_its_own_network_only(discriminator: LatentDiscriminator) -> None:
    encoder = nn.Linear(8, 16)
    image, real = seeded("image", [4, 8]), seeded("real", [4, 16])

    with torch.no_grad():
        fake = encoder(image)
    fake = CodePool(50).exchange(fake, rng())
    (F.softplus(-discriminator(real)).mean() + F.softplus(discriminator(fake)).mean()).backward()
    assert all(p.grad is None for p in encoder.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in discriminator.parameters())

    discriminator.zero_grad()
    discriminator.requires_grad_(False)
    F.softplus(-discriminator(encoder(image))).mean().backward()
    assert all(p.grad is None for p in discriminator.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_pool_detaches_what_still_has_a_gradient() -> None:
    pool, w = CodePool(1), codes(0, 3).requires_grad_()
    assert not pool.exchange(2 * w, rng()).requires_grad
    assert not pool.state_dict()["codes"].requires_grad


def test_r1_is_twice_differentiable(discriminator: LatentDiscriminator) -> None:
    w = seeded("w", [5, 16]).requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(w).sum(), w, create_graph=True)
    gradient.square().sum(1).mean().backward()
    assert all(p.grad is not None for n, p in discriminator.named_parameters() if n.endswith("weight"))


def test_pool_returns_new_codes_until_full() -> None:
    pool = CodePool(5)
    assert torch.equal(pool.exchange(codes(0, 3), rng()), codes(0, 3))
    assert torch.equal(pool.exchange(codes(3, 2), rng()), codes(3, 2))
    assert len(pool) == 5 and torch.equal(pool.state_dict()["codes"], codes(0, 5))


def test_full_pool_swaps_half_of_the_codes_and_loses_none() -> None:
    pool, generator = CodePool(50), rng()
    shown = torch.cat([pool.exchange(codes(start, 50), generator)[:, 0] for start in range(0, 2000, 50)])
    held = pool.state_dict()["codes"][:, 0]
    assert torch.equal(torch.cat([shown[50:], held]).sort().values, torch.arange(2000).float())
    old = (shown[50:] != torch.arange(50, 2000)).float().mean()
    assert abs(old - 0.5) < 0.05  # 1950 coins: four deviations are 0.045


def test_pool_of_size_zero_passes_everything() -> None:
    pool = CodePool(0)
    assert torch.equal(pool.exchange(codes(0, 7), rng()), codes(0, 7)) and len(pool) == 0


def test_pool_resumes_where_it_stopped() -> None:
    through, generator = CodePool(4), rng(3)
    for start in range(0, 30, 3):
        through.exchange(codes(start, 3), generator)
    resumed = CodePool(4)
    resumed.load_state_dict(through.state_dict())
    state = generator.get_state()
    expected = through.exchange(codes(30, 20), generator)
    generator.set_state(state)
    assert torch.equal(resumed.exchange(codes(30, 20), generator), expected)
    assert torch.equal(resumed.state_dict()["codes"], through.state_dict()["codes"])


def test_pool_state_is_a_copy_and_may_be_empty() -> None:
    pool = CodePool(2)
    pool.load_state_dict(CodePool(2).state_dict())
    assert len(pool) == 0
    pool.exchange(codes(0, 2), rng())
    state = pool.state_dict()
    state["codes"].zero_()
    assert torch.equal(pool.state_dict()["codes"], codes(0, 2))
    with pytest.raises(ValueError, match="cannot take over 2"):
        CodePool(1).load_state_dict(state)
    with pytest.raises(ValueError, match="negative"):
        CodePool(-1)
