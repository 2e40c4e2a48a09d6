"""GOAE around a frozen generator: its steps, presets and gradients."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from composing import composed_as
from eg3d.cameras import canonical_label, look_at, mirror_label, split_label
from eg3d.rendering.sampling import midpoint_uniforms
from omegaconf import OmegaConf
from tiny import CONFIGS, tiny_generator, tiny_goae, tiny_images, tiny_labels
from torch import Tensor
from torch.nn.functional import interpolate

from goae.config import TrainConfig
from goae.loading import load_inverter
from goae.models.afa import AFA
from goae.models.encoder import Encoder
from goae.models.goae import GOAE, GOAEConfig, preset
from goae.models.occlusion import MixConfig, draw_sigmas, mix_planes
from goae.models.storage import restore
from goae.photos import photos

MINI = Path(__file__).parents[3] / "goae" / "assets" / "mini"


@pytest.fixture(scope="module")
def goae() -> GOAE:
    return tiny_goae()


def test_forward_is_the_chain_of_its_steps(goae: GOAE) -> None:
    image, c = tiny_images(), tiny_labels()
    with torch.no_grad():
        out = goae(image, c)
        ws = goae.encode(goae.encoder_input(image))
        features = goae.generator.features(ws, 8)
        planes_w = goae.generator.planes(features, ws)
        image_w = goae.generator.synthesis(ws, c).image
        star = goae.refine(image, image_w, features)
        planes_f = goae.generator.planes(star, ws)
        mask = goae.visibility(planes_w, planes_f, c)
        view = goae.render(mix_planes(planes_w, planes_f, mask), ws, c)
    assert out.ws.shape == (2, 8, 32) and torch.equal(out.ws, ws)
    torch.testing.assert_close(out.image_w, image_w)
    assert torch.equal(star.skip, features.skip)
    for got, expected in zip(out[2:-1], (star, planes_w, planes_f, out.planes_mix, mask), strict=True):
        torch.testing.assert_close(got, expected)
    torch.testing.assert_close(out.planes_mix, mix_planes(planes_w, planes_f, mask))
    torch.testing.assert_close(out.view.image, view.image)
    assert out.view.image.shape == (2, 3, 32, 32) and out.view.image_depth.shape == (2, 1, 16, 16)
    assert 0.02 < mask.mean() < 0.98
    assert (planes_f - planes_w).abs().mean() > 0.01


def test_ws_are_offsets_from_the_average(goae: GOAE) -> None:
    image = tiny_images()
    with torch.no_grad():
        offsets, base = goae.encoder(image)
        torch.testing.assert_close(goae.encode(image), offsets + goae.generator.w_avg)
        torch.testing.assert_close(goae.encode(image, stage=0), base + goae.generator.w_avg)


def test_a_batch_equals_its_rows(goae: GOAE) -> None:
    image, c = tiny_images(), tiny_labels()
    with torch.no_grad():
        both, second = goae(image, c), goae(image[1:], c[1:])
    torch.testing.assert_close(both.ws[1:], second.ws, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both.planes_f[1:], second.planes_f, atol=1e-4, rtol=1e-4)
    assert (both.visibility[1:] - second.visibility).abs().mean() < 0.01  # a texel may flip by rounding of the depth


def test_T5_the_split_generator_is_the_whole(goae: GOAE) -> None:
    generator, c = goae.generator, tiny_labels()
    with torch.no_grad():
        ws = generator.mapping(torch.randn(2, 16), c)
        whole = generator.synthesis(ws, c)
        for resolution in (4, 8, 16):
            features = generator.features(ws, resolution)
            planes = generator.planes(features, ws)
            assert torch.equal(planes, whole.planes)
            view = goae.render(planes, ws, c)
            assert torch.equal(view.image, whole.image) and torch.equal(view.image_depth, whole.image_depth)
            # F depends on rows below the cut, what follows on rows from the cut on
            late = ws.clone()
            late[:, generator.row_offset(resolution) + 1 :] += 1
            assert torch.equal(generator.features(late, resolution).x, features.x)
            early = ws.clone()
            early[:, : generator.row_offset(resolution)] += 1
            assert torch.equal(generator.planes(features, early), planes)
            assert not torch.equal(generator.planes(features, late), planes)


def test_T9_labels_are_poses_at_the_generators_radius() -> None:
    labels = torch.cat([tiny_labels(5), canonical_label()])
    cam2world, intrinsics = split_label(labels)
    torch.testing.assert_close(cam2world[:, :3, 3].norm(dim=1), torch.full((6,), 2.7))
    rotation = cam2world[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(6, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(6))
    assert intrinsics[0].flatten().tolist() == pytest.approx([4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1])
    assert torch.equal(mirror_label(mirror_label(labels)), labels)
    assert not torch.equal(mirror_label(labels), labels)
    mirrored, _ = split_label(mirror_label(labels))
    torch.testing.assert_close(torch.linalg.det(mirrored[:, :3, :3]), torch.ones(6))


def test_T10_the_canonical_pose_does_not_depend_on_the_point_looked_at() -> None:
    half = torch.pi / 2
    poses = [look_at(half, half, pivot, 2.7) for pivot in ((0.0, 0.0, 0.0), (0.0, 0.0, 0.2))]
    expected = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    expected[2, 3] = 2.7
    for pose in poses:
        torch.testing.assert_close(pose[0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(split_label(canonical_label())[0][0], expected)


@pytest.mark.parametrize("value", [1.0, 0.0])
def test_T14_all_visible_renders_the_refined_planes_and_nothing_visible_the_coded(goae: GOAE, value: float) -> None:
    image, c = tiny_images(), tiny_labels()
    with torch.no_grad():
        out = goae(image, c)
        mixed = mix_planes(out.planes_w, out.planes_f, torch.full_like(out.visibility, value))
    assert torch.equal(mixed, out.planes_f if value else out.planes_w)


def test_no_mixing_refines_everything() -> None:
    goae = tiny_goae(GOAEConfig(mix=MixConfig(planes="none")))
    with torch.no_grad():
        out = goae(tiny_images(), tiny_labels())
    assert torch.equal(out.planes_mix, out.planes_f)


def test_stage_two_gradients_reach_feature_alignment_alone() -> None:
    goae = tiny_goae().train()
    assert not goae.generator.training and goae.afa.training
    image, c = tiny_images(), tiny_labels()
    with torch.no_grad():
        code = goae.invert_w(image, c)
    refined = goae.refine_planes(image, code)
    mixed = goae.mix(code.planes, refined.planes, c)
    view = goae.render(mixed.planes, code.ws, c)
    (view.image.square().mean() + view.image_depth.mean()).backward()
    assert not mixed.visibility.requires_grad
    assert all(p.grad is None and not p.requires_grad for p in goae.generator.parameters())
    assert all(p.grad is None for p in goae.encoder.parameters())
    silent = [n for n, p in goae.afa.named_parameters() if p.grad is None]
    assert silent == [] and sum(p.grad.abs().sum() for p in goae.afa.parameters()) > 0


def test_gradients_flow_through_visible_texels_only(goae: GOAE) -> None:
    image, c = tiny_images(1), tiny_labels(1)
    with torch.no_grad():
        code = goae.invert_w(image, c)
        planes_f = goae.refine_planes(image, code).planes
    planes_f.requires_grad_()
    mixed = goae.mix(code.planes, planes_f, c)
    mixed.planes.sum().backward()
    torch.testing.assert_close(planes_f.grad, mixed.visibility.expand_as(planes_f))


def test_encoder_gradients_pass_the_generator(goae: GOAE) -> None:
    goae.encoder.zero_grad()
    code = goae.invert_w(tiny_images(1), tiny_labels(1))
    code.view.image.square().mean().backward()
    assert sum(float(p.grad.abs().sum()) for p in goae.encoder.parameters() if p.grad is not None) > 0
    goae.encoder.zero_grad(set_to_none=True)


def test_eq10_adds_the_feature_difference(goae: GOAE) -> None:
    ws = torch.randn(2, 8, 32)
    star, delta = torch.randn(2, 16, 8, 8), 0.5 * torch.randn(2, 8, 32)
    with torch.no_grad():
        edited, refined = goae.edit_features(star, ws, ws + delta)
        source, target = (goae.generator.features(w, 8) for w in (ws, ws + delta))
    expected = star.double() + target.x.double() - source.x.double()
    torch.testing.assert_close(refined.x.double(), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(refined.skip, target.skip) and torch.equal(edited.x, target.x)
    assert not torch.equal(refined.skip, source.skip)


def test_depth_comes_from_the_configured_planes(goae: GOAE) -> None:
    image, c = tiny_images(), tiny_labels()
    from_w = tiny_goae(GOAEConfig(mix=MixConfig(depth_from="w+")), generator=goae.generator)
    with torch.no_grad():
        out = goae(image, c)
        args = (out.planes_w, out.planes_f, c)
        assert torch.equal(goae.visibility(*args), goae.visibility(out.planes_f, out.planes_f, c))
        assert torch.equal(from_w.visibility(*args), from_w.visibility(out.planes_w, out.planes_w, c))
        assert not torch.equal(goae.visibility(*args), from_w.visibility(*args))


def test_masks_follow_the_axes_of_the_generator() -> None:
    image, c = tiny_images(1), tiny_labels(1)
    masks = {}
    for axes in ("xy,xz,zx", "xy,xz,zy"):
        with torch.no_grad():
            masks[axes] = tiny_goae(generator=tiny_generator(axes))(image, c).visibility
    published, corrected = masks.values()
    assert torch.equal(published[:, 2], published[:, 1].mT)
    assert not torch.equal(corrected[:, 2], corrected[:, 1].mT)


def test_uniforms_of_the_depth_render_can_be_injected() -> None:
    goae = tiny_goae(GOAEConfig(mix=MixConfig(depth_resolution=16)))
    c = tiny_labels()
    with torch.no_grad():
        planes = goae.invert_w(tiny_images(), c).planes
        plain = goae.visibility(planes, planes, c)
        injected = goae.visibility(planes, planes, c, uniforms=midpoint_uniforms(2, 256, 6, 6))
        jittered = goae.visibility(planes, planes, c, uniforms=torch.Generator().manual_seed(0))
    assert torch.equal(plain, injected) and not torch.equal(plain, jittered)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Of masks (B, 3, 1, P, P): (B, 3)."""
    return (torch.minimum(a, b).sum((-3, -2, -1)) / torch.maximum(a, b).sum((-3, -2, -1))).view(-1, 3)


def masks_of(goae: GOAE, planes: Tensor, c: Tensor, *choices: MixConfig) -> list[Tensor]:
    """Visibility by each choice."""
    modules = (goae.generator, goae.encoder, goae.afa)
    with torch.no_grad():
        return [GOAE(*modules, GOAEConfig(mix=mix)).visibility(planes, planes, c) for mix in choices]


SILHOUETTES = MixConfig(depth_rays="silhouettes")


def test_interpolated_masks_of_mini_heads_are_nearly_the_dense_ones() -> None:
    """Heads of the shipped generator, planes of 64² filled up to 128²; 0.993 and more were measured at 256²."""
    run = MINI / "runs" / "mini_long-seed0"
    weights = {name: run / f"{name}.safetensors" for name in ("encoder", "refiner")}
    goae = load_inverter(generator=MINI / "generator.safetensors", **weights).goae
    generator = goae.generator
    c, z = tiny_labels(2), torch.randn(2, generator.config.z_dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ws = generator.mapping(z, c)
        planes = generator.planes(generator.features(ws, generator.config.plane_resolution), ws)
        filled = interpolate(planes.flatten(1, 2), (128, 128), mode="bilinear").unflatten(1, planes.shape[1:3])
    dense, found = masks_of(goae, filled, c, MixConfig(), SILHOUETTES)
    overlap = iou(dense, found)
    assert float(overlap.min()) > 0.97 and not torch.equal(dense, found), overlap
    assert torch.equal(found, masks_of(goae, filled, c, SILHOUETTES)[0])
    rows = [masks_of(goae, filled[i : i + 1], c[i : i + 1], SILHOUETTES)[0] for i in range(2)]
    assert torch.equal(found, torch.cat(rows))


def test_every_ray_is_rendered_where_every_depth_jumps(goae: GOAE) -> None:
    c = tiny_labels()
    with torch.no_grad():
        planes = goae.invert_w(tiny_images(), c).planes
    dense, found = masks_of(goae, planes, c, MixConfig(), MixConfig(depth_rays="silhouettes", depth_jump=0.0))
    assert torch.equal(dense, found)


def test_numbers_for_dense_rays_do_not_fit_silhouettes(goae: GOAE) -> None:
    planes, c = torch.zeros(2, 3, 32, 32, 32), tiny_labels()
    sparse = GOAE(goae.generator, goae.encoder, goae.afa, preset("paper"))
    with pytest.raises(ValueError, match=r"mix\.depth_rays=dense"):
        sparse.visibility(planes, planes, c, uniforms=midpoint_uniforms(2, 4096, 6, 6))


def test_stored_choices_without_rays_mean_all_of_them() -> None:
    """What was trained before there was a choice keeps its mask, and so do the mini experiments."""
    path = MINI / "runs" / "mini_long-seed0" / "refiner.json"
    stored = json.loads(path.read_text())["goae"]
    assert "depth_rays" not in stored["mix"]
    assert restore(GOAEConfig, stored).mix.depth_rays == "dense"
    for name in ("mini", "mini_long", "mini_ablation"):
        assert composed_as(TrainConfig, f"experiment={name}").goae == restore(GOAEConfig, stored), name


def test_random_blurs_are_injected_or_drawn_with_a_fixed_seed() -> None:
    goae, image, c = tiny_goae(preset("official"), variant="official"), tiny_images(), tiny_labels()
    sigmas = [draw_sigmas(goae.config.mix, 2, torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    with torch.no_grad():
        plain, *drawn = (goae(image, c, sigmas=given).visibility for given in (None, *sigmas))
    assert torch.equal(plain, drawn[0]) and not torch.equal(plain, drawn[1])
    assert (plain[:, 1:] == 1).all() and 0 < plain[:, 0].mean() < 1
    assert ((plain > 0) & (plain < 1)).any()


def test_encoder_input_is_resized_as_photos_are(goae: GOAE) -> None:
    image = tiny_images(size=64)
    assert torch.equal(goae.encoder_input(image), photos(image, 64, 32)[1])
    small = image[..., ::2, ::2]
    assert goae.encoder_input(small) is small and goae.encoder_input(image[..., :48, :48]).shape == (2, 3, 32, 32)
    for bad, told in ((image[..., :48], "64 x 48"), (image[..., :16, :16], "16 x 16")):
        with pytest.raises(ValueError, match=f"{told} pixels; the encoder takes square ones of at least 32 x 32"):
            goae.encoder_input(bad)


def test_networks_that_do_not_fit_are_refused(goae: GOAE) -> None:
    afa = AFA(dataclasses.replace(goae.afa.config, image_resolution=64))
    with pytest.raises(ValueError, match=r"afa\.image_resolution and generator\.image_resolution: 64 and 32"):
        GOAE(goae.generator, goae.encoder, afa, GOAEConfig())
    afa = AFA(dataclasses.replace(goae.afa.config, feature_resolution=32, token_ratio=1))
    with pytest.raises(ValueError, match=r"afa\.feature_resolution 32 is not below 32"):
        GOAE(goae.generator, goae.encoder, afa, GOAEConfig())
    encoder = Encoder(goae.encoder.config, 10, 32)
    with pytest.raises(ValueError, match="rows of ws, encoder and generator: 10 and 8"):
        GOAE(goae.generator, encoder, goae.afa, GOAEConfig())


def test_unknown_choices_are_refused() -> None:
    with pytest.raises(ValueError, match="edit_late_rows"):
        GOAEConfig(edit_late_rows="none")
    with pytest.raises(ValueError, match="paper, official"):
        preset("released")


D_ROWS: dict[str, Callable[[GOAEConfig], tuple[object, object]]] = {
    # row of the table of differences: the paper's value and the release's
    "D3": lambda config: (config.mix.planes, ("xyz", "xy")),
    "D4": lambda config: (config.mix.close, ("morph", "blur")),
    "D5": lambda config: (config.mix.sigma, (1.5, None)),
    "D6": lambda config: (config.mix.oob, ("drop", "clamp")),
    "D7": lambda config: (config.mix.depth_from, ("F*", "F*")),
    "D9": lambda config: (config.mix.input_view, ("mix", "F*")),
    "D15": lambda config: (config.edit_late_rows, ("edited", "source")),
    "D16": lambda config: (config.edit_glass_comp, (0.0, 0.8)),
    "4.4, threshold": lambda config: (config.mix.threshold, (0.35, 0.35)),
    "4.4, kernel": lambda config: (config.mix.kernel_for(256), (9, 9)),
    "4.4, depth": lambda config: (config.mix.depth_resolution_for(256), (512, 128)),
}


@pytest.mark.parametrize("row", D_ROWS)
def test_presets_reproduce_the_two_columns(row: str) -> None:
    for index, name in enumerate(("paper", "official")):
        value, columns = D_ROWS[row](preset(name))
        assert value == columns[index], (row, name)  # type: ignore[index]


@pytest.mark.parametrize("name", ["paper", "official"])
def test_preset_files_say_what_the_presets_are(name: str) -> None:
    path: Path = CONFIGS / "preset" / f"{name}.yaml"
    assert path.read_text().startswith("# @package _global_\n")
    values = OmegaConf.load(path)
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(GOAEConfig), values.goae))
    assert config == preset(name)
    assert values.afa.variant == name
    # every choice is written out, so that one preset replaces the other whole
    assert set(values.goae) == {field.name for field in dataclasses.fields(GOAEConfig)}
    assert set(values.goae.mix) == {field.name for field in dataclasses.fields(MixConfig)}
