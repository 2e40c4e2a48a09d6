"""The plain networks give what the library's give, so that their times may be compared."""

import pytest
import torch
from eg3d.cameras import join_label, pose_from_angles, split_label
from parity import seeded
from tiny import tiny_goae, tiny_images, tiny_labels

from goae.benchmark.original import ALL_POINTS, invert_and_view, plain_goae
from goae.inversion import Inverter
from goae.models.goae import GOAE, preset

TOLERANCE = 2e-5  # rounding of float32 through some ten layers, relative to the largest value
IMAGE_TOLERANCE = 1e-4  # through a whole inversion: a photo's last bit alone moves the plain image by up to 3e-5


def assert_equal(ours: torch.Tensor, plain: torch.Tensor, tolerance: float = TOLERANCE) -> None:
    scale = float(plain.abs().max())
    assert scale > 0
    assert float((ours - plain).abs().max()) <= tolerance * scale


@pytest.fixture(scope="module")
def official() -> GOAE:
    return tiny_goae(preset("official"), variant="official")


@torch.no_grad()
def test_the_encoder(official: GOAE) -> None:
    assert_equal(official.encode(tiny_images()), plain_goae(official).encode(tiny_images()))


@torch.no_grad()
@pytest.mark.parametrize("variant", ["official", "paper", "conv"])
def test_feature_alignment(variant: str) -> None:
    goae = tiny_goae(variant=variant)
    features = seeded("features", [2, goae.afa.config.feature_channels, *2 * [goae.feature_resolution]])
    inputs = (tiny_images(), tiny_images().flip(3), features)
    for ours, plain in zip(goae.afa(*inputs), plain_goae(goae).afa(*inputs), strict=True):
        assert_equal(ours, plain)


def test_gradients_of_the_encoder(official: GOAE) -> None:
    """In evaluation mode: dropout would draw other numbers."""
    plain = plain_goae(official)
    grads = []
    for goae in (official, plain):
        parameters = list(goae.encoder.requires_grad_(True).parameters())
        grads.append(torch.autograd.grad(goae.encode(tiny_images()).square().sum(), parameters))
    for ours, reference in zip(*grads, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-3, atol=1e-3 * float(reference.abs().max()))


@torch.no_grad()
def test_a_whole_inversion(official: GOAE) -> None:
    image, c = tiny_images(), tiny_labels()
    novel_c = join_label(pose_from_angles(0.4, 0.1), split_label(c[:1])[1]).expand(2, -1)
    inverter = Inverter(official)
    shown = inverter.render(inverter.invert(image, c), novel_c).image
    assert_equal(shown, invert_and_view(plain_goae(official), image, c, novel_c), IMAGE_TOLERANCE)


@torch.no_grad()
def test_the_parts_of_an_inversion(official: GOAE) -> None:
    """Each within the rounding of its own layers: the planes of the code and F*, and an image of equal planes."""
    image, c, plain = tiny_images(), tiny_labels(), plain_goae(official)
    code, plain_code = official.invert_w(image, c), plain.invert_w(image, c)
    assert_equal(code.planes, plain_code.planes)
    planes = official.refine_planes(image, code).planes
    assert_equal(planes, plain.refine_planes(image, plain_code).planes)
    assert_equal(official.render(planes, code.ws, c).image, plain.render(planes, code.ws, c).image)


@torch.no_grad()
def test_a_whole_inversion_by_the_paper() -> None:
    """Its depth has four times the rays of the raw image, some of them interpolated."""
    goae, image, c = tiny_goae(preset("paper")), tiny_images(), tiny_labels()
    inverter = Inverter(goae)
    shown = inverter.render(inverter.invert(image, c), c.flip(0)).image
    assert_equal(shown, invert_and_view(plain_goae(goae), image, c, c.flip(0)), IMAGE_TOLERANCE)


def test_the_plain_generator_holds_all_samples_at_once(official: GOAE) -> None:
    assert plain_goae(official).generator.renderer.points_at_once == ALL_POINTS
