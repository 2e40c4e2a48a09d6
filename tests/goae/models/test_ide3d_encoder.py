"""IDE-3D's encoder: what each half sees and writes."""

import dataclasses

import pytest
import torch
from tiny import BRIGHTNESS, tiny_images, tiny_rival

from goae.extractors.mini import MiniPerception
from goae.models.ide3d_encoder import IDE3DEncoder, PartParser


def within_labels(image: torch.Tensor) -> torch.Tensor:
    """Other colours with the labels of `BRIGHTNESS`: bright pixels brighter, dark ones darker."""
    return torch.where(image.mean(1, keepdim=True).abs() > 0.2, 1.5 * image, image)


def test_leading_rows_follow_the_part_labels_and_the_others_the_image() -> None:
    """Stronger colours within a label leave the leading rows as they are; a mirrored image changes all rows."""
    inverter, image = tiny_rival("ide3d"), tiny_images()
    with torch.no_grad():
        before, recoloured, flipped = (inverter.encode(x) for x in (image, within_labels(image), image.flip(3)))
    assert torch.equal(inverter.encoder.parts(within_labels(image)), inverter.encoder.parts(image))
    assert torch.equal(recoloured[:, :3], before[:, :3])
    assert all(not torch.allclose(recoloured[:, row], before[:, row]) for row in range(3, 8))
    assert all(not torch.allclose(flipped[:, row], before[:, row]) for row in range(8))


def test_the_semantic_encoder_may_see_the_image_too() -> None:
    inverter, image = tiny_rival("ide3d"), tiny_images()
    config = dataclasses.replace(inverter.encoder.config, geometry_sees="both")
    encoder = IDE3DEncoder(config, 8, 32, BRIGHTNESS).eval()
    assert encoder.semantic.in_channels == 3 + 3
    with torch.no_grad():
        assert not torch.allclose(encoder(within_labels(image))[:, :3], encoder(image)[:, :3])


def test_parts_are_shares_of_pixels() -> None:
    """Labels at twice the encoder's resolution are averaged over 2 x 2 pixels."""
    labels = torch.tensor([[0, 0, 1, 1], [0, 2, 1, 1], [2, 2, 0, 1], [2, 2, 1, 0]]).repeat(16, 16)

    def logits(image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(labels, 3).movedim(-1, 0).float().expand(len(image), -1, -1, -1)

    sizes = tiny_rival("ide3d").encoder.config
    parts = IDE3DEncoder(sizes, 8, 32, PartParser(logits, 3)).parts(tiny_images(2))
    assert parts.shape == (2, 3, 32, 32)
    assert parts[0, :, 0, 0].tolist() == [0.75, 0.0, 0.25] and parts[1, :, 1, 1].tolist() == [0.5, 0.5, 0.0]
    assert torch.equal(parts.sum(1), torch.ones(2, 32, 32))


def test_gradients_reach_both_trunks_and_not_the_parser() -> None:
    parser = MiniPerception()
    sizes = tiny_rival("ide3d").encoder.config
    encoder = IDE3DEncoder(sizes, 8, 32, PartParser(parser.parts, 11))
    assert not any("parser" in name for name in encoder.state_dict())
    assert all(p.requires_grad for p in encoder.parameters())
    encoder(tiny_images()).square().sum().backward()
    for half in (encoder.semantic, encoder.texture):
        assert half.trunk.input_layer[0].weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in parser.parameters())


@pytest.mark.parametrize("rows", [0, 8])
def test_both_halves_need_rows(rows: int) -> None:
    config = dataclasses.replace(tiny_rival("ide3d").encoder.config, geometry_rows=rows)
    with pytest.raises(ValueError, match=r"rival\.geometry_rows"):
        IDE3DEncoder(config, 8, 32, BRIGHTNESS)
