"""Evaluation without gradients folds BatchNorm into convolutions; with gradients nothing is folded."""

import pytest
import torch
from torch import nn

from goae.models.afa import AFA, AFAConfig


@pytest.mark.parametrize("widths", [[16, 32], [32, 32]])
def test_folding_changes_nothing(widths: list[int]) -> None:
    torch.manual_seed(0)
    config = AFAConfig(
        feature_channels=32, feature_resolution=8, image_resolution=32, widths=widths, units=[2, 1], squeeze=4
    )
    afa = AFA(config).eval()
    for module in afa.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
    for conv in (afa.modulation.conv_gamma, afa.modulation.conv_beta):
        conv.weight.data.normal_()
    images, features = torch.randn(2, 2, 3, 32, 32), torch.randn(2, 32, 8, 8)
    plain = afa(*images, features).features
    with torch.no_grad():
        folded = afa(*images, features).features
    assert plain.requires_grad and (folded - plain).abs().max() < 1e-5 * plain.abs().max()
