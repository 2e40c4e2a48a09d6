"""Mapping network against reference numbers, and its edges."""

import pytest
import torch
from eg3d.nn.mapping import MappingNetwork
from parity import Case, load_state

CASE = Case("mapping")
TOLERANCE = 1e-5  # mapping


def reference():
    config = CASE.config
    net = MappingNetwork(config["z_dim"], config["c_dim"], config["w_dim"], config["num_ws"], num_layers=2)
    load_state(net, CASE.state("mapping"), "mapping.")
    return net.eval()


def small(**options):
    torch.manual_seed(0)
    net = MappingNetwork(8, 25, 16, 6, num_layers=2, **options)
    torch.nn.init.normal_(net.w_avg)
    return net


def test_equals_reference():
    net, z, c = reference(), CASE.input("z"), CASE.input("c")
    with torch.no_grad():
        ws = net(z, c)
        CASE.check("w_full_first", ws[:, 0], TOLERANCE)
        assert torch.equal(ws, ws[:, :1].expand(-1, 14, -1))
        CASE.check("w_psi0.7", net(z, c, truncation_psi=0.7)[:, [0, 13]], TOLERANCE)
        cut = net(z, c, truncation_psi=0.5, truncation_cutoff=7)
        CASE.check("w_psi0.5_cutoff7", cut[:, [0, 6, 7, 13]], TOLERANCE)
        CASE.check("w_c_zero", net(z, torch.zeros_like(c))[:, 0], TOLERANCE)


def test_running_mean_equals_reference():
    net = reference()
    net(CASE.input("z"), CASE.input("c"), update_w_avg=True)
    CASE.check("w_avg_after_update", net.w_avg, TOLERANCE)


def test_label_alone_equals_reference():
    config = CASE.config["cond_only_8layers"]
    net = MappingNetwork(0, config["c_dim"], config["w_dim"], None, num_layers=config["num_layers"], w_avg_beta=None)
    load_state(net, CASE.state("cond_only_8layers"), "d.mapping.")
    CASE.check("cond_only_8layers", net(None, CASE.input("c")), TOLERANCE)


def test_state_names_and_shapes():
    net = MappingNetwork(512, 25, 512, 14, num_layers=2)
    assert {name: tuple(t.shape) for name, t in net.state_dict().items()} == {
        "w_avg": (512,),
        "embed.weight": (512, 25),
        "embed.bias": (512,),
        "fc0.weight": (512, 1024),
        "fc0.bias": (512,),
        "fc1.weight": (512, 512),
        "fc1.bias": (512,),
    }


def test_truncation_to_nothing_is_the_mean():
    net = small()
    ws = net(torch.randn(3, 8), torch.randn(3, 25), truncation_psi=0.0)
    assert torch.allclose(ws, net.w_avg.expand(3, 6, 16))


def test_update_comes_before_truncation():
    net, z, c = small(), torch.randn(3, 8), torch.randn(3, 25)
    ws = net(z, c, truncation_psi=0.0, update_w_avg=True)
    assert torch.allclose(ws, net.w_avg.expand(3, 6, 16))


def test_latent_without_label():
    net = MappingNetwork(8, 0, 16, 6, num_layers=1)
    assert "embed.weight" not in net.state_dict()
    assert net(torch.randn(2, 8), None).shape == (2, 6, 16)


def test_gradients_flow_through_truncation():
    net = small()
    z = torch.randn(3, 8, requires_grad=True)
    net(z, torch.randn(3, 25), truncation_psi=0.7, update_w_avg=True).square().sum().backward()
    assert z.grad.abs().sum() > 0 and not net.w_avg.requires_grad
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize(
    ("z", "c", "options", "message"),
    [
        (None, (2, 25), {}, "z is None"),
        ((2, 9), (2, 25), {}, r"expected \(B, 8\)"),
        ((2, 8), (2, 16), {}, r"expected \(B, 25\)"),
        ((2, 8), (3, 25), {}, "batches of 2 and 3"),
        ((2, 8), (2, 25), {"truncation_psi": 0.5, "truncation_cutoff": 7}, "truncation_cutoff is 7"),
    ],
)
def test_wrong_arguments(z, c, options, message):
    with pytest.raises(ValueError, match=message):
        small()(None if z is None else torch.zeros(z), torch.zeros(c), **options)


def test_truncation_needs_a_running_mean():
    net = MappingNetwork(8, 25, 16, 6, w_avg_beta=None)
    with pytest.raises(ValueError, match="running mean"):
        net(torch.zeros(1, 8), torch.zeros(1, 25), truncation_psi=0.5)
    with pytest.raises(ValueError, match="expected an input"):
        MappingNetwork(0, 0, 16, 6)
