"""The backbone against Swin V2's formulas written out once more, block by block."""

import math

import pytest
import torch
import torch.nn.functional as F
from parity import seeded
from torch import Tensor

from goae.models.swin import SwinConfig, SwinPyramid

SMALL = SwinConfig(
    image_resolution=32,
    patch_size=2,
    embed_dim=8,
    depths=[2, 2, 2, 1],
    num_heads=[1, 2, 2, 4],
    window_size=4,
    pretrained_window_sizes=[3, 0, 6, 2],
    mlp_ratio=2.0,
    drop_path=0.2,
)


def randomize(module: torch.nn.Module) -> None:
    """Weights around one for norms, noise elsewhere; logit scales up to 5, so that their clamp at ln 100 is used."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            noise = seeded(name, p.shape).to(p)
            if name.endswith("logit_scale"):
                p.copy_(5 * torch.sigmoid(3 * noise))
            elif p.dim() == 1:
                p.copy_(0.3 * noise + ("norm" in name and name.endswith("weight")))
            else:
                p.copy_(noise / math.sqrt(p[0].numel()))


def position_bias(state: dict[str, Tensor], block: str, window: int, pretrained: int) -> Tensor:
    """16 sigmoid(MLP(log-spaced relative coordinates)) for all pairs of positions: (heads, w^2, w^2)."""
    axis = torch.arange(window)
    y, x = (axis.repeat_interleave(window), axis.repeat(window))
    offsets = torch.stack([y[:, None] - y[None], x[:, None] - x[None]], dim=-1).float()
    offsets = 8 * offsets / ((pretrained or window) - 1)
    coords = offsets.sign() * torch.log2(offsets.abs() + 1) / 3
    hidden = torch.relu(F.linear(coords.double(), state[f"{block}.cpb_mlp.0.weight"], state[f"{block}.cpb_mlp.0.bias"]))
    return 16 * torch.sigmoid(F.linear(hidden, state[f"{block}.cpb_mlp.2.weight"])).permute(2, 0, 1)


def shifted_regions(grid: int, window: int, shift: int) -> Tensor:
    """Region of each position of the rolled grid: positions attend to each other inside a region only."""
    edges = torch.zeros(grid, dtype=torch.long)
    edges[-window:] += 1
    edges[-shift:] += 1
    return 3 * edges[:, None] + edges[None]


def windows_of(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C) -> (B, windows, w^2, C)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // window, window, w // window, window, c).transpose(2, 3)
    return x.reshape(b, -1, window * window, c)


def attention(state: dict[str, Tensor], block: str, x: Tensor, heads: int, window: int, shift: int, pre: int) -> Tensor:
    """Cosine attention inside windows of a grid rolled by `shift`."""
    b, grid, _, c = x.shape
    tokens = windows_of(torch.roll(x, (-shift, -shift), (1, 2)), window)
    bias = torch.cat([state[f"{block}.q_bias"], torch.zeros(c).double(), state[f"{block}.v_bias"]])
    qkv = F.linear(tokens, state[f"{block}.qkv.weight"], bias)
    q, k, v = qkv.unflatten(-1, (3, heads, c // heads)).permute(3, 0, 1, 4, 2, 5)
    logits = F.cosine_similarity(q[..., :, None, :], k[..., None, :, :], dim=-1)
    logits = logits * state[f"{block}.logit_scale"].clamp(max=math.log(100)).exp()
    logits = logits + position_bias(state, block, window, pre)
    if shift:
        region = windows_of(shifted_regions(grid, window, shift)[None, :, :, None], window)[0, :, :, 0]
        logits = logits - 100.0 * (region[:, :, None] != region[:, None, :])[:, None]
    out = (logits.softmax(-1) @ v).transpose(2, 3).flatten(3)
    out = F.linear(out, state[f"{block}.proj.weight"], state[f"{block}.proj.bias"])
    side = grid // window
    out = out.reshape(b, side, side, window, window, c).transpose(2, 3).reshape(b, grid, grid, c)
    return torch.roll(out, (shift, shift), (1, 2))


def norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def merged(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    parts = [x[:, row::2, col::2] for col in (0, 1) for row in (0, 1)]
    return norm(state, f"{name}.norm", F.linear(torch.cat(parts, -1), state[f"{name}.reduction.weight"]))


def expected_pyramid(state: dict[str, Tensor], config: SwinConfig, image: Tensor) -> list[Tensor]:
    """Taps at the stage inputs, then the normalised output."""
    x = F.conv2d(image, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=config.patch_size)
    x, taps = norm(state, "patch_embed.norm", x.permute(0, 2, 3, 1)), []
    for s, depth in enumerate(config.depths):
        x = merged(state, f"layers.{s}.downsample", x) if s else x
        taps.append(x.flatten(1, 2))
        window = min(config.window_size, x.shape[1])
        for b in range(depth):
            name, shift = f"layers.{s}.blocks.{b}", window // 2 if b % 2 and x.shape[1] > window else 0
            pre = config.pretrained_window_sizes[s]
            out = attention(state, f"{name}.attn", x, config.num_heads[s], window, shift, pre)
            x = x + norm(state, f"{name}.norm1", out)
            hidden = F.gelu(F.linear(x, state[f"{name}.mlp.fc1.weight"], state[f"{name}.mlp.fc1.bias"]))
            out = F.linear(hidden, state[f"{name}.mlp.fc2.weight"], state[f"{name}.mlp.fc2.bias"])
            x = x + norm(state, f"{name}.norm2", out)
    return [*taps, norm(state, "norm", x).flatten(1, 2)]


def test_T3_pyramid_equals_an_independent_computation() -> None:
    pyramid = SwinPyramid(SMALL).double().eval()
    randomize(pyramid)
    image = seeded("swin/image", [2, 3, 32, 32]).double()
    taps = pyramid(image)
    expected = expected_pyramid(pyramid.state_dict(), SMALL, image)
    got = [taps.fine, taps.mid, taps.coarse, taps.query.transpose(1, 2), taps.base.transpose(1, 2)]
    for value, reference in zip(got, expected, strict=True):
        assert value.shape == reference.shape
        # position tables are kept in float32 by timm
        torch.testing.assert_close(value, reference, rtol=0, atol=1e-5)
        assert reference.std() > 0.1


def test_an_untrained_backbone_is_a_chain_of_identities() -> None:
    pyramid = SwinPyramid(SMALL).eval()
    image = seeded("swin/image", [1, 3, 32, 32])
    taps = pyramid(image)
    last = pyramid.norm(taps.query.transpose(1, 2)).transpose(1, 2)
    assert torch.equal(taps.base, last)


def test_shapes_follow_the_config() -> None:
    taps = SwinPyramid(SMALL)(torch.zeros(3, 3, 32, 32))
    assert taps.fine.shape == (3, 256, 8) and taps.mid.shape == (3, 64, 16) and taps.coarse.shape == (3, 16, 32)
    assert taps.query.shape == taps.base.shape == (3, 64, 4)


def test_drop_path_acts_in_training_mode_only() -> None:
    pyramid = SwinPyramid(SMALL)
    randomize(pyramid)
    image = seeded("swin/image", [4, 3, 32, 32])
    torch.manual_seed(0)
    assert not torch.equal(pyramid(image).base, pyramid(image).base)
    pyramid.eval()
    assert torch.equal(pyramid(image).base, pyramid(image).base)


def test_rejects_other_image_sizes() -> None:
    with pytest.raises(ValueError, match=r"encoder\.backbone\.image_resolution"):
        SwinPyramid(SMALL)(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"depths": [2, 2]}, "depths"),
        ({"image_resolution": 40}, "image_resolution"),
        ({"num_heads": [3, 2, 2, 4]}, "num_heads"),
    ],
)
def test_config_names_the_wrong_key(change: dict, named: str) -> None:
    with pytest.raises(ValueError, match=rf"encoder\.backbone\.{named}"):
        SwinConfig(**{"image_resolution": 32, "patch_size": 2, "embed_dim": 8, "num_heads": [1, 2, 2, 4]} | change)
