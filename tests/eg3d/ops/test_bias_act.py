import math

import pytest
import torch
from eg3d.ops import bias_act
from eg3d.ops.bias_act import ACTIVATIONS
from torch.autograd import gradcheck, gradgradcheck


def test_lrelu_by_hand() -> None:
    y = bias_act(torch.tensor([[-1.0, 2.0]]), torch.tensor([0.5, 0.5]), act="lrelu", impl="ref")
    torch.testing.assert_close(y, torch.tensor([[-0.1414214, 3.5355339]]))


def test_order_is_bias_activation_gain_clamp() -> None:
    x = torch.tensor([[-3.0, -0.5, 0.2, 4.0]])
    y = bias_act(x, torch.full((4,), 1.0), act="lrelu", alpha=0.5, gain=2.0, clamp=1.5, impl="ref")
    torch.testing.assert_close(y, torch.tensor([[-1.5, 1.0, 1.5, 1.5]]))


def test_default_gains() -> None:
    doubled = {name for name, activation in ACTIVATIONS.items() if math.isclose(activation.gain, math.sqrt(2))}
    assert doubled == {"relu", "lrelu", "swish"}
    assert all(activation.gain == 1 for name, activation in ACTIVATIONS.items() if name not in doubled)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_two_derivatives(act: str) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 4, dtype=torch.float64, generator=generator).requires_grad_()
    b = torch.randn(3, dtype=torch.float64, generator=generator).requires_grad_()

    def op(x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return bias_act(x, b, act=act, gain=1.3, clamp=1.1, impl="ref")

    assert gradcheck(op, (x, b))
    assert gradgradcheck(op, (x, b))


def test_keeps_half_precision() -> None:
    x = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    y = bias_act(x.half(), torch.ones(3), act="swish", impl="ref")
    assert y.dtype == torch.float16
    torch.testing.assert_close(y.float(), bias_act(x, torch.ones(3), act="swish", impl="ref"), atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"act": "gelu"}, "act is 'gelu', expected one of linear"),
        ({"b": torch.zeros(4)}, r"b has shape \(4,\), expected \(3,\)"),
        ({"b": torch.zeros(3, 1)}, r"b has shape \(3, 1\)"),
        ({"clamp": -1}, "clamp is -1"),
        ({"impl": "gpu"}, "impl is 'gpu', expected one of auto"),
    ],
)
def test_refuses(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bias_act(torch.zeros(2, 3), **options)
