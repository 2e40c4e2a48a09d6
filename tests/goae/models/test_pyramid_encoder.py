"""pSp-3D and e4e-3D: rows, maps and locks; sizes of the full world; a start from ArcFace's weights."""

import dataclasses
from pathlib import Path

import pytest
import torch
from eg3d.cameras import canonical_label
from parity import seeded
from tiny import tiny_generator, tiny_images, tiny_labels, tiny_rival
from torch.nn import functional as F

from goae.extractors.arcface import IRSE50
from goae.ir_se import Trunk
from goae.models.latent_inverter import LatentInverter
from goae.models.published import load_trunk
from goae.models.pyramid_encoder import PSPEncoder, RivalConfig, StyleBlock, unlocked_at

METHODS = ("psp", "e4e", "ide3d")


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_inverted_as_its_images_are(method: str) -> None:
    inverter, image, c = tiny_rival(method), tiny_images(3), tiny_labels(3)
    with torch.no_grad():
        code = inverter.invert_w(image, c)
        alone = [inverter.invert_w(image[i : i + 1], c[i : i + 1]) for i in range(3)]
    assert code.ws.shape == (3, 8, 32) and code.view.image.shape == (3, 3, 32, 32)
    # float32 in another order
    torch.testing.assert_close(code.ws, torch.cat([a.ws for a in alone]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(code.view.image, torch.cat([a.view.image for a in alone]), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(code.ws[0], code.ws[1])


@pytest.mark.parametrize("method", METHODS)
def test_planes_are_those_of_the_generator(method: str) -> None:
    """The cut of the generator, which a rival does not use, changes nothing."""
    inverter = tiny_rival(method)
    with torch.no_grad():
        code = inverter.invert_w(tiny_images(), tiny_labels())
        whole = inverter.generator.synthesis(code.ws, tiny_labels())
        cut = inverter.generator.planes(inverter.generator.features(code.ws, 8), code.ws)
    assert torch.equal(code.planes, cut)
    assert torch.equal(code.view.image, whole.image)


def test_locked_rows_equal_row_0_and_unlocked_ones_do_not() -> None:
    inverter, image = tiny_rival("e4e"), tiny_images()
    with torch.no_grad():
        whole = inverter.encode(image)
        for stage in range(8):
            ws = inverter.encode(image, stage=stage)
            rows = inverter.encoder.active_rows(stage)
            assert rows == stage + 1
            assert all(torch.equal(ws[:, row], ws[:, 0]) for row in range(rows, 8))
            assert all(not torch.allclose(ws[:, row], ws[:, 0]) for row in range(1, rows))
            torch.testing.assert_close(ws[:, :rows], whole[:, :rows])
    with pytest.raises(ValueError, match="stage must be 0"):
        inverter.encode(image, stage=8)


def test_locked_deltas_get_no_gradient() -> None:
    inverter = tiny_rival("e4e")
    inverter.encode(tiny_images(), stage=2).square().sum().backward()
    reached = [style.linear.weight.grad is not None for style in inverter.encoder.pyramid.styles]
    assert reached == [True] * 3 + [False] * 5
    assert all(lateral.weight.grad is None for lateral in inverter.encoder.pyramid.laterals)


def test_e4e_is_psp_with_row_0_added_to_the_others() -> None:
    generator = tiny_generator()
    psp, e4e = tiny_rival("psp", generator), tiny_rival("e4e", generator)
    e4e.encoder.load_state_dict(psp.encoder.state_dict())
    with torch.no_grad():
        codes, ws = psp.encode(tiny_images()) - generator.w_avg, e4e.encode(tiny_images()) - generator.w_avg
    torch.testing.assert_close(ws[:, 0], codes[:, 0])
    torch.testing.assert_close(ws[:, 1:], codes[:, 1:] + codes[:, :1])


def test_rows_come_from_their_maps() -> None:
    """Coarse rows from the coarse map alone, middle rows from two maps, fine ones from all three."""
    encoder = tiny_rival("psp").encoder
    with torch.no_grad():
        before = encoder.offsets(tiny_images(), 0)
        for number, first in ((1, 7), (0, 3)):  # the fine lateral, then the middle one
            encoder.pyramid.laterals[number].weight.zero_()
            after = encoder.offsets(tiny_images(), 0)
            assert torch.equal(after[:, :first], before[:, :first])
            assert all(not torch.allclose(after[:, row], before[:, row]) for row in range(first, 8))


def test_sums_go_top_down_with_aligned_corners() -> None:
    """Silent laterals: the finer sums are the coarse map, whose corners stay corners."""
    pyramid = tiny_rival("psp").encoder.pyramid
    trunk, seen = pyramid.trunk, []
    last = trunk.body[-1]
    last.forward = lambda x: torch.linspace(0, 1, 4).view(1, 1, 2, 2).expand(len(x), 12, 2, 2)  # type: ignore[method-assign]
    for lateral in pyramid.laterals:
        torch.nn.init.zeros_(lateral.weight)
        torch.nn.init.zeros_(lateral.bias)
    for style in (pyramid.styles[0], pyramid.styles[3], pyramid.styles[7]):
        style.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        pyramid(tiny_images(1))
    coarse, middle, fine = (x[0, 0] for x in seen)
    assert [x.shape[-1] for x in (coarse, middle, fine)] == [2, 4, 8]
    for x in (middle, fine):
        assert torch.equal(x[[0, 0, -1, -1], [0, -1, 0, -1]], coarse.flatten())
    torch.testing.assert_close(
        middle, F.interpolate(coarse[None, None], (4, 4), mode="bilinear", align_corners=True)[0, 0]
    )


def test_style_blocks_halve_to_one_pixel() -> None:
    """pSp: one stride-2 convolution with slope 0.01 per halving, then a linear layer scaled by 1 / sqrt(inputs)."""
    block = StyleBlock(4, 8, 6)
    assert [type(m).__name__ for m in block.convs] == ["Conv2d", "LeakyReLU"] * 3
    x = seeded("style", [2, 4, 8, 8])
    y = x
    for conv in block.convs[::2]:
        y = F.leaky_relu(F.conv2d(y, conv.weight, conv.bias, stride=2, padding=1), 0.01)
    assert y.shape == (2, 4, 1, 1)
    expected = y.flatten(1) @ (block.linear.weight / 2).T + block.linear.bias
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize(
    ("step", "stage"), [(0, 0), (19_999, 0), (20_000, 1), (21_999, 1), (22_000, 2), (44_000, 13), (10**6, 13)]
)
def test_deltas_are_unlocked_one_at_a_time(step: int, stage: int) -> None:
    """e4e's numbers and 14 rows: 14 stages, the last from step 44,000 on."""
    config = RivalConfig()
    assert unlocked_at(step, start=config.unlock_start, every=config.unlock_every, num_ws=14) == stage


def test_full_sizes_are_those_of_irse50() -> None:
    """256² images, 14 rows of 512: the trunk has ArcFace's tensors, maps of 64², 32², 16² behind units 6, 20, 23."""
    with torch.device("meta"):
        encoder, arcface = PSPEncoder(RivalConfig(), 14, 512), IRSE50()
    own = {name: tensor.shape for name, tensor in encoder.pyramid.trunk.state_dict().items()}
    theirs = {name: tensor.shape for name, tensor in arcface.state_dict().items()}
    assert own == {name: shape for name, shape in theirs.items() if not name.startswith("output_layer.")}
    assert [unit - 1 for unit in encoder.pyramid.trunk.ends] == [2, 6, 20, 23]
    with torch.no_grad():
        maps = Trunk(3, (16, 32, 48, 64), (3, 4, 14, 3), 16).eval()(tiny_images(1, 64))  # a quarter of side and width
    assert [tuple(m.shape[1:]) for m in maps[1:]] == [(32, 16, 16), (48, 8, 8), (64, 4, 4)]
    depths = [len(style.convs) // 2 for style in encoder.pyramid.styles]
    assert depths == [4] * 3 + [5] * 4 + [6] * 7  # log2 of 16, 32, 64


def test_a_trunk_starts_from_arcfaces_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    arcface = IRSE50().eval()
    torch.save(arcface.state_dict(), tmp_path / "model_ir_se50.pth")
    trunk = Trunk(3, (64, 128, 256, 512), (3, 4, 14, 3), 16).eval()
    load_trunk(trunk, tmp_path / "model_ir_se50.pth")
    x = tiny_images(1, 32)
    with torch.no_grad():
        expected = arcface.input_layer(x)
        for unit in arcface.body:  # by torch's own modules
            expected = unit.shortcut_layer(expected) + unit.res_layer(expected)
        # float32 through 24 units, BatchNorm folded on one side
        torch.testing.assert_close(trunk(x)[-1], expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)
    state = {name: tensor for name, tensor in arcface.state_dict().items() if name != "body.3.res_layer.1.weight"}
    torch.save(state, tmp_path / "damaged.pth")
    with pytest.raises(ValueError, match=r"missing: body\.3\.res_layer\.1\.weight"):
        load_trunk(trunk, tmp_path / "damaged.pth")


def test_encoders_of_another_generator_are_refused() -> None:
    sizes = tiny_rival("psp").encoder.config
    with pytest.raises(ValueError, match=r"rows of ws, encoder and generator: 10 and 8; w_dim, .* 16 and 32"):
        LatentInverter(tiny_generator(), PSPEncoder(sizes, 10, 16))
    with pytest.raises(ValueError, match=r"expected images of shape \(B, 3, 32, 32\)"):
        tiny_rival("psp").encode(tiny_images(size=64))
    with pytest.raises(ValueError, match=r"rival\.image_resolution"):
        tiny_rival("psp").invert_w(tiny_images(size=16), canonical_label())


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"widths": [64, 128]}, "widths"),
        ({"units": [3, 4, 14, 0]}, "units"),
        ({"squeeze": 24}, "squeeze"),
        ({"image_resolution": 100}, "image_resolution"),
        ({"rows": [3]}, "rows"),
        ({"unlock_every": 0}, "unlock_every"),
        ({"geometry_sees": "image"}, "geometry_sees"),
    ],
)
def test_sizes_are_checked(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=rf"rival\.{named}"):
        dataclasses.replace(RivalConfig(), **wrong)
