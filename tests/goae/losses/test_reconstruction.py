"""Reconstruction terms of Eq. 13."""

import pytest
import torch

from goae.losses.reconstruction import mean_squared, perceptual, pooled


def test_pooling_takes_the_mean_of_two_by_two() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert pooled(image, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pooled(image, 4) is image


@pytest.mark.parametrize(("shape", "resolution"), [((1, 3, 6, 6), 4), ((1, 3, 4, 6), 2)])
def test_pooling_refuses_broken_blocks(shape: tuple[int, ...], resolution: int) -> None:
    with pytest.raises(ValueError, match="whole blocks"):
        pooled(torch.zeros(shape), resolution)


def test_mean_squared_is_a_mean_over_everything() -> None:
    image, target = torch.full((2, 3, 4, 4), 0.5), torch.zeros(2, 3, 4, 4)
    target[1] = 1.0
    assert mean_squared(image, target).item() == pytest.approx(0.25)
    with pytest.raises(ValueError, match="disagree"):
        mean_squared(image, target[:1])


def test_perceptual_averages_the_distances_of_the_batch() -> None:
    image = torch.tensor([0.0, 1.0, 3.0]).view(3, 1, 1, 1)
    loss = perceptual(image, torch.zeros_like(image), lambda a, b: (a - b).flatten(1).sum(1))
    assert loss.item() == pytest.approx(4 / 3)
