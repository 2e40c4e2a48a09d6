"""Where paper and released code differ, or the paper is silent (D1-D25): both presets as composed, facts in code."""

import dataclasses
import re
from collections.abc import Callable
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from composing import composed_as
from eg3d.cameras import canonical_label
from eg3d.nn.backbone import Features
from timm.models.swin_transformer_v2 import SwinTransformerV2Stage
from tiny import tiny_goae, tiny_images, tiny_labels
from torch import nn

from goae.config import TrainConfig, flatten, to_plain
from goae.extractors import arcface
from goae.inversion import Inverter
from goae.models.encoder import stage_at
from goae.models.goae import preset
from goae.models.occlusion import mix_planes
from goae.models.swin import SwinConfig, SwinPyramid
from goae.training.refiner_stage import RefinerStageConfig

NOTES = (Path(__file__).parents[2] / "docs" / "paper-notes.md").read_text()
PRESETS = ("paper", "official")


class Switch(NamedTuple):
    """A key of the configuration and its values under both presets."""

    number: int
    key: str
    paper: Any
    official: Any


SWITCHES = [
    Switch(1, "afa.variant", "paper", "official"),
    Switch(2, "afa.residual", "auto", "auto"),  # which follows the variant, see below
    Switch(3, "goae.mix.planes", "xyz", "xy"),
    Switch(4, "goae.mix.close", "morph", "blur"),
    Switch(5, "goae.mix.sigma", 1.5, None),
    Switch(6, "goae.mix.oob", "drop", "clamp"),
    Switch(7, "goae.mix.depth_from", "F*", "F*"),
    Switch(7, "goae.mix.depth_density", 2.0, 0.5),
    Switch(7, "goae.mix.depth_rays", "silhouettes", "dense"),
    Switch(8, "generator.rendering.plane_axes", "xy,xz,zx", "xy,xz,zx"),
    Switch(9, "goae.mix.input_view", "mix", "F*"),
    Switch(10, "stages.encoder.stage_steps", [10_000, 20_000, 30_000], [10_000, 20_000, 30_000]),
    Switch(11, "afa.feature_resolution", 32, 32),
    Switch(15, "goae.edit_late_rows", "edited", "source"),
    Switch(16, "goae.edit_glass_comp", 0.0, 0.8),
    Switch(18, "stages.encoder.adv", 0.05, 0.05),
    Switch(19, "perception.identity", "arcface", "arcface"),
    Switch(20, "paths.generator", "weights/ffhqrebalanced512-128.pkl", "weights/ffhqrebalanced512-128.pkl"),
    Switch(22, "encoder.backbone.embed_dim", 128, 128),
    Switch(22, "encoder.backbone.depths", [2, 2, 18, 2], [2, 2, 18, 2]),
    Switch(23, "stages.encoder.background.davg", "scalar", "scalar"),
    Switch(23, "stages.refiner.background.davg", "scalar", "scalar"),
    Switch(23, "stages.encoder.background.loss", "mse", "mse"),
    Switch(23, "stages.refiner.background.loss", "mse", "mse"),
]


@cache
def composed(preset_name: str) -> TrainConfig:
    return composed_as(TrainConfig, "experiment=ffhq", f"preset={preset_name}")


def residual_follows_the_variant() -> None:
    """D2: I - I_w for the paper's variant, I_w - I for the released one."""
    assert [composed(name).afa.subtracts_image for name in PRESETS] == [False, True]


def axes_come_from_the_generator() -> None:
    """D8: EG3D's trained (z, x) plane for faces, the corrected one in a generator that was trained with it."""
    assert tiny_goae().generator.renderer.config.plane_axes == "xy,xz,zy"


def training_starts_with_the_base_code_alone() -> None:
    """D10: four stages."""
    assert [stage_at(s, composed("paper").stages.encoder.stage_steps) for s in (0, 10_000, 20_000, 30_001)] == [
        *range(4)
    ]


def base_code_has_a_level_of_its_own() -> None:
    """D12: w_0 from the normalised output of the last stage, queries from its input, which no norm has touched."""
    encoder = tiny_goae().encoder
    nn.init.zeros_(encoder.swin_model.norm.weight)
    nn.init.zeros_(encoder.swin_model.norm.bias)
    offsets, base = encoder(tiny_images())
    assert torch.equal(base[0], base[1])
    assert not torch.allclose(offsets[0, 1:], offsets[1, 1:])


def taps_are_inputs_of_stages() -> None:
    """D13: the finest features are the raw patch embedding."""
    swin, image = tiny_goae().encoder.swin_model, tiny_images()
    assert torch.equal(swin(image).fine, swin.patch_embed(image).flatten(1, 2))


def keys_mix_from_coarse_to_fine() -> None:
    """D14: the coarser level's keys are added to the mid level's."""
    encoder, image = tiny_goae().encoder, tiny_images()
    before, _ = encoder(image)
    for parameter in encoder.mapper_coarse_to_mid_spatial.parameters():
        nn.init.zeros_(parameter)
    after, _ = encoder(image)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:7], after[:, 4:7])


def stage_2_has_no_latent_terms() -> None:
    """D17: reconstruction, background depth and the norm of F* - F alone."""
    names = {field.name for field in dataclasses.fields(RefinerStageConfig)}
    assert names == {"fit", "optimizer", "weights", "bg", "df", "df_norm", "background", "neural_resolution"}
    assert composed("paper").stages.refiner.weights.as_dict().keys() == {"l2", "lpips", "id"}


def identity_is_taken_from_the_face_crop() -> None:
    """D19: rows 35 to 222 and columns 32 to 219 of the image at 256², averaged to 112²."""
    image = tiny_images(1, 256)
    expected = nn.functional.adaptive_avg_pool2d(image[:, :, 35:223, 32:220], 112)
    assert torch.equal(arcface.crop(image), expected)


def edits_are_rendered_from_mixed_planes() -> None:
    """D21: under both presets."""
    for name in PRESETS:
        goae = tiny_goae(preset(name), variant=name)
        inverter, c = Inverter(goae), tiny_labels()
        inversion = inverter.invert(tiny_images(), c)
        edited = inverter.edit(inversion, 0.3 * torch.ones_like(inversion.ws[0]))
        coded = goae.generator.features(edited.ws, goae.feature_resolution)
        planes_f = goae.generator.planes(Features(edited.features, coded.skip), edited.late_ws)
        mixed = mix_planes(goae.generator.planes(coded, edited.ws), planes_f, edited.visibility)
        assert torch.allclose(edited.planes, mixed, atol=1e-6) and not torch.allclose(mixed, planes_f)
        assert torch.equal(inverter.render(edited, c).image, goae.render(edited.planes, edited.ws, c).image)


def backbone_is_swin_v2_of_base_size() -> None:
    """D22."""
    assert composed("paper").encoder.backbone == SwinConfig() == composed("official").encoder.backbone
    assert all(isinstance(stage, SwinTransformerV2Stage) for stage in SwinPyramid(tiny_backbone()).layers)


def tiny_backbone() -> SwinConfig:
    return tiny_goae().encoder.config.backbone


def released_alignment_edits_the_map_of_32_alone() -> None:
    """D24: so the notes promise no Table 1 from it."""
    assert composed("official").afa.feature_resolution == 32
    assert "Table 1 is not promised from `afa_FFHQ.pt`" in NOTES


def canonical_camera_is_c0() -> None:
    """D25: at (0, 0, 2.7), looking along -z, OpenCV axes."""
    c0 = [1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 2.7, 0, 0, 0, 1, 4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1]
    assert torch.equal(canonical_label(), torch.tensor([c0]))


FACTS: dict[int, Callable[[], None]] = {
    2: residual_follows_the_variant,
    8: axes_come_from_the_generator,
    10: training_starts_with_the_base_code_alone,
    12: base_code_has_a_level_of_its_own,
    13: taps_are_inputs_of_stages,
    14: keys_mix_from_coarse_to_fine,
    17: stage_2_has_no_latent_terms,
    19: identity_is_taken_from_the_face_crop,
    21: edits_are_rendered_from_mixed_planes,
    22: backbone_is_swin_v2_of_base_size,
    24: released_alignment_edits_the_map_of_32_alone,
    25: canonical_camera_is_c0,
}


@pytest.mark.parametrize("number", range(1, 26), ids=lambda number: f"D{number}")
def test_every_choice_stands_where_the_notes_say(number: int) -> None:
    switches = [switch for switch in SWITCHES if switch.number == number]
    assert switches or number in FACTS
    for switch in switches:
        values = [flatten(to_plain(composed(name)))[switch.key] for name in PRESETS]
        assert values == [switch.paper, switch.official], switch.key
        assert documents(switch.key), f"docs/paper-notes.md does not name {switch.key}"
    if number in FACTS:
        FACTS[number]()


def documented() -> list[tuple[str, list[str]]]:
    """(key, its offered values) out of the last column of the notes' tables; `.name` shares its neighbour's parent."""
    found: list[tuple[str, list[str]]] = []
    for line in NOTES.splitlines():
        cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
        if len(cells) != 5 or set(cells[0].strip()) <= {"-"}:
            continue
        for code in re.findall(r"`([^`]+)`", cells[4]):
            key, _, values = code.replace("\\|", "|").partition("=")
            if key.startswith("."):
                key = found[-1][0].rpartition(".")[0] + key
            found.append((key, values.split("|") if values else []))
    return found


def documents(key: str) -> bool:
    """Whether the notes name `key`, or the group it stands in."""
    return any(fnmatch(key, name) or fnmatch(key, f"{name}.*") for name, _ in documented())


def test_every_key_in_the_notes_exists() -> None:
    keys = flatten(to_plain(composed("paper")))
    assert len(documented()) > 20
    for name, _ in documented():
        assert any(fnmatch(key, name) or fnmatch(key, f"{name}.*") for key in keys), name


@pytest.mark.parametrize("place", range(3))
def test_every_value_offered_in_the_notes_is_accepted(place: int) -> None:
    overrides = []
    for name, values in documented():
        if place < len(values):
            places = [name.replace("*", stage) for stage in ("encoder", "refiner")] if "*" in name else [name]
            overrides += [f"{key}={values[place]}" for key in places]
    made = flatten(to_plain(composed_as(TrainConfig, "experiment=ffhq", *overrides)))
    assert overrides and all(str(made[key]) == value for key, _, value in (o.partition("=") for o in overrides))
