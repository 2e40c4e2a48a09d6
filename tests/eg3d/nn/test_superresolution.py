"""Super-resolution modules against reference numbers, and their edges."""

import pytest
import torch
from eg3d.nn.superresolution import VARIANTS, SuperResolution
from parity import Case, load_state

CASE = Case("superresolution")
TOLERANCE = 1e-5  # operators, layers, super-resolution
NAMES = [name.removeprefix("out/").removesuffix("@val") for name in CASE.data.files if name.endswith("@val")]
RUNS = [pytest.param(name, marks=pytest.mark.slow if name.startswith("8XDC") else ()) for name in NAMES]


def make(run):
    """The module of a reference run `VARIANT[.noantialias].inR.NOISE`, its input size and inputs."""
    variant, *rest, size, noise_mode = run.split(".")
    options = {"antialias": False, "num_fp16_res": 0} if rest == ["noantialias"] else {"num_fp16_res": 4}
    net = SuperResolution(variant, noise_mode=noise_mode, **options)
    load_state(net, CASE.state(variant), "superresolution.")
    x = CASE.input(f"x{size.removeprefix('in')}")
    return net.eval(), x[:, :3], x, CASE.input("ws")


def tiny(variant="2X", **options):
    torch.manual_seed(0)
    return SuperResolution(variant, channels=8, w_dim=12, input_resolution=16, hidden_channels=(6, 4), **options).eval()


def test_every_module_has_a_run():
    assert {run.split(".")[0] for run in NAMES} == set(VARIANTS)


@pytest.mark.parametrize("run", RUNS)
def test_equals_reference(run):
    net, rgb, x, ws = make(run)
    with torch.no_grad():
        CASE.check(run, net(rgb, x, ws), TOLERANCE)


@pytest.mark.parametrize(
    ("variant", "resolution", "hidden", "entries"),
    [
        ("8XDC", 256, (256, 128), 38),
        ("8X", 256, (128, 64), 39),
        ("4X", 128, (128, 64), 39),
        ("2X", 64, (128, 64), 39),
        ("Deepfp32", 128, (128, 64), 39),
    ],
)
def test_published_state(variant, resolution, hidden, entries):
    shapes = {"resample_filter": (4, 4)} if variant != "8XDC" else {}
    for i, (channels, out) in enumerate(((32, hidden[0]), hidden)):
        r, block = resolution * 2**i, f"block{i}"
        shapes[f"{block}.resample_filter"] = (4, 4)
        for conv, size in (("conv0", channels), ("conv1", out)):
            shapes |= {
                f"{block}.{conv}.weight": (out, size, 3, 3),
                f"{block}.{conv}.bias": (out,),
                f"{block}.{conv}.noise_strength": (),
                f"{block}.{conv}.noise_const": (r, r),
                f"{block}.{conv}.resample_filter": (4, 4),
                f"{block}.{conv}.affine.weight": (size, 512),
                f"{block}.{conv}.affine.bias": (size,),
            }
        shapes |= {f"{block}.torgb.weight": (3, out, 1, 1), f"{block}.torgb.bias": (3,)}
        shapes |= {f"{block}.torgb.affine.weight": (out, 512), f"{block}.torgb.affine.bias": (out,)}
    net = SuperResolution(variant)
    assert {name: tuple(t.shape) for name, t in net.state_dict().items()} == shapes
    assert len(shapes) == entries and net.output_resolution == 2 * resolution
    if variant in ("8XDC", "2X"):
        assert sum(p.numel() for p in net.parameters()) == {"8XDC": 1_649_578, "2X": 574_954}[variant]


@pytest.mark.parametrize(("variant", "output"), [("8XDC", 64), ("2X", 32)])
def test_own_sizes(variant, output):
    net = tiny(variant)
    image = net(torch.randn(2, 3, 16, 16), torch.randn(2, 8, 16, 16), torch.randn(2, 5, 12))
    assert image.shape == (2, 3, output, output) and net.output_resolution == output


def test_only_the_last_row_counts():
    net = tiny()
    rgb, x, ws = torch.randn(1, 3, 16, 16), torch.randn(1, 8, 16, 16), torch.randn(1, 5, 12)
    image, changed = net(rgb, x, ws), ws.clone()
    changed[:, :4] = 0
    assert torch.equal(net(rgb, x, changed), image)
    assert not torch.allclose(net(rgb, x, 2 * ws), image)


@pytest.mark.parametrize(("num_fp16_res", "largest"), [(4, 256.0), (0, 1e4)])
def test_limit_follows_the_configured_precision_not_the_device(num_fp16_res, largest):
    net = tiny("8XDC", num_fp16_res=num_fp16_res)
    torch.nn.init.constant_(net.block1.torgb.bias, 1e4)
    torch.nn.init.zeros_(net.block1.torgb.weight)
    torch.nn.init.zeros_(net.block0.torgb.weight)
    image = net(torch.zeros(1, 3, 16, 16), torch.randn(1, 8, 16, 16), torch.randn(1, 5, 12))
    assert torch.equal(image, torch.full_like(image, largest))


def test_half_precision_can_be_declined():
    assert tiny().block0.use_fp16 and tiny().block1.use_fp16
    net = tiny(half=False)
    assert not net.block0.use_fp16 and net.block0.conv0.conv_clamp == 256
    assert not tiny(num_fp16_res=0).block0.use_fp16


@pytest.mark.cuda
@pytest.mark.parametrize("variant", ["8XDC", "2X"])
def test_half_precision_on_cuda(variant):
    """Half where it is asked for, float32 outside, and near to a run without it (TF32 has 11 bits as half has)."""
    half, full = tiny(variant).cuda(), tiny(variant, half=False).cuda()
    inputs = [torch.randn(s, device="cuda") for s in ((2, 3, 16, 16), (2, 8, 16, 16), (2, 5, 12))]
    rows = inputs[2][:, -1:].repeat(1, 3, 1)
    assert half.block0.convolve(inputs[1], rows).dtype == torch.float16
    assert full.block0.convolve(inputs[1], rows).dtype == torch.float32
    image, expected = half(*inputs), full(*inputs)
    assert image.dtype == torch.float32
    assert (image - expected).abs().max() < 2e-2 * expected.abs().max()


def test_changed_raw_image():
    net = tiny()
    rgb, x, ws = torch.randn(2, 3, 16, 16), torch.randn(2, 8, 16, 16), torch.randn(2, 5, 12)
    before = rgb.clone()
    shadow = net.shadow_rgb(rgb, x, ws)
    rows = ws[:, -1:].repeat(1, 3, 1)
    expected = rgb + net.block0.image(net.block0.convolve(x, rows, noise_mode="none"), rows)
    assert torch.equal(shadow, expected) and torch.equal(rgb, before)
    assert not torch.allclose(shadow, rgb)


@pytest.mark.parametrize(("variant", "resolution"), [("2X", 8), ("2X", 32), ("8XDC", 16)])
def test_raw_image_that_stays(variant, resolution):
    """A resized input is a copy, and modules that upsample at once never touch the raw image."""
    net = tiny(variant)
    rgb = torch.randn(1, 3, resolution, resolution)
    assert not net.changes_raw(resolution)
    assert net.shadow_rgb(rgb, torch.randn(1, 8, resolution, resolution), torch.randn(1, 5, 12)) is rgb


def test_random_noise_comes_from_the_generator():
    net = tiny(noise_mode="random")
    for block in (net.block0, net.block1):
        torch.nn.init.constant_(block.conv1.noise_strength, 0.5)
    inputs = torch.randn(1, 3, 16, 16), torch.randn(1, 8, 16, 16), torch.randn(1, 5, 12)
    first = net(*inputs, rng=torch.Generator().manual_seed(0))
    assert torch.equal(first, net(*inputs, rng=torch.Generator().manual_seed(0)))
    assert not torch.allclose(first, net(*inputs, rng=torch.Generator().manual_seed(1)))


def test_gradients_flow():
    net = tiny().train()
    inputs = [torch.randn(s, requires_grad=True) for s in ((2, 3, 16, 16), (2, 8, 16, 16), (2, 5, 12))]
    net(*inputs).square().mean().backward()
    assert all(t.grad.abs().sum() > 0 for t in inputs)
    trained = {n for n, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {n for n, _ in net.named_parameters()} - trained == {
        f"block{i}.conv{j}.noise_strength" for i in (0, 1) for j in (0, 1)
    }


def test_wrong_arguments():
    with pytest.raises(ValueError, match="variant is '16X'"):
        SuperResolution("16X")
    net = tiny("4X")
    rgb, x, ws = torch.zeros(1, 3, 16, 16), torch.zeros(1, 8, 16, 16), torch.zeros(1, 5, 12)
    with pytest.raises(ValueError, match="lower the neural rendering resolution"):
        net(torch.zeros(1, 3, 32, 32), torch.zeros(1, 8, 32, 32), ws)
    with pytest.raises(ValueError, match=r"expected \(B, 3, R, R\)"):
        net(rgb, x[:, :4], ws)
    with pytest.raises(ValueError, match=r"expected \(B, num_ws, w_dim\)"):
        net(rgb, x, ws[0])
