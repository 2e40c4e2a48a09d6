"""The product of pixels against a convolution of one pixel, with derivatives and layouts."""

import pytest
import torch
from eg3d.ops.pixel_product import FEW, modulated_pixels
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F


def given(num_out: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 3, 4, dtype=dtype, generator=rng).contiguous(memory_format=torch.channels_last)
    return x.requires_grad_(), torch.randn(2, num_out, 5, dtype=dtype, generator=rng).requires_grad_()


@pytest.mark.parametrize("num_out", [3, FEW + 1])
def test_equals_a_convolution_of_one_pixel(num_out: int) -> None:
    x, weight = given(num_out)
    y = modulated_pixels(x, weight)
    expected = torch.stack([F.conv2d(image, w[:, :, None, None]) for image, w in zip(x, weight, strict=True)])
    torch.testing.assert_close(y, expected)
    assert y.is_contiguous()
    (dx,) = torch.autograd.grad(y.square().sum(), x)
    assert dx.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("num_out", [3, FEW + 1])
def test_has_two_derivatives(num_out: int) -> None:
    assert gradcheck(modulated_pixels, given(num_out)) and gradgradcheck(modulated_pixels, given(num_out))
