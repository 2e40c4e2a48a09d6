"""The decoder against reference numbers."""

import pytest
import torch
from eg3d.nn.decoder import Decoder, Softplus
from parity import Case, load_state


@pytest.mark.parametrize(("name", "lr"), [("lr1", 1.0), ("lr0.5", 0.5)])
def test_released_results(name: str, lr: float) -> None:
    case = Case("renderer_parts")
    decoder = Decoder(32, lr_multiplier=lr)
    load_state(decoder, case.state("decoder" if lr == 1 else "decoder_lr0.5"), "decoder.")
    rgb, sigma = decoder(case.input("features").mean(dim=1))
    case.check(f"decoder_{name}.rgb", rgb, 1e-5)
    case.check(f"decoder_{name}.sigma", sigma, 1e-5)


def test_names_and_range() -> None:
    decoder = Decoder(8, hidden=16, out_channels=3)
    assert {n: tuple(p.shape) for n, p in decoder.state_dict().items()} == {
        "net.0.weight": (16, 8),
        "net.0.bias": (16,),
        "net.2.weight": (4, 16),
        "net.2.bias": (4,),
    }
    rgb, sigma = decoder(torch.full((1, 2, 8), 1e4))
    assert rgb.shape == (1, 2, 3) and sigma.shape == (1, 2, 1)
    assert rgb.min() >= -0.0010001 and rgb.max() <= 1.0010001


def test_softplus_equals_its_definition() -> None:
    x = torch.cat([torch.linspace(-30, 30, 601), torch.tensor([-1e30, -200.0, 0.0, 200.0, 1e30])]).double()
    torch.testing.assert_close(Softplus()(x), torch.logaddexp(x, torch.zeros_like(x)), atol=1e-15, rtol=1e-15)
    torch.testing.assert_close(Softplus()(x.float()), torch.nn.functional.softplus(x.float()), atol=1.2e-7, rtol=1e-6)
    small = torch.linspace(-3, 3, 7).double().requires_grad_()
    assert torch.autograd.gradcheck(Softplus(), small)
    assert torch.autograd.gradgradcheck(Softplus(), small)
