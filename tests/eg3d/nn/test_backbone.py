"""Backbone against reference numbers: whole, split, and in its other architectures."""

import pytest
import torch
from eg3d.nn.backbone import Backbone, Features, SynthesisBlock, SynthesisNetwork
from parity import Case, load_state, seeded

CASE = Case("backbone64")
SPLIT = Case("backbone64_split")
TOLERANCE = 3e-5  # networks


def reference(architecture="skip"):
    config = CASE.config
    net = Backbone(
        config["z_dim"],
        config["c_dim"],
        config["w_dim"],
        img_resolution=config["img_resolution"],
        img_channels=config["img_channels"],
        mapping_layers=config["mapping_kwargs"]["num_layers"],
        channel_base=config["channel_base"],
        channel_max=config["channel_max"],
        architecture=architecture,
    )
    if architecture == "skip":
        load_state(net, CASE.state("generator"))
    else:
        load_state(net, CASE.state(f"generator_{architecture}"), f"{architecture}.")
    return net.eval()


def small(**options):
    torch.manual_seed(0)
    options = {"channel_base": 256, "channel_max": 16} | options
    net = SynthesisNetwork(12, 32, 9, **options).eval()
    for name, parameter in net.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 0.3)
    return net


@pytest.mark.parametrize("noise_mode", ["const", "none"])
@pytest.mark.parametrize("training", [False, True])
def test_image_equals_reference(noise_mode, training):
    net = reference().train(training)
    with torch.no_grad():
        image = net.synthesis(CASE.input("ws"), noise_mode=noise_mode)
    CASE.check(f"img_{noise_mode}{'_nonfused' if training else ''}", image, TOLERANCE)


def test_image_from_latent_equals_reference():
    net = reference()
    with torch.no_grad():
        ws = net.mapping(CASE.input("z"), CASE.input("c"), truncation_psi=0.8)
        CASE.check("ws_mapped", ws[:, 0], 1e-5)
        CASE.check("img_from_z", net.synthesis(ws), TOLERANCE)


def test_every_block_equals_reference():
    net, ws = reference(), CASE.input("ws")
    with torch.no_grad():
        for r in (4, 8, 16, 32, 64):
            x, skip = net.synthesis.features(ws, r)
            CASE.check(f"b{r}.x", x, TOLERANCE)
            CASE.check(f"b{r}.img", skip, TOLERANCE)


def test_gradient_equals_reference():
    ws = CASE.input("ws").requires_grad_()
    image = reference().synthesis(ws)
    (image * seeded(CASE.config["grad_key"], image.shape)).mean().backward()
    CASE.check("grad_ws_of_mean_y_times_g", ws.grad, TOLERANCE)


@pytest.mark.parametrize("architecture", ["resnet", "orig"])
def test_other_architectures_equal_reference(architecture):
    with torch.no_grad():
        image = reference(architecture).synthesis(CASE.input("ws"))
    CASE.check(f"img_const_{architecture}", image, TOLERANCE)


def test_split_equals_reference():
    net, ws = reference().synthesis, SPLIT.input("ws")
    delta = 0.5 * seeded("backbone64_split/delta", [2, 32, 32, 32])
    with torch.no_grad():
        first = net.features(ws, 32)
        SPLIT.check("first.x32", first.x, TOLERANCE)
        SPLIT.check("first.img32", first.skip, TOLERANCE)
        SPLIT.check("second.img64", net.finish(first, ws), TOLERANCE)
        changed = Features(first.x + delta, first.skip)
        SPLIT.check("second_modified.img64", net.finish(changed, ws), TOLERANCE)


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("resolution", [4, 8, 16, 32])
def test_split_equals_unsplit_bit_for_bit(architecture, resolution):
    net = small(architecture=architecture)
    ws = torch.randn(2, net.num_ws, 12)
    with torch.no_grad():
        features = net.features(ws, resolution)
        assert torch.equal(net.finish(features, ws), net(ws))


def test_split_equals_unsplit_with_random_noise():
    net = small()
    ws = torch.randn(2, net.num_ws, 12)
    rng = torch.Generator().manual_seed(5)
    features = net.features(ws, 16, noise_mode="random", rng=rng)
    split = net.finish(features, ws, noise_mode="random", rng=rng)
    whole = net(ws, noise_mode="random", rng=torch.Generator().manual_seed(5))
    assert torch.equal(split, whole)
    assert not torch.allclose(whole, net(ws))


@pytest.mark.parametrize("resolution", [4, 8, 16])
def test_each_half_uses_its_own_rows(resolution):
    """Rows from row_offset on do not move F, and rows below it do not move the second half; toRGB shares one."""
    net = small()
    ws = torch.randn(1, net.num_ws, 12)
    offset = net.row_offset(resolution)
    low, high = ws.clone(), ws.clone()
    low[:, :offset] += 1
    high[:, offset:] += 1
    features = net.features(ws, resolution)
    assert torch.equal(net.features(high, resolution).x, features.x)
    assert not torch.allclose(net.features(high, resolution).skip, features.skip)
    assert not torch.allclose(net.features(low, resolution).x, features.x)
    assert torch.equal(net.finish(features, low), net.finish(features, ws))
    assert not torch.allclose(net.finish(features, high), net.finish(features, ws))


def test_published_rows():
    net = SynthesisNetwork(4, 256, 3, channel_base=256, channel_max=4)
    assert net.num_ws == 14
    assert [net.row_offset(r) for r in (4, 8, 16, 32, 64, 128, 256)] == [1, 3, 5, 7, 9, 11, 13]


def published_backbone_shapes():
    """Names and shapes of the published backbone: 7 + 13 + 6 * 19 entries."""
    shapes = {"mapping.w_avg": (512,), "mapping.embed.weight": (512, 25), "mapping.embed.bias": (512,)}
    shapes |= {"mapping.fc0.weight": (512, 1024), "mapping.fc0.bias": (512,)}
    shapes |= {"mapping.fc1.weight": (512, 512), "mapping.fc1.bias": (512,), "synthesis.b4.const": (512, 4, 4)}
    for r in (4, 8, 16, 32, 64, 128, 256):
        block, out, before = f"synthesis.b{r}", min(32768 // r, 512), min(65536 // r, 512)
        shapes[f"{block}.resample_filter"] = (4, 4)
        for conv, channels in (("conv0", before), ("conv1", out)) if r > 4 else (("conv1", out),):
            shapes |= {
                f"{block}.{conv}.weight": (out, channels, 3, 3),
                f"{block}.{conv}.bias": (out,),
                f"{block}.{conv}.noise_strength": (),
                f"{block}.{conv}.noise_const": (r, r),
                f"{block}.{conv}.resample_filter": (4, 4),
                f"{block}.{conv}.affine.weight": (channels, 512),
                f"{block}.{conv}.affine.bias": (channels,),
            }
        shapes |= {f"{block}.torgb.weight": (96, out, 1, 1), f"{block}.torgb.bias": (96,)}
        shapes |= {f"{block}.torgb.affine.weight": (out, 512), f"{block}.torgb.affine.bias": (out,)}
    return shapes


def test_published_state():
    net = Backbone(512, 25, 512, img_resolution=256, img_channels=96, mapping_layers=2)
    shapes = {name: tuple(t.shape) for name, t in net.state_dict().items()}
    assert len(shapes) == 134
    assert shapes == published_backbone_shapes()
    assert sum(p.numel() for p in net.parameters()) == 29_008_301
    assert all(t.dtype == torch.float32 for t in net.state_dict().values())


def test_gradients_flow_to_features_and_every_parameter():
    net = small().train()
    ws = torch.randn(2, net.num_ws, 12)
    features = net.features(ws, 16)
    x = features.x.detach().requires_grad_()
    skip = features.skip.detach().requires_grad_()
    net.finish(Features(x, skip), ws).square().mean().backward()
    assert x.grad.abs().sum() > 0 and skip.grad.abs().sum() > 0
    net(ws).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_nothing_writes_into_the_features():
    net = small()
    ws = torch.randn(1, net.num_ws, 12)
    features = net.features(ws, 16)
    x, skip = features.x.clone(), features.skip.clone()
    net.finish(features, ws)
    assert torch.equal(features.x, x) and torch.equal(features.skip, skip)


def test_clamp_limits_every_layer():
    net = small(conv_clamp=0.2)
    features = net.features(torch.randn(1, net.num_ws, 12), 4)
    assert features.x.abs().max().item() == pytest.approx(0.2)
    assert features.skip.abs().max().item() == pytest.approx(0.2)


def test_half_precision_blocks():
    net = SynthesisNetwork(4, 64, 3, channel_base=64, channel_max=4, num_fp16_res=2)
    assert [net.get_submodule(f"b{r}").use_fp16 for r in net.resolutions] == [False, False, False, True, True]
    assert not any(b.use_fp16 for b in SynthesisNetwork(4, 64, 3, channel_base=64, channel_max=4).children())
    every = SynthesisNetwork(4, 16, 3, channel_base=64, channel_max=4, num_fp16_res=9)
    assert [b.use_fp16 for b in every.children()] == [False, True, True]
    assert every(torch.randn(1, 6, 4)).dtype == torch.float32


def test_wrong_arguments():
    net = small()
    ws = torch.zeros(1, net.num_ws, 12)
    with pytest.raises(ValueError, match=r"expected \(B, 8, 12\)"):
        net(ws[:, :5])
    with pytest.raises(ValueError, match="resolution is 64"):
        net.features(ws, 64)
    with pytest.raises(ValueError, match="noise_mode is 'off'"):
        net(ws, noise_mode="off")
    features = net.features(ws, 8)
    with pytest.raises(ValueError, match=r"features\.skip has shape"):
        net.finish(Features(features.x, features.skip[:, :3]), ws)
    with pytest.raises(ValueError, match="disagree"):
        net.finish(Features(features.x[:, :3], features.skip), ws)
    for size in (4, 48):
        with pytest.raises(ValueError, match="power of two"):
            SynthesisNetwork(12, size, 9)
    with pytest.raises(ValueError, match="channel_base is 16"):
        SynthesisNetwork(12, 32, 9, channel_base=16)


def test_wrong_arguments_of_a_block():
    def make(in_channels, **options):
        return SynthesisBlock(in_channels, 4, w_dim=8, resolution=8, img_channels=3, **options)

    with pytest.raises(ValueError, match="architecture is 'unet'"):
        make(4, architecture="unet")
    with pytest.raises(ValueError, match="x is None"):
        make(4)(None, torch.zeros(1, 3, 8))
    with pytest.raises(ValueError, match="expected 2 rows"):
        make(0)(None, torch.zeros(1, 3, 8))
