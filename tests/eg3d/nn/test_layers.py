"""Layers against reference numbers, and their edges."""

import pytest
import torch
from eg3d.nn.layers import Conv2d, FullyConnected, MinibatchStd, SynthesisLayer, ToRGB, normalize_second_moment
from parity import Case, load_state, seeded

CASE = Case("ops_layers")
CASES = {case["name"]: case for case in CASE.config["cases"]}
TOLERANCE = 1e-5  # operators and layers


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("fc")])
def test_fully_connected_equals_reference(name):
    case = CASES[name]
    options = {k: case[k] for k in ("bias", "activation", "lr_multiplier") if k in case}
    layer = FullyConnected(case["in_features"], case["out_features"], **options)
    load_state(layer, CASE.state(name), f"fc_layer{name[2:]}.")
    y = layer(CASE.input("x"))
    CASE.check(f"{name}.y", y, TOLERANCE)
    (y * seeded(case["grad_key"], y.shape)).sum().backward()
    CASE.check(f"{name}.dw", layer.weight.grad, TOLERANCE)
    if layer.bias is not None:
        CASE.check(f"{name}.db", layer.bias.grad, TOLERANCE)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("conv")])
def test_conv2d_equals_reference(name):
    case = CASES[name]
    options = {k: case[k] for k in ("bias", "activation", "up", "down", "conv_clamp") if k in case}
    layer = Conv2d(case["in_channels"], case["out_channels"], case["kernel_size"], **options)
    load_state(layer, CASE.state(name), f"conv_layer{name[4:]}.")
    for gain in case["gains"]:
        CASE.check(f"{name}.gain{gain:.3f}.y", layer(CASE.input("ximg"), gain=gain), TOLERANCE)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("mbstd")])
def test_minibatch_std_equals_reference(name):
    layer = MinibatchStd(CASES[name]["group_size"], CASES[name]["num_channels"])
    CASE.check(name, layer(CASE.input("xmb")), TOLERANCE)


def test_normalize_second_moment_equals_reference():
    CASE.check("normalize_2nd_moment", normalize_second_moment(CASE.input("xn")), TOLERANCE)


def test_minibatch_std_groups_are_strided():
    """Samples i and i + 2 of a batch of four form a group of two, so equal pairs at that distance have no deviation."""
    pair = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    std = MinibatchStd(2)(torch.cat([pair, pair]))[:, 3]
    assert torch.allclose(std, torch.full_like(std, 1e-4))
    neighbours = MinibatchStd(2)(pair.repeat_interleave(2, dim=0))[:, 3]
    assert neighbours.min() > 0.1


@pytest.mark.parametrize(("batch", "group", "channels"), [(3, 2, 1), (2, 2, 4)])
def test_minibatch_std_refuses_what_does_not_divide(batch, group, channels):
    with pytest.raises(ValueError, match="expected a batch that divides"):
        MinibatchStd(group, channels)(torch.zeros(batch, 6, 4, 4))


def test_initial_values():
    torch.manual_seed(0)
    fc = FullyConnected(256, 256, lr_multiplier=0.01, bias_init=1.0)
    assert fc.weight.std().item() == pytest.approx(100, rel=0.02)
    assert torch.equal(fc.bias, torch.ones(256))
    layer = SynthesisLayer(32, 64, w_dim=16, resolution=64)
    assert layer.weight.std().item() == pytest.approx(1, rel=0.03)
    assert layer.noise_const.std().item() == pytest.approx(1, rel=0.05)
    assert layer.noise_strength.item() == 0 and not layer.bias.any()
    assert torch.equal(layer.affine.bias, torch.ones(32))
    assert not ToRGB(8, 3, w_dim=16).bias.any()


def make_layer(**options):
    torch.manual_seed(0)
    layer = SynthesisLayer(4, 6, w_dim=8, resolution=16, **options).eval()
    torch.nn.init.constant_(layer.noise_strength, 0.5)
    return layer


def test_noise_modes():
    layer = make_layer()
    x, w = torch.randn(2, 4, 16, 16), torch.randn(2, 8)
    const, none = layer(x, w), layer(x, w, noise_mode="none")
    assert not torch.allclose(const, none)
    first = layer(x, w, noise_mode="random", rng=torch.Generator().manual_seed(1))
    again = layer(x, w, noise_mode="random", rng=torch.Generator().manual_seed(1))
    other = layer(x, w, noise_mode="random", rng=torch.Generator().manual_seed(2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other) and not torch.allclose(first, const)
    assert layer(x, w, noise_mode="random").shape == first.shape
    fresh = layer.noise(x, "random", torch.Generator().manual_seed(1))
    assert not torch.equal(fresh[0], fresh[1])


def test_constant_noise_is_shared_by_the_batch():
    layer = make_layer()
    x, w = torch.randn(1, 4, 16, 16).repeat(2, 1, 1, 1), torch.randn(1, 8).repeat(2, 1)
    y = layer(x, w)
    assert torch.allclose(y[0], y[1], atol=1e-6)


def test_training_and_inference_agree():
    layer = make_layer(up=2)
    x, w = torch.randn(3, 4, 8, 8), torch.randn(3, 8)
    assert torch.allclose(layer.train()(x, w), layer.eval()(x, w), atol=1e-5)


def test_clamp_limits_the_output():
    layer = make_layer(conv_clamp=0.25)
    y = layer(torch.randn(2, 4, 16, 16), torch.randn(2, 8), gain=0.5)
    assert y.abs().max().item() == pytest.approx(0.125)


def test_layers_do_not_write_into_their_inputs():
    layer, rgb = make_layer(), ToRGB(4, 3, w_dim=8)
    x, w = torch.randn(2, 4, 16, 16), torch.randn(2, 8)
    before = x.clone(), w.clone()
    layer(x, w), rgb(x, w)
    assert torch.equal(x, before[0]) and torch.equal(w, before[1])


@pytest.mark.parametrize("training", [False, True])
def test_layer_has_two_derivatives(training):
    layer = make_layer(up=2, impl="ref").double().train(training)
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64, requires_grad=True)
    w = torch.randn(1, 8, dtype=torch.float64, requires_grad=True)
    y = layer(x, w).square().sum()
    dx, dw = torch.autograd.grad(y, (x, w), create_graph=True)
    (dx.square().sum() + dw.square().sum()).backward()
    assert x.grad.abs().sum() > 0 and layer.affine.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("up", [1, 2])
def test_half_precision_is_near_and_does_not_overflow(training, up):
    """Half has 11 bits; styles and weights are made unit size first, so that weights of 1e5 do no harm."""
    torch.manual_seed(0)
    layer = SynthesisLayer(32, 16, w_dim=8, resolution=16, up=up).train(training)
    layer.weight.data *= 1e5
    x, w = torch.randn(2, 32, 16 // up, 16 // up), torch.randn(2, 8)
    y, half = layer(x, w), layer(x.half(), w)
    assert half.dtype == torch.float16
    assert (half - y).abs().max() < 5e-3 * y.abs().max()


def test_half_precision_of_the_other_layers():
    torch.manual_seed(0)
    x, w = torch.randn(2, 32, 8, 8), torch.randn(2, 8)
    rgb, conv = ToRGB(32, 3, w_dim=8), Conv2d(32, 16, 3, down=2, activation="lrelu")
    assert rgb(x.half(), w).dtype == torch.float32 and conv(x.half()).dtype == torch.float16
    assert (rgb(x.half(), w) - rgb(x, w)).abs().max() < 5e-3 * rgb(x, w).abs().max()
    assert (conv(x.half()) - conv(x)).abs().max() < 5e-3 * conv(x).abs().max()


def test_wrong_arguments():
    layer = make_layer()
    with pytest.raises(ValueError, match="noise_mode is 'fixed'"):
        layer(torch.zeros(1, 4, 16, 16), torch.zeros(1, 8), noise_mode="fixed")
    with pytest.raises(ValueError, match="expected size 16"):
        layer(torch.zeros(1, 4, 8, 8), torch.zeros(1, 8))
    for make in (lambda: FullyConnected(2, 2, activation="mish"), lambda: Conv2d(2, 2, 3, activation="mish")):
        with pytest.raises(ValueError, match="activation is 'mish'"):
            make()


def test_print_shows_sizes():
    assert "4, 6, lrelu" in repr(FullyConnected(4, 6, activation="lrelu"))
    assert "(6, 4, 3, 3)" in repr(Conv2d(4, 6, 3)) and "(6, 4, 3, 3)" in repr(make_layer())
    assert "(3, 4, 1, 1)" in repr(ToRGB(4, 3, w_dim=8))
