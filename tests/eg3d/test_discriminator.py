"""Dual discriminator against reference numbers: logits, gradients, R1; and its edges."""

import pytest
import torch
from eg3d.discriminator import DualDiscriminator, resize
from parity import Case, load_state

CASE = Case("dual_discriminator")
TOLERANCE = 3e-5  # networks
PREFIX = {
    "resnet": ("discriminator", "D."),
    "skip": ("discriminator_skip", "Dskip."),
    "orig": ("discriminator_orig", "Dorig."),
}


def reference(architecture="resnet", **options):
    config = CASE.config["discriminator"]
    names = ("c_dim", "channel_base", "channel_max", "num_fp16_res", "conv_clamp")
    options = {name: config[name] for name in names} | options
    net = DualDiscriminator(config["img_resolution"], architecture=architecture, **options)
    manifest, prefix = PREFIX[architecture]
    load_state(net, CASE.state(manifest), prefix)
    return net


def inputs():
    return CASE.input("image"), CASE.input("image_raw"), CASE.input("c")


def tiny(**options):
    torch.manual_seed(0)
    return DualDiscriminator(16, 25, **({"channel_base": 64, "channel_max": 8} | options))


def tiny_inputs(batch=4):
    rng = torch.Generator().manual_seed(1)
    return [torch.randn(s, generator=rng) for s in ((batch, 3, 16, 16), (batch, 3, 8, 8), (batch, 25))]


@pytest.mark.parametrize(
    ("name", "architecture", "options"),
    [
        ("logits", "resnet", {}),
        ("logits_conv_clamp0.5", "resnet", {"conv_clamp": 0.5}),
        ("logits_skip", "skip", {}),
        ("logits_orig", "orig", {}),
    ],
)
def test_logits_equal_reference(name, architecture, options):
    with torch.no_grad():
        CASE.check(name, reference(architecture, **options)(*inputs()), TOLERANCE)


def test_gradients_and_r1_equal_reference():
    net = reference()
    image, image_raw, c = inputs()
    image.requires_grad_(), image_raw.requires_grad_()
    logits = net(image, image_raw, c)
    grads = torch.autograd.grad(logits.sum(), [image, image_raw], create_graph=True)
    CASE.check("grad_image", grads[0], TOLERANCE)
    CASE.check("grad_image_raw", grads[1], TOLERANCE)
    penalty = sum(g.square().sum(dim=(1, 2, 3)) for g in grads)
    CASE.check("r1_penalty", penalty, TOLERANCE)
    penalty.mean().backward()
    norms = CASE.config["r1_param_grad_norms"]
    got = {name: float(p.grad.norm()) for name, p in net.named_parameters() if p.grad is not None}
    assert set(got) == set(norms)
    for name, norm in norms.items():
        assert got[name] == pytest.approx(norm, rel=1e-4, abs=1e-9), name


def published_shapes():
    shapes = {"resample_filter": (4, 4)}
    for r in (512, 256, 128, 64, 32, 16, 8):
        block, size, out = f"b{r}", min(32768 // r, 512), min(65536 // r, 512)
        shapes |= {f"{block}.{name}.resample_filter": (4, 4) for name in ("conv0", "conv1", "skip")}
        shapes |= {f"{block}.resample_filter": (4, 4), f"{block}.skip.weight": (out, size, 1, 1)}
        shapes |= {f"{block}.conv0.weight": (size, size, 3, 3), f"{block}.conv0.bias": (size,)}
        shapes |= {f"{block}.conv1.weight": (out, size, 3, 3), f"{block}.conv1.bias": (out,)}
    shapes |= {"b512.fromrgb.weight": (64, 6, 1, 1), "b512.fromrgb.bias": (64,), "b512.fromrgb.resample_filter": (4, 4)}
    shapes |= {"mapping.embed.weight": (512, 25), "mapping.embed.bias": (512,)}
    for i in range(8):
        shapes |= {f"mapping.fc{i}.weight": (512, 512), f"mapping.fc{i}.bias": (512,)}
    shapes |= {"b4.conv.weight": (512, 513, 3, 3), "b4.conv.bias": (512,), "b4.conv.resample_filter": (4, 4)}
    return shapes | {
        "b4.fc.weight": (512, 8192),
        "b4.fc.bias": (512,),
        "b4.out.weight": (512, 512),
        "b4.out.bias": (512,),
    }


def test_published_state():
    net = DualDiscriminator(512)
    assert {name: tuple(t.shape) for name, t in net.state_dict().items()} == published_shapes()
    assert len(published_shapes()) == 92
    assert sum(p.numel() for p in net.parameters()) == 31_359_744
    assert {r: net.get_submodule(f"b{r}").use_fp16 for r in net.resolutions} == {
        512: True, 256: True, 128: True, 64: True, 32: False, 16: False, 8: False
    }  # fmt: skip


def test_both_images_and_the_label_count():
    net = tiny()
    image, image_raw, c = tiny_inputs()
    logits = net(image, image_raw, c)
    assert not torch.allclose(net(image, -image_raw, c), logits)
    assert not torch.allclose(net(-image, image_raw, c), logits)
    assert not torch.allclose(net(image, image_raw, -c), logits)


def test_unconditional():
    net = DualDiscriminator(16, 0, channel_base=64, channel_max=8)
    image, image_raw, _ = tiny_inputs()
    assert not any(name.startswith("mapping") for name in net.state_dict())
    assert net(image, image_raw, None).shape == (4, 1)


def test_label_noise_is_seeded_and_leaves_the_label():
    net = tiny(c_noise=0.5)
    image, image_raw, c = tiny_inputs()
    before = c.clone()
    first = net(image, image_raw, c, rng=torch.Generator().manual_seed(0))
    assert torch.equal(c, before)
    assert torch.equal(first, net(image, image_raw, c, rng=torch.Generator().manual_seed(0)))
    assert not torch.allclose(first, net(image, image_raw, c, rng=torch.Generator().manual_seed(1)))


def test_without_minibatch_deviation_samples_are_independent():
    net = tiny(mbstd_num_channels=0)
    image, image_raw, c = tiny_inputs()
    assert torch.allclose(net(image, image_raw, c)[:1], net(image[:1], image_raw[:1], c[:1]), atol=1e-5)


def test_resize_keeps_constants_and_averages_when_smaller():
    assert torch.allclose(resize(torch.full((1, 3, 8, 8), 0.3), 32), torch.full((1, 3, 32, 32), 0.3))
    checker = torch.ones(1, 1, 16, 16)
    checker[..., ::2] = -1
    assert resize(checker, 4)[..., 1:-1].abs().max() < 0.2


@pytest.mark.cuda
def test_half_precision_on_cuda():
    """The first block in half; logits are float32, and near to those of float32 (bits of half and TF32)."""
    half, full = tiny(num_fp16_res=1).cuda(), tiny(num_fp16_res=0).cuda()
    inputs = [x.cuda() for x in tiny_inputs()]
    x, _ = half.b16(None, torch.cat([inputs[0], resize(inputs[1], 16)], dim=1))
    assert x.dtype == torch.float16
    logits, expected = half(*inputs), full(*inputs)
    assert logits.dtype == torch.float32
    assert (logits - expected).abs().max() < 2e-2 * expected.abs().max().clamp(min=1)


def test_wrong_arguments():
    net = tiny()
    image, image_raw, c = tiny_inputs()
    with pytest.raises(ValueError, match="image has shape"):
        net(image[..., :8], image_raw, c)
    with pytest.raises(ValueError, match="image_raw has shape"):
        net(image, image_raw[:2], c)
    with pytest.raises(ValueError, match="c is None"):
        net(image, image_raw, None)
    with pytest.raises(ValueError, match="expected a batch that divides"):
        net(*tiny_inputs(6))
    with pytest.raises(ValueError, match="architecture is 'unet'"):
        tiny(architecture="unet")
    with pytest.raises(ValueError, match="power of two"):
        DualDiscriminator(24)
    with pytest.raises(ValueError, match="channel_base is 8"):
        DualDiscriminator(16, channel_base=8)
