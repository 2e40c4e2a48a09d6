"""Counts against sums by hand."""

import torch
from torch import nn
from torch.nn import functional as F

from goae.benchmark.flops import Flops, count_flops


def test_a_convolution_and_a_product() -> None:
    x, w = torch.randn(2, 5, 8, 6), torch.randn(7, 5, 3, 3)
    a, b = torch.randn(4, 9), torch.randn(9, 3)
    conv = 2 * 2 * 7 * 8 * 6 * 5 * 9  # a multiply-add is two; batch, outputs, pixels, inputs, taps
    assert count_flops(lambda: (F.conv2d(x, w, padding=1), a @ b)) == Flops(conv, 2 * 4 * 9 * 3)


def test_the_backward_pass_counts_too() -> None:
    layer, x = nn.Linear(6, 4), torch.randn(3, 6, requires_grad=True)
    once = 2 * 3 * 6 * 4

    def run() -> None:
        torch.autograd.grad(layer(x).sum(), [x, layer.weight])

    flops = count_flops(run)
    assert (flops.conv, flops.total) == (0, 3 * once)


def test_elementwise_work_is_nothing() -> None:
    assert count_flops(lambda: torch.randn(9).exp()).total == 0
