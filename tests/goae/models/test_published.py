"""Published weights: names and shapes by the tables' rules, round trips, and what loading refuses."""

import json
import logging
import os
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from parity import Case, seeded
from safetensors.torch import save_file
from torch import Tensor, nn

from goae.models import published
from goae.models.afa import AFA, AFAConfig
from goae.models.encoder import Encoder, EncoderConfig
from goae.models.swin import SwinConfig, SwinPyramid

Shapes = dict[str, tuple[int, ...]]
Module = TypeVar("Module", bound=nn.Module)


def layer(name: str, *shape: int) -> Shapes:
    """A weight of this shape and its bias."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def batch_norm(name: str, channels: int) -> Shapes:
    entries = {f"{name}.{leaf}": (channels,) for leaf in ("weight", "bias", "running_mean", "running_var")}
    return {**entries, f"{name}.num_batches_tracked": ()}


def cross_attention(name: str) -> Shapes:
    return {
        f"{name}.multihead_attn.in_proj_weight": (1536, 512),
        f"{name}.multihead_attn.in_proj_bias": (1536,),
        **layer(f"{name}.multihead_attn.out_proj", 512, 512),
        **layer(f"{name}.linear1", 1024, 512),
        **layer(f"{name}.linear2", 512, 1024),
    }


def block_table(name: str, stage: int) -> Shapes:
    c, h = 128 * 2**stage, 4 * 2**stage
    n, t = (64, 15) if stage == 3 else (256, 31)
    return {
        **layer(f"{name}.norm1", c),
        **layer(f"{name}.norm2", c),
        f"{name}.attn.logit_scale": (h, 1, 1),
        f"{name}.attn.q_bias": (c,),
        f"{name}.attn.v_bias": (c,),
        **layer(f"{name}.attn.cpb_mlp.0", 512, 2),
        f"{name}.attn.cpb_mlp.2.weight": (h, 512),
        f"{name}.attn.qkv.weight": (3 * c, c),
        **layer(f"{name}.attn.proj", c, c),
        **layer(f"{name}.mlp.fc1", 4 * c, c),
        **layer(f"{name}.mlp.fc2", c, 4 * c),
        f"{name}.attn.relative_coords_table": (1, t, t, 2),
        f"{name}.attn.relative_position_index": (n, n),
    }


def backbone_table() -> Shapes:
    table = {**layer("patch_embed.proj", 128, 3, 4, 4), **layer("patch_embed.norm", 128), **layer("norm", 1024)}
    for stage, depth in enumerate((2, 2, 18, 2)):
        for block in range(depth):
            table |= block_table(f"layers.{stage}.blocks.{block}", stage)
        if stage < 3:  # merging ends a stage
            c = 128 * 2**stage
            table |= {f"layers.{stage}.downsample.reduction.weight": (2 * c, 4 * c)}
            table |= layer(f"layers.{stage}.downsample.norm", 2 * c)
    table |= {"layers.0.blocks.1.attn_mask": (16, 256, 256), "layers.1.blocks.1.attn_mask": (4, 256, 256)}
    return {f"swin_model.{name}": shape for name, shape in table.items()}


def encoder_table() -> Shapes:
    table = backbone_table()
    for name, suffix, rows in (("base", "", 1), ("query", "_coarse", 3), ("query", "_mid", 3), ("query", "_fine", 7)):
        table |= layer(f"mapper_{name}_spatial{suffix}.0", 64, 64) | layer(f"mapper_{name}_spatial{suffix}.2", rows, 64)
        table |= layer(f"mapper_{name}_channel{suffix}.0", 1024, 1024)
        table |= layer(f"mapper_{name}_channel{suffix}.2", 512, 1024)
    table |= layer("mapper_coarse_channel.0", 512, 512) | layer("mapper_mid_channel.0", 512, 256)
    table |= layer("mapper_fine_channel.0", 256, 128) | layer("mapper_fine_channel.2", 512, 256)
    for name, tokens in (("coarse_to_mid", 256), ("mid_to_fine", 1024)):
        table |= layer(f"mapper_{name}_spatial.0", 2 * tokens, tokens)
        table |= layer(f"mapper_{name}_spatial.2", 4 * tokens, 2 * tokens)
    for level in ("coarse", "mid", "fine"):
        table |= cross_attention(f"cross_att_{level}")
    return table


def unit_table(name: str, inputs: int, outputs: int) -> Shapes:
    table = {
        **batch_norm(f"{name}.res_layer.0", inputs),
        f"{name}.res_layer.1.weight": (outputs, inputs, 3, 3),
        f"{name}.res_layer.2.weight": (outputs,),
        f"{name}.res_layer.3.weight": (outputs, outputs, 3, 3),
        **batch_norm(f"{name}.res_layer.4", outputs),
        f"{name}.res_layer.5.fc1.weight": (outputs // 16, outputs, 1, 1),
        f"{name}.res_layer.5.fc2.weight": (outputs, outputs // 16, 1, 1),
    }
    if inputs != outputs:
        table |= {f"{name}.shortcut_layer.0.weight": (outputs, inputs, 1, 1)}
        table |= batch_norm(f"{name}.shortcut_layer.1", outputs)
    return table


def afa_table() -> Shapes:
    table = {"input_layer.0.weight": (64, 3, 3, 3), **batch_norm("input_layer.1", 64), "input_layer.2.weight": (64,)}
    widths = [64, 64, 64, 64, 128, 128, 128, 256, 256, 256]
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        table |= unit_table(f"body.{index}", inputs, outputs)
    table |= layer("output_layer.0", 512, 256, 3, 3) | layer("output_layer.2", 512, 512, 3, 3)
    return table | cross_attention("cross_att_gamma") | cross_attention("cross_att_beta")


def manifest(case: str, what: str) -> Shapes:
    """Names and shapes of the released modules' parameters and statistics."""
    return {name: tuple(shape) for name, shape in json.loads(str(Case(case).data[f"manifest/{what}"]))}


def shapes(state: dict[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_T1_encoder_exports_the_released_names_and_shapes() -> None:
    with torch.device("meta"):
        encoder = Encoder(EncoderConfig(), num_ws=14, w_dim=512)
    exported = published.encoder_to_official(encoder)
    assert shapes(exported) == encoder_table() and len(exported) == 545
    parameters = [p.numel() for p in encoder.parameters()]
    assert len(parameters) == 495 and sum(parameters) == 111_218_822
    assert sum(p.numel() for p in encoder.swin_model.parameters()) == 86_893_816
    stored = {n: s for n, s in shapes(exported).items() if not n.endswith(published.DERIVED)}
    assert stored == manifest("goae_encoder", "encoder")


def test_T1_alignment_exports_the_released_names_and_shapes() -> None:
    with torch.device("meta"):
        afa = AFA(AFAConfig(variant="official"))
    exported = published.afa_to_official(afa)
    assert shapes(exported) == afa_table() and len(exported) == 174
    assert sum(p.numel() for p in afa.parameters()) == 12_099_904
    assert exported["body.0.res_layer.0.num_batches_tracked"].dtype == torch.int64
    stored = {n: s for n, s in shapes(exported).items() if not n.endswith("num_batches_tracked")}
    assert stored == manifest("goae_afa", "afa")


def small_encoder(seed: int) -> Encoder:
    torch.manual_seed(seed)
    backbone = SwinConfig(32, 2, 8, [2, 2, 1, 1], [1, 2, 2, 4], 4, [0, 0, 0, 0], 2.0, 0.0)
    encoder = Encoder(EncoderConfig(backbone, attention_heads=2, feedforward_dim=16), num_ws=10, w_dim=16)
    return randomized(encoder)


def small_afa(seed: int, variant: str = "official") -> AFA:
    torch.manual_seed(seed)
    config = AFAConfig(
        variant, feature_channels=8, feature_resolution=4, image_resolution=16, widths=[4, 8], units=[1, 1], squeeze=4
    )
    return randomized(AFA(config))


def randomized(module: Module) -> Module:
    """Evaluation mode with noise on every parameter and running statistic."""
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    return module.eval()


def assert_same_state(a: nn.Module, b: nn.Module) -> None:
    theirs = b.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in a.state_dict().items())


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_T2_encoder_round_trip(suffix: str, tmp_path: Path) -> None:
    source, target = small_encoder(0), small_encoder(1)
    published.export_encoder(source, tmp_path / f"encoder{suffix}")
    published.load_encoder(target, tmp_path / f"encoder{suffix}")
    assert_same_state(source, target)
    image = seeded("published/image", [1, 3, 32, 32])
    assert torch.equal(source(image)[0], target(image)[0])
    exported = published.encoder_to_official(source)
    again = published.encoder_to_official(target)
    assert exported.keys() == again.keys() and all(torch.equal(exported[n], again[n]) for n in exported)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_T2_alignment_round_trip(suffix: str, tmp_path: Path) -> None:
    source, target = small_afa(0), small_afa(1)
    published.export_afa(source, tmp_path / f"afa{suffix}")
    published.load_afa(target, tmp_path / f"afa{suffix}")
    assert_same_state(source, target)


def test_T2_merging_belongs_to_the_next_stage_here() -> None:
    encoder = small_encoder(0)
    exported = published.encoder_to_official(encoder)
    for stage in range(3):
        theirs = exported[f"swin_model.layers.{stage}.downsample.reduction.weight"]
        assert torch.equal(theirs, encoder.swin_model.layers[stage + 1].downsample.reduction.weight)
    assert "swin_model.layers.3.downsample.reduction.weight" not in exported
    ours = published.encoder_from_official(exported)
    assert ours.keys() == encoder.state_dict().keys()


def test_exported_buffers_follow_their_definition() -> None:
    exported = published.encoder_to_official(small_encoder(0))
    attention = "swin_model.layers.0.blocks.1.attn"
    offsets = torch.arange(-3, 4).float() * 8 / 3
    axis = offsets.sign() * torch.log2(offsets.abs() + 1) / 3
    table = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)[None]
    torch.testing.assert_close(exported[f"{attention}.relative_coords_table"], table)
    y, x = torch.arange(16) // 4, torch.arange(16) % 4
    index = (y[:, None] - y + 3) * 7 + (x[:, None] - x + 3)
    assert torch.equal(exported[f"{attention}.relative_position_index"], index)
    mask = exported["swin_model.layers.0.blocks.1.attn_mask"]
    assert mask.shape == (16, 16, 16) and mask[0].abs().max() == 0 and set(mask.unique().tolist()) == {-100.0, 0.0}


@pytest.mark.parametrize("wrap", ["nested", "prefixed", "both", "encoder"])
def test_wrappers_are_stripped(wrap: str, tmp_path: Path) -> None:
    source, target = small_encoder(0), small_encoder(1)
    state: dict = published.encoder_to_official(source)
    if wrap in ("prefixed", "both"):
        state = {f"module.encoder.{name}": tensor for name, tensor in state.items()}
    if wrap in ("nested", "both"):
        state = {"state_dict": state, "step": 7}
    if wrap == "encoder":
        state = {"encoder": {"state_dict": state}, "opts": {"lr": 1e-4}}
    torch.save(state, tmp_path / "encoder.pt")
    published.load_encoder(target, tmp_path / "encoder.pt")
    assert_same_state(source, target)


def test_missing_and_unexpected_names_are_listed(tmp_path: Path) -> None:
    source, target = small_encoder(0), small_encoder(1)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    state = published.encoder_to_official(source)
    del state["swin_model.layers.1.downsample.norm.weight"]
    state["mapper_extra.0.weight"] = torch.zeros(2)
    state["mapper_coarse_channel.0.weight"] = torch.zeros(3, 3)
    torch.save(state, tmp_path / "encoder.pt")
    with pytest.raises(ValueError) as error:
        published.load_encoder(target, tmp_path / "encoder.pt")
    for told in (
        "missing: swin_model.layers.1.downsample.norm.weight",
        "of another shape: mapper_coarse_channel.0.weight (3, 3) instead of (16, 32)",
        "unexpected: mapper_extra.0.weight",
        "allow_unexpected",
    ):
        assert told in str(error.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in target.state_dict().items())


def test_many_names_are_shortened_and_a_lost_configuration_is_named(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "encoder.safetensors")
    with pytest.raises(
        ValueError, match=r"missing: .* and \d+ more; unexpected: weight .*encoder\.json is not beside it"
    ):
        published.load_encoder(small_encoder(0), tmp_path / "encoder.safetensors")


def test_unexpected_names_are_ignored_on_demand_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, target = small_encoder(0), small_encoder(1)
    state = {**published.encoder_to_official(source), "latlayer1.weight": torch.zeros(2)}
    torch.save(state, tmp_path / "cat.pt")
    with pytest.raises(ValueError, match=r"unexpected: latlayer1\.weight"):
        published.load_encoder(target, tmp_path / "cat.pt")
    with caplog.at_level(logging.WARNING):
        published.load_encoder(target, tmp_path / "cat.pt", allow_unexpected=True)
    assert "latlayer1.weight" in caplog.text
    assert_same_state(source, target)
    del state["swin_model.norm.bias"]
    torch.save(state, tmp_path / "cat.pt")
    with pytest.raises(ValueError, match=r"missing: swin_model\.norm\.bias"):
        published.load_encoder(target, tmp_path / "cat.pt", allow_unexpected=True)


def test_alignment_needs_the_official_variant(tmp_path: Path) -> None:
    published.export_afa(small_afa(0), tmp_path / "afa.pt")
    for act in (published.load_afa, published.export_afa):
        with pytest.raises(ValueError, match=r"variant.* 'paper'"):
            act(small_afa(0, "paper"), tmp_path / "afa.pt")


class Hostile:
    """Runs a command when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.mark}",)


def test_files_that_carry_code_are_refused(tmp_path: Path) -> None:
    state = published.encoder_to_official(small_encoder(0))
    torch.save({"state_dict": state, "opts": Hostile(tmp_path / "ran")}, tmp_path / "e.pt")
    with pytest.raises(ValueError, match=r"e\.pt .*system`, which is not on the list of allowed names"):
        published.load_encoder(small_encoder(1), tmp_path / "e.pt")
    assert not (tmp_path / "ran").exists()


def test_files_that_hold_no_state_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*absent\.pt"):
        published.read_state(tmp_path / "absent.pt")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ValueError, match=r"cut\.pt"):
        published.read_state(tmp_path / "cut.pt")
    (tmp_path / "cut.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(ValueError, match=r"cut\.safetensors"):
        published.read_state(tmp_path / "cut.safetensors")
    for content in ([1, 2], {}, {"step": 3}, {"state_dict": {"lr": 1.0}}):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(ValueError, match="holds no state dict"):
            published.read_state(tmp_path / "other.pt")


@pytest.mark.parametrize("original", [False, True])
def test_backbone_takes_image_classification_weights(original: bool, tmp_path: Path) -> None:
    source, target = small_encoder(0).swin_model, small_encoder(1).swin_model
    state = {**source.state_dict(), "head.fc.weight": torch.zeros(10, 64), "head.fc.bias": torch.zeros(10)}
    if original:
        for stage in range(3):  # merging ends a stage
            for leaf in ("reduction.weight", "norm.weight", "norm.bias"):
                state[f"layers.{stage}.downsample.{leaf}"] = state.pop(f"layers.{stage + 1}.downsample.{leaf}")
        state["layers.0.blocks.1.attn_mask"] = torch.zeros(16, 16, 16)
    save_file(state, tmp_path / "swin.safetensors")
    published.load_backbone(target, tmp_path / "swin.safetensors")
    assert_same_state(source, target)
    other = SwinPyramid(SwinConfig(32, 2, 16, [2, 2, 1, 1], [1, 2, 2, 4], 4, [0, 0, 0, 0], 2.0, 0.0))
    with pytest.raises(ValueError, match="of another shape"):
        published.load_backbone(other, tmp_path / "swin.safetensors")
