"""The identity term of Eq. 13."""

import torch

from goae.losses.identity import identity


def test_identity_is_one_minus_the_cosine() -> None:
    image, target = torch.tensor([[1.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 2.0], [6.0, 8.0]])
    torch.testing.assert_close(identity(image, target, lambda x: x), torch.tensor((1.0 + 0.0) / 2))
    torch.testing.assert_close(identity(image, -image, lambda x: x), torch.tensor(2.0))


def test_identity_has_no_gradient_through_the_target() -> None:
    image, target = (torch.randn(2, 8, requires_grad=True) for _ in range(2))
    identity(image, target, lambda x: 2 * x).backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    assert target.grad is None
