"""The background depth term, Eq. 4."""

import pytest
import torch

from goae.losses.depth import KINDS, background_depth, background_mask


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    depth = 2.5 + torch.rand(2, 1, 8, 8, generator=generator)
    background = (torch.rand(2, 1, 8, 8, generator=generator) > 0.6).float()
    return depth, background


@pytest.mark.parametrize("kind", KINDS)
def test_T11_foreground_pixels_get_no_gradient(kind: str) -> None:
    depth, background = scene()
    depth.requires_grad_()
    background.requires_grad_()
    background_depth(depth, background, 3.0, kind).backward()
    assert (depth.grad[background == 0] == 0).all()
    assert (depth.grad[background == 1] != 0).all()
    assert background.grad is None


@pytest.mark.parametrize("average", ["scalar", "map"])
def test_eq4_by_pixels(average: str) -> None:
    depth, background = scene()
    d_avg = torch.tensor(2.9) if average == "scalar" else torch.linspace(2.7, 3.3, 64).view(1, 1, 8, 8)
    squares, images = 0.0, []
    for i in range(2):
        per_image = 0.0
        for y in range(8):
            for x in range(8):
                expected = d_avg if average == "scalar" else d_avg[0, 0, y, x]
                per_image += float(background[i, 0, y, x]) * float(depth[i, 0, y, x] - expected) ** 2
        squares, images = squares + per_image, [*images, per_image**0.5]
    assert background_depth(depth, background, d_avg, "mse").item() == pytest.approx(squares / 128, rel=1e-5)
    masked = background_depth(depth, background, d_avg, "masked_mse").item()
    assert masked == pytest.approx(squares / float(background.sum()), rel=1e-5)
    norm = background_depth(depth, background, d_avg, "l2norm").item()
    assert norm == pytest.approx(sum(images) / 2, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_no_background_costs_nothing(kind: str) -> None:
    depth = torch.full((1, 1, 4, 4), 2.0, requires_grad=True)
    loss = background_depth(depth, torch.zeros(1, 1, 4, 4), 3.0, kind)
    loss.backward()
    assert loss.item() == 0 and torch.equal(depth.grad, torch.zeros_like(depth))


def test_mask_is_resized_and_eroded() -> None:
    parsed = torch.ones(1, 1, 16, 16)
    parsed[..., 4:12, 4:12] = 0
    plain = background_mask(parsed, 8, erode=0)
    assert plain.shape == (1, 1, 8, 8) and plain[0, 0, 2:6, 2:6].sum() == 0 and plain.sum() == 64 - 16
    eroded = background_mask(parsed, 8, erode=1)
    assert eroded[0, 0, 1:7, 1:7].sum() == 0 and eroded.sum() == 64 - 36
    with pytest.raises(ValueError, match="erode"):
        background_mask(parsed, 8, erode=-1)


def test_bad_arguments_are_refused() -> None:
    depth, background = scene()
    with pytest.raises(ValueError, match="disagree"):
        background_depth(depth, background[..., :4], 3.0)
    with pytest.raises(ValueError, match="L_BG"):
        background_depth(depth, background, 3.0, "l1")
