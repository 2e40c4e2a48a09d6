"""The validation curve: batches do not matter, the averaged module is the one measured, training goes on untouched."""

import copy

import pytest
import torch
from tiny import tiny_goae, tiny_images, tiny_labels

from goae.evaluation.validation import Validation


def samples(num: int = 3) -> list[dict[str, torch.Tensor]]:
    return [{"image": image, "c": c} for image, c in zip(tiny_images(num), tiny_labels(num), strict=True)]


@pytest.mark.parametrize("refine", [False, True])
def test_batch_size_does_not_matter(refine: bool) -> None:
    goae = tiny_goae()
    module = goae.afa if refine else goae.encoder
    values = [
        Validation(goae, samples(), None, resolution=16, batch_size=size, refine=refine)(module) for size in (1, 2, 3)
    ]
    for other in values[1:]:
        # the renderer clamps depth by the whole batch, which moves the mask's points by rounding alone
        assert other == pytest.approx(values[0], rel=1e-3)


def test_the_given_module_is_measured_and_the_own_one_stays() -> None:
    goae = tiny_goae()
    validation = Validation(goae, samples(), None, resolution=32, batch_size=3, refine=False)
    other = copy.deepcopy(goae.encoder)
    with torch.no_grad():
        for parameter in other.mapper_base_channel.parameters():
            parameter.mul_(3)
    own = goae.encoder
    assert validation(other) != validation(own)
    assert goae.encoder is own


def test_the_full_method_is_measured_in_stage_two() -> None:
    goae = tiny_goae()
    first = Validation(goae, samples(), None, resolution=32, batch_size=3, refine=False)(goae.encoder)
    second = Validation(
        goae, samples(), lambda a, b: (a - b).abs().mean((1, 2, 3)), resolution=32, batch_size=3, refine=True
    )(goae.afa)
    assert first["mse"] != second["mse"] and "lpips" in second


def test_no_images_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"data\.validation"):
        Validation(tiny_goae(), [], None, resolution=32, batch_size=1, refine=False)
