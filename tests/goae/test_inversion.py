"""Invert, render, edit, save and load."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from damage import flips, unnoticed
from eg3d.cameras import split_label
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import tiny_generator, tiny_goae, tiny_images, tiny_labels

from goae.inversion import Inversion, Inverter
from goae.models.goae import GOAEConfig, preset
from goae.models.occlusion import MixConfig


@pytest.fixture(scope="module")
def inverter() -> Inverter:
    return Inverter(tiny_goae())


@pytest.fixture(scope="module")
def official() -> Inverter:
    return Inverter(tiny_goae(preset("official"), variant="official"))


@pytest.fixture(scope="module")
def inversion(inverter: Inverter) -> Inversion:
    return inverter.invert(tiny_images(), tiny_labels())


def same(a: Inversion, b: Inversion) -> None:
    for field in dataclasses.fields(Inversion):
        x, y = getattr(a, field.name), getattr(b, field.name)
        assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y, field.name


def test_inversion_is_the_forward_pass(inverter: Inverter, inversion: Inversion) -> None:
    with torch.no_grad():
        out = inverter.goae(tiny_images(), tiny_labels())
    assert torch.equal(inversion.ws, out.ws) and torch.equal(inversion.features, out.features.x)
    assert torch.equal(inversion.planes, out.planes_mix) and torch.equal(inversion.visibility, out.visibility)
    torch.testing.assert_close(inverter.reconstruct(inversion).image, out.view.image)
    assert torch.equal(inverter.reconstruct(inversion).image, inverter.render(inversion, inversion.c).image)


def test_invert_does_not_depend_on_what_was_inverted_before(inverter: Inverter, inversion: Inversion) -> None:
    inverter.invert(-tiny_images(1), tiny_labels(1))
    same(inverter.invert(tiny_images(), tiny_labels()), inversion)


def test_the_input_view_of_the_release_is_not_mixed(official: Inverter) -> None:
    inversion = official.invert(tiny_images(), tiny_labels())
    with torch.no_grad():
        out = official.goae(tiny_images(), tiny_labels(), sigmas=inversion.sigmas)
    torch.testing.assert_close(official.reconstruct(inversion).image, out.view.image)
    mixed = official.render(inversion, inversion.c).image
    assert (mixed - official.reconstruct(inversion).image).abs().max() > 1e-3


def test_random_blurs_are_repeatable(official: Inverter) -> None:
    image, c = tiny_images(), tiny_labels()
    first, again, other = (official.invert(image, c, seed=seed) for seed in (0, 0, 1))
    same(first, again)
    assert not torch.equal(first.sigmas, other.sigmas) and not torch.equal(first.visibility, other.visibility)
    fixed = official.invert(image, c, sigmas=torch.full((2, 2), 1.5))
    assert (fixed.sigmas == 1.5).all()


def test_views_of_many_cameras(inverter: Inverter, inversion: Inversion) -> None:
    cameras = tiny_labels(5)
    one = inverter.invert(tiny_images()[:1], tiny_labels()[:1])
    assert inverter.render(one, cameras).image.shape == (5, 3, 32, 32)
    view = inverter.render(inversion, cameras[0])
    assert view.image.shape == (2, 3, 32, 32) and view.image_raw.shape == (2, 3, 16, 16)
    assert inverter.render(inversion, cameras[0], resolution=8).image_depth.shape == (2, 1, 8, 8)
    with pytest.raises(ValueError, match="5 camera labels were given for 2 images"):
        inverter.render(inversion, cameras)


@pytest.mark.parametrize("late_rows", ["edited", "source"])
@pytest.mark.parametrize("which", ["inverter", "official"])
def test_T13_a_zero_direction_gives_the_plain_inversion(
    which: str, late_rows: str, request: pytest.FixtureRequest
) -> None:
    inverter: Inverter = request.getfixturevalue(which)
    plain = inverter.invert(tiny_images(), tiny_labels())
    edited = inverter.edit(plain, torch.zeros(8, 32), late_rows=late_rows)
    same(edited, dataclasses.replace(plain, edited=True))
    mixed = inverter.render(plain, plain.c).image
    assert torch.equal(inverter.render(edited, plain.c).image, mixed)
    assert torch.equal(inverter.reconstruct(edited).image, mixed)  # where F* shows it plain, too


def test_edit_follows_equation_10(inverter: Inverter, inversion: Inversion) -> None:
    goae, generator = inverter.goae, inverter.goae.generator
    delta = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    edited = inverter.edit(inversion, delta)
    ws = inversion.ws + delta
    with torch.no_grad():
        source, target = generator.features(inversion.ws, 8), generator.features(ws, 8)
        star = type(target)(inversion.features + target.x - source.x, target.skip)
        planes_w, planes_f = generator.planes(target, ws), generator.planes(star, ws)
        mixed = goae.mix(planes_w, planes_f, inversion.c)
    torch.testing.assert_close(edited.features, star.x)
    torch.testing.assert_close(edited.ws, ws)
    assert torch.equal(edited.late_ws, edited.ws)
    torch.testing.assert_close(edited.planes, mixed.planes, atol=1e-4, rtol=1e-4)
    assert not torch.equal(inverter.render(edited, inversion.c).image, inverter.render(inversion, inversion.c).image)


def test_late_rows_decide_the_refined_planes_only(inverter: Inverter, inversion: Inversion) -> None:
    delta = torch.zeros(8, 32)
    delta[6:] = 1.0  # rows above F
    edited, source = (inverter.edit(inversion, delta, late_rows=rows) for rows in ("edited", "source"))
    assert torch.equal(edited.ws, source.ws) and torch.equal(edited.features, source.features)
    assert torch.equal(source.late_ws, inversion.ws)
    assert not torch.equal(edited.planes, source.planes)
    early = torch.zeros(8, 32)
    early[:3] = 1.0  # rows below F
    same_planes = [inverter.edit(inversion, early, late_rows=rows).planes for rows in ("edited", "source")]
    assert torch.equal(*same_planes)


def test_configured_late_rows_are_the_default(official: Inverter) -> None:
    plain, delta = official.invert(tiny_images(), tiny_labels()), torch.ones(2, 8, 32)
    same(official.edit(plain, delta), official.edit(plain, delta, late_rows="source"))


def test_opposite_edits_cancel(inverter: Inverter, inversion: Inversion) -> None:
    delta = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(1))
    back = inverter.edit(inverter.edit(inversion, delta), -delta)
    torch.testing.assert_close(back.ws, inversion.ws, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(back.features, inversion.features, atol=1e-3, rtol=1e-3)


def test_edit_refuses_wrong_shapes(inverter: Inverter, inversion: Inversion) -> None:
    with pytest.raises(ValueError, match="delta_ws has shape"):
        inverter.edit(inversion, torch.zeros(16))
    with pytest.raises(ValueError, match="late_rows"):
        inverter.edit(inversion, torch.zeros(8, 32), late_rows="both")


@pytest.mark.parametrize("which", ["inverter", "official"])
@pytest.mark.parametrize("edited", [False, True])
def test_a_saved_inversion_comes_back_bit_by_bit(
    which: str, edited: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    inverter: Inverter = request.getfixturevalue(which)
    inversion = inverter.invert(tiny_images(), tiny_labels())
    if edited:
        inversion = inverter.edit(inversion, 0.5 * torch.ones(8, 32))
    inversion.save(tmp_path / "head.safetensors")
    same(Inversion.load(tmp_path / "head.safetensors", inverter), inversion)
    with safe_open(tmp_path / "head.safetensors", framework="pt") as file:
        assert "planes" not in file.keys()  # noqa: SIM118, not a mapping


def test_files_of_other_generators_and_damaged_files_are_refused(
    inverter: Inverter, inversion: Inversion, tmp_path: Path
) -> None:
    path = tmp_path / "head.safetensors"
    inversion.save(path)
    assert not unnoticed(path, lambda: Inversion.load(path, inverter), flips(path, 50))
    generator = tiny_generator()
    with torch.no_grad():
        next(generator.parameters()).add_(1e-3)
    other = Inverter(tiny_goae(generator=generator))
    with pytest.raises(ValueError, match=rf"{inversion.generator[:12]}.*{other.generator_hash[:12]}"):
        Inversion.load(path, other)
    with pytest.raises(FileNotFoundError, match="no inversion"):
        Inversion.load(tmp_path / "none.safetensors", inverter)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="damaged"):
        Inversion.load(path, inverter)
    save_file({"ws": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="no inversion"):
        Inversion.load(path, inverter)


def test_results_carry_no_gradient_and_the_networks_are_in_evaluation_mode() -> None:
    goae = tiny_goae().train()
    inverter = Inverter(goae)
    assert not goae.encoder.training and not goae.afa.training
    assert not inverter.invert(tiny_images(1), tiny_labels(1)).planes.requires_grad


def test_bad_labels_are_refused(inverter: Inverter) -> None:
    image, c = tiny_images(), tiny_labels()
    with pytest.raises(ValueError, match="25 numbers"):
        inverter.invert(image, c[:, :16])
    far = c.clone()
    far[:, [3, 7, 11]] *= 1.1
    with pytest.raises(ValueError, match=r"2\.97 from the origin"):
        inverter.invert(image, far)
    with pytest.raises(ValueError, match="3 camera labels were given for 2 images"):
        inverter.invert(image, tiny_labels(3))
    assert torch.equal(inverter.invert(image, c[0]).c[1], c[0])
    assert split_label(inverter.invert(image, c).c)[0].shape == (2, 4, 4)


def test_mask_switches_reach_the_inversion() -> None:
    inverter = Inverter(tiny_goae(GOAEConfig(mix=MixConfig(planes="none"))))
    assert (inverter.invert(tiny_images(1), tiny_labels(1)).visibility == 1).all()


def test_labels_and_images_are_taken_as_lists_and_arrays(inverter: Inverter, inversion: Inversion) -> None:
    image, c = tiny_images(), tiny_labels()
    for given in (c.tolist(), c.numpy(), list(c), c.double()):
        same(inverter.invert(list(image), given), inversion)
    assert torch.equal(inverter.render(inversion, c.tolist()).image, inverter.render(inversion, c).image)
    delta = torch.ones(8, 32)
    same(inverter.edit(inversion, delta.numpy()), inverter.edit(inversion, delta))


WRONG: dict[str, tuple[Callable[[Inverter, Inversion], object], str]] = {
    "no label": (lambda i, _: i.invert(tiny_images(), None), "camera label is of type NoneType"),
    "text": (lambda i, _: i.invert(tiny_images(), "1, 0"), "camera label is of type str"),
    "ragged": (lambda i, _: i.invert(tiny_images(), [[1.0], [1.0, 2.0]]), "camera label is of type list"),
    "complex": (lambda i, _: i.invert(tiny_images(), tiny_labels().to(torch.complex64)), "complex64; expected 25"),
    "pose alone": (lambda i, _: i.invert(tiny_images(), torch.eye(4)), "25 numbers"),
    "sigmas": (lambda i, _: i.invert(tiny_images(), tiny_labels(), sigmas=1.5), r"sigmas has shape \(\); expected"),
    "seed": (lambda i, _: i.invert(tiny_images(), tiny_labels(), seed="a"), "seed is 'a'; expected an integer"),
    "no inversion": (lambda i, _: i.render(tiny_images(), tiny_labels()), "inversion is of type Tensor"),
    "no inversion to edit": (lambda i, _: i.edit(None, torch.zeros(8, 32)), "inversion is of type NoneType"),
    "no inversion to show": (lambda i, _: i.reconstruct("head"), "inversion is of type str"),
    "resolution": (lambda i, h: i.render(h, tiny_labels(), resolution=8.5), r"resolution is 8\.5; expected an integer"),
    "no direction": (lambda i, h: i.edit(h, None), "delta_ws is of type NoneType"),
    "three directions": (lambda i, h: i.edit(h, torch.zeros(3, 8, 32)), r"delta_ws has shape \(3, 8, 32\); expected"),
    "direction": (lambda i, h: i.edit(h, torch.full((8, 32), float("nan"))), "the inversion is not finite"),
    "no path": (lambda _, h: h.save(None), "path is of type NoneType"),
    "no path to load": (lambda i, _: Inversion.load(None, i), "path is of type NoneType"),
    "no inverter": (lambda _, h: Inversion.load("a", None), "inverter is of type NoneType"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_named(case: str, inverter: Inverter, inversion: Inversion) -> None:
    call, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        call(inverter, inversion)


@pytest.mark.parametrize("part", ["generator.superresolution", "generator.backbone", "encoder", "afa"])
def test_weights_that_are_no_numbers_give_no_black_pictures(part: str) -> None:
    inverter = Inverter(tiny_goae())
    with torch.no_grad():
        for parameter in inverter.goae.get_submodule(part).parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(ValueError, match="is not finite: weights or a direction hold NaN or Inf"):
        inverter.reconstruct(inverter.invert(tiny_images(1), tiny_labels(1)))


def test_folders_are_made_and_not_written_over(inversion: Inversion, tmp_path: Path) -> None:
    inversion.save(tmp_path / "new" / "head.safetensors")
    with pytest.raises(ValueError, match=r"new is a folder; give the name of a file in it"):
        inversion.save(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ws", torch.zeros(2, 7, 32)),
        ("late_ws", torch.zeros(2, 8, 31)),
        ("c", torch.zeros(2, 16)),
        ("features", torch.zeros(2, 3, 8, 8)),
        ("features", torch.zeros(8)),
        ("visibility", torch.zeros(2, 5, 1, 32, 32)),
        ("sigmas", torch.zeros(1)),
        ("ws", torch.full((2, 8, 32), float("nan"))),
    ],
)
def test_stored_parts_that_do_not_fit_are_refused(
    name: str, value: torch.Tensor, inverter: Inverter, inversion: Inversion, tmp_path: Path
) -> None:
    path = tmp_path / "head.safetensors"
    dataclasses.replace(inversion, **{name: value}).save(path)
    with pytest.raises(ValueError, match=r"head\.safetensors cannot be used"):
        Inversion.load(path, inverter)
