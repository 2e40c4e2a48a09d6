"""Pose conditions: the depth gap of known maps, what a condition changes, and how views of a head are compared."""

import pytest
import torch
from eg3d.cameras import canonical_label, split_label
from tiny import tiny_generator
from torch.nn.functional import normalize

from goae.evaluation.conditions import (
    ConditionsConfig,
    Heads,
    depth_gap,
    heads_under,
    label_at,
    latents,
    measure_heads,
)

YAWS = [-45.0, 0.0, 45.0]


def test_the_gap_of_known_depths() -> None:
    background = torch.ones(2, 1, 8, 8)
    background[:, :, 2:7, 2:7] = 0
    depth = torch.where(background == 1, 3.1, torch.tensor([2.6, 2.9]).view(2, 1, 1, 1))
    assert depth_gap(depth, background).tolist() == pytest.approx([0.5, 0.2], abs=1e-6)
    soft = torch.nn.functional.avg_pool2d(depth, 3, 1, 1, count_include_pad=False)  # a silhouette that blends
    assert depth_gap(soft, background).tolist() != pytest.approx([0.5, 0.2], abs=1e-3)
    assert depth_gap(soft, background, erode=1).tolist() == pytest.approx([0.5, 0.2], abs=1e-6)
    assert depth_gap(depth[..., ::2, ::2], background).tolist() == pytest.approx([0.5, 0.2], abs=1e-6)


def test_without_head_or_background_there_is_no_gap() -> None:
    depth = torch.rand(1, 1, 4, 4)
    assert depth_gap(depth, torch.ones(1, 1, 4, 4)).isnan().all()
    assert depth_gap(depth, torch.zeros(1, 1, 4, 4)).isnan().all()


def test_a_condition_reaches_the_mapping_alone() -> None:
    generator, config = tiny_generator(), ConditionsConfig(num_z=3, batch_size=2)
    z = torch.cat(list(latents(generator, config)))
    assert z.shape == (3, 16) and torch.equal(z, torch.cat(list(latents(generator, ConditionsConfig(num_z=3)))))
    turned, front = (heads_under(generator, z, condition, YAWS) for condition in (-45.0, 0.0))
    assert turned.images.shape == (3, 3, 3, 32, 32) and turned.depths.shape == (3, 3, 1, 16, 16)
    assert not torch.equal(turned.planes, front.planes)
    with torch.no_grad():
        ws = generator.mapping(z, label_at(-45.0, generator).expand(3, -1))
        for i, yaw in enumerate(YAWS):
            expected = generator.synthesis(ws, label_at(yaw, generator).expand(3, -1))
            assert torch.equal(turned.images[i], expected.image) and torch.equal(turned.planes, expected.planes)
            assert torch.equal(turned.depths[i], expected.image_depth)


def test_labels_turn_around_the_head() -> None:
    generator = tiny_generator()
    assert torch.allclose(label_at(0.0, generator), canonical_label())
    centre = split_label(label_at(45.0, generator))[0][0, :3, 3]
    assert centre.tolist() == pytest.approx([2.7 * 0.5**0.5, 0.0, 2.7 * 0.5**0.5], abs=1e-6)


def test_identity_is_the_mean_cosine_with_the_front_view() -> None:
    directions = normalize(torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0)), dim=2)
    images = torch.zeros(3, 2, 3, 4, 4)
    images[:, :, 0, 0, 0] = torch.arange(6.0).view(3, 2) / 10
    depth = torch.rand(3, 2, 1, 4, 4)
    background = (torch.arange(4) < 2).float().expand(2, 1, 4, 4)
    seen = []

    def embed(image: torch.Tensor) -> torch.Tensor:
        rows = (image[:, 0, 0, 0] * 10).round().long()
        return directions.flatten(0, 1)[rows]

    def segment(image: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
        seen.append(image)
        return background

    found = measure_heads(Heads(torch.zeros(()), images, depth), YAWS, embed=embed, segment=segment, erode=0)
    cosines = [(directions[1] * directions[i]).sum(1) for i in (0, 2)]
    assert torch.allclose(found.identity, (cosines[0] + cosines[1]) / 2)
    assert torch.equal(found.depth_gap, depth_gap(depth[1], background)) and torch.equal(seen[0], images[1])


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"conditions\.yaws is \[-45\.0, 45\.0\]; expected 0 and others"):
        ConditionsConfig(yaws=[-45.0, 45.0])
    with pytest.raises(ValueError, match=r"conditions\.num_z 1"):
        ConditionsConfig(num_z=1)
