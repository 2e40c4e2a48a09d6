"""Reconstruction terms of Eq. 13."""

import pytest
import torch

from goae.losses.reconstruction import l2, perceptual


def test_l2_is_a_mean_over_everything() -> None:
    image, target = torch.full((2, 3, 4, 4), 0.5), torch.zeros(2, 3, 4, 4)
    target[1] = 1.0
    assert l2(image, target).item() == pytest.approx(0.25)
    with pytest.raises(ValueError, match="disagree"):
        l2(image, target[:1])


def test_perceptual_averages_the_distances_of_the_batch() -> None:
    image = torch.tensor([0.0, 1.0, 3.0]).view(3, 1, 1, 1)
    loss = perceptual(image, torch.zeros_like(image), lambda a, b: (a - b).flatten(1).sum(1))
    assert loss.item() == pytest.approx(4 / 3)
