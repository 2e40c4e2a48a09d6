"""Norms of code and feature differences."""

import pytest
import torch

from goae.losses.latent import delta_features, delta_w


def test_delta_w_sums_rows_and_averages_images() -> None:
    ws = torch.zeros(2, 4, 2)
    ws[0, 1], ws[1, 2], ws[1, 3] = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0]), torch.tensor([6.0, 8.0])
    assert delta_w(ws).item() == pytest.approx((5 + 2 + 10) / 2)
    assert delta_w(ws, rows=3).item() == pytest.approx((5 + 2) / 2)
    assert delta_w(ws, rows=1).item() == 0
    torch.testing.assert_close(delta_w(ws + 7), delta_w(ws))
    assert delta_w(ws, kind="mse").item() == pytest.approx((25 + 4 + 100) / 2 / 2)


def test_delta_w_has_a_finite_gradient_where_rows_are_equal() -> None:
    ws = torch.ones(1, 3, 4, requires_grad=True)
    delta_w(ws).backward()
    assert torch.isfinite(ws.grad).all()


def test_delta_features_is_the_norm_of_an_image() -> None:
    features = torch.zeros(2, 3, 2, 2)
    refined = features.clone()
    refined[0] = 1.0
    assert delta_features(refined, features).item() == pytest.approx(12**0.5 / 2)
    assert delta_features(refined, features, kind="mse").item() == pytest.approx(0.5)


def test_unknown_norms_are_refused() -> None:
    with pytest.raises(ValueError, match=r"kind of norm is .* expected norm or mse"):
        delta_w(torch.zeros(1, 2, 3), kind="l1")
    with pytest.raises(ValueError, match=r"kind of norm is .* expected norm or mse"):
        delta_features(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3), kind="l1")
