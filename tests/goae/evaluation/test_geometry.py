"""Geometry errors by hand, their invariances, and where references come from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from eg3d.cameras import canonical_label
from torch import Tensor

from goae.evaluation.geometry import (
    DepthFolder,
    DepthMap,
    NetworkDepth,
    TrueDepth,
    along_axis,
    depth_errors,
    geometry_error,
    on_grid,
)
from goae.evaluation.measuring import Measures, Networks
from goae.models.latent_inverter import View


def depths(num: int = 2, side: int = 8) -> Tensor:
    return 2.5 + 0.1 * torch.randn(num, 1, side, side, generator=torch.Generator().manual_seed(0))


def everywhere(depth: Tensor) -> DepthMap:
    return DepthMap(depth, torch.ones_like(depth, dtype=torch.bool))


def test_a_hand_case() -> None:
    """(1, 2, 3, 4) against (1, 1, 3, 3): normalised ±3/√5, ±1/√5 and ±1; the mean squared difference is 2 − 4/√5."""
    depth = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 2, 2)
    reference = torch.tensor([1.0, 1.0, 3.0, 3.0]).view(1, 1, 2, 2)
    assert float(geometry_error(depth, everywhere(reference), 2)) == pytest.approx(2 - 4 / 5**0.5)


def test_scale_and_place_do_not_count_but_the_sign_does() -> None:
    depth = depths()
    torch.testing.assert_close(
        geometry_error(depth, everywhere(7 + 3 * depth), 8), torch.zeros(2).double(), atol=1e-9, rtol=0
    )
    # the negative of unit variance: (2x)² has mean 4
    torch.testing.assert_close(geometry_error(depth, everywhere(-depth), 8), torch.full((2,), 4.0).double())


def test_depth_along_the_ray_becomes_z_along_the_axis() -> None:
    """A wall at z = 2: the ray of a pixel (x, y) from the centre, in focal lengths, is longer by √(1 + x² + y²)."""
    c = canonical_label()
    focal, centres = float(c[0, 16]), (torch.arange(8) + 0.5) / 8 - 0.5
    longer = (1 + (centres[:, None] / focal) ** 2 + (centres[None] / focal) ** 2).sqrt()
    torch.testing.assert_close(along_axis(2 * longer[None, None], c), torch.full((1, 1, 8, 8), 2.0))


def test_maps_of_z_are_compared_with_z(tmp_path: Path) -> None:
    c, z = canonical_label(), depths(1)
    distance = z / along_axis(torch.ones_like(z), c)
    np.savez(tmp_path / "a.npz", depth=z[0, 0].numpy())
    batch = {"image": torch.zeros(1, 3, 16, 16), "name": ["a"], "c": c}
    found = {}
    for sign in ("z", "distance"):
        maps = DepthFolder(tmp_path, sign)
        networks = Networks(lambda a, b: a.mean((1, 2, 3)), None, None, torch.flatten, None, maps, False)
        view = View(batch["image"], batch["image"], distance)
        found[sign] = float(Measures(networks, resolution=16, grid=8)(view, batch)["geo"])
    assert found["z"] == pytest.approx(0.0, abs=1e-6) and found["distance"] > 1e-4


def test_only_the_region_counts_for_statistics_and_error() -> None:
    depth, reference = depths(), depths().flip(0)
    region = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    region[..., 2:6, 1:5] = True
    found = geometry_error(depth, DepthMap(reference, region), 8)
    alone = geometry_error(depth[..., 2:6, 1:5], everywhere(reference[..., 2:6, 1:5]), 4)
    torch.testing.assert_close(found, alone)
    depth[~region] = 99
    torch.testing.assert_close(geometry_error(depth, DepthMap(reference, region), 8), found)


def test_what_has_no_error_is_not_a_number() -> None:
    depth, region = depths(3), torch.ones(3, 1, 8, 8, dtype=torch.bool)
    region[0] = False
    reference = depths(3)
    reference[1] = 2.7  # a flat map has no unit variance
    found = geometry_error(depth, DepthMap(reference, region), 8)
    assert found.isnan().tolist() == [True, True, False]


def test_a_constant_shift_inside_the_head_is_the_error() -> None:
    true = torch.full((2, 1, 4, 4), 2.7)
    parts = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    parts[:, :, 1:3, 1:3] = 5
    depth = true + torch.tensor([0.1, -0.3]).view(2, 1, 1, 1)
    depth[:, :, 0] = 9.0  # background does not count
    assert depth_errors(depth, true, parts).tolist() == pytest.approx([0.1, 0.3], abs=1e-6)


def test_a_smaller_render_of_a_slope_is_exact_and_silhouettes_stay_out() -> None:
    x = torch.arange(8.0).expand(1, 1, 8, 8) + 0.5
    true, parts = x.clone(), torch.ones(1, 1, 8, 8, dtype=torch.uint8)
    parts[..., 5:] = 0  # the third block of two is half background
    true[..., 5:] = 100.0
    depth = (torch.arange(4.0) * 2 + 1).expand(1, 1, 4, 4)  # the slope in the middle of two pixels
    assert depth_errors(depth, true, parts).tolist() == [0.0]
    assert depth_errors(depth + 0.25, true, parts).tolist() == [0.25]


def test_every_image_has_its_own_number() -> None:
    true, parts = torch.rand(3, 1, 6, 6), (torch.rand(3, 1, 6, 6) > 0.3).byte()
    depth = torch.rand(3, 1, 6, 6)
    whole = depth_errors(depth, true, parts)
    rows = [depth_errors(depth[i : i + 1], true[i : i + 1], parts[i : i + 1])[0] for i in range(3)]
    assert torch.equal(whole, torch.stack(rows))


def test_no_head_is_no_number_and_wrong_sizes_are_named() -> None:
    none = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    assert depth_errors(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 4, 4), none).isnan().all()
    with pytest.raises(ValueError, match="multiple of the render's size"):
        depth_errors(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 4, 4), none)


def test_the_true_depth_is_known_inside_the_head() -> None:
    true, parts = depths(), torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    parts[..., :4] = 3
    reference = TrueDepth()({"depth": true, "parts": parts})
    assert torch.equal(reference.depth, true) and torch.equal(reference.region, parts == 3)


def test_maps_meet_on_a_common_grid() -> None:
    """A plane that rises by 1 a pixel: halved it is the mean of its blocks, unknown where a pixel of theirs is."""
    x = torch.arange(8.0).expand(1, 1, 8, 8).contiguous()
    torch.testing.assert_close(on_grid(everywhere(x), 4).depth[0, 0, 0], torch.tensor([0.5, 2.5, 4.5, 6.5]))
    region = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    region[..., 1] = False
    region[..., 6:] = False
    halved = on_grid(DepthMap(torch.where(region, x, 1e6), region), 4)
    assert halved.region[0, 0, 0].tolist() == [False, True, True, False]
    torch.testing.assert_close(halved.depth[0, 0, 0, 1:3], torch.tensor([2.5, 4.5]))
    doubled = on_grid(everywhere(x), 16).depth[0, 0, 0]
    torch.testing.assert_close(doubled[1:-1], torch.arange(14.0) / 2 + 0.25)


def test_a_folder_of_maps(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no depth map.*pseudo_depth\.input_view="):
        DepthFolder(tmp_path)
    (tmp_path / "00").mkdir()
    stored = np.array([[1.0, np.nan], [2.0, 3.0]], dtype=np.float32)
    np.savez(tmp_path / "00" / "a.npz", depth=stored)
    batch = {"image": torch.zeros(2, 3, 4, 4), "name": ["00/a.png", "00/missing.png"]}
    found = DepthFolder(tmp_path)(batch)
    assert found.region[:, 0].tolist() == [[[True, False], [True, True]], [[False, False], [False, False]]]
    assert found.depth[0, 0, 1].tolist() == [2.0, 3.0]
    assert DepthFolder(tmp_path, "height")(batch).depth[0, 0, 1].tolist() == [-2.0, -3.0]
    error = geometry_error(torch.tensor([[1.0, 9.0], [2.0, 3.0]]).expand(2, 1, 2, 2), found, 2)
    assert float(error[0]) == pytest.approx(0, abs=1e-12) and bool(error[1].isnan())
    with pytest.raises(ValueError, match="geometry_sign"):
        DepthFolder(tmp_path, "near")


def test_a_plugged_network_sees_the_images() -> None:
    image = torch.rand(2, 3, 4, 4)
    batch = {"image": image, "name": ["a", "b"]}

    def network(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.mean(1, keepdim=True), x[:, :1] > 0.5

    found = NetworkDepth(network)(batch)
    assert not found.axial and NetworkDepth(network, axial=True)(batch).axial
    torch.testing.assert_close(found.depth, image.mean(1, keepdim=True))
    assert torch.equal(found.region, image[:, :1] > 0.5)
