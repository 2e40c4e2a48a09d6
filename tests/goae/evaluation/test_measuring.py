"""What is measured of a shown image: at which size, against what, and what a render that is not finite leaves."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from goae.data.datasets import PosedImages
from goae.evaluation.geometry import TrueDepth
from goae.evaluation.measuring import Measures, MetricsConfig, Networks
from goae.evaluation.protocols import as_row, show
from goae.evaluation.results import folder_hash, images_hash
from goae.models.goae import View

SIDE = 16


def seen(x: Tensor) -> Tensor:
    """An embedding: unit vectors of channel means."""
    return normalize(x.mean((2, 3)), dim=1)


def measures(*, full: bool = True) -> Measures:
    networks = Networks(
        lpips=lambda a, b: (a - b).abs().mean((1, 2, 3)),
        identity=seen,
        identity_independent=(lambda x: -seen(x)) if full else None,
        features=lambda x: x.flatten(1),
        features_beside=seen if full else None,
        reference=TrueDepth() if full else None,
        true_depth=full,
    )
    return Measures(networks, resolution=SIDE, grid=8)


def batch() -> dict[str, Any]:
    rng = torch.Generator().manual_seed(0)
    return {
        "image": torch.rand(2, 3, 2 * SIDE, 2 * SIDE, generator=rng) * 1.6 - 0.8,
        "depth": 2.5 + 0.1 * torch.rand(2, 1, SIDE, SIDE, generator=rng),
        "parts": torch.ones(2, 1, SIDE, SIDE, dtype=torch.uint8),
        "name": ["a", "b"],
    }


def shown(target: dict[str, Any]) -> View:
    return View(target["image"].clone(), target["image"], target["depth"].clone())


def test_a_perfect_render() -> None:
    target = batch()
    found = {name: value.tolist() for name, value in measures()(shown(target), target).items()}
    for name, expected in {
        "mse": 0.0,
        "lpips": 0.0,
        "geo": 0.0,
        "depth": 0.0,
        "id": 1.0,
        "id_independent": 1.0,
    }.items():
        assert found[name] == pytest.approx([expected] * 2, abs=1e-6), name
    assert list(found) == measures().columns
    assert measures(full=False).columns == ["mse", "psnr", "ssim", "ms_ssim", "lpips", "id"]


def test_without_an_identity_network_there_is_no_identity() -> None:
    """As for cats, whose faces none of them knows."""
    networks = replace(measures(full=False).networks, identity=None)
    target = batch()
    found = Measures(networks, resolution=SIDE, grid=8)(shown(target), target)
    assert list(found) == ["mse", "psnr", "ssim", "ms_ssim", "lpips"]


def test_images_are_compared_after_averaging() -> None:
    """A checkerboard of ±0.2 at the full size is nothing at half of it."""
    target = batch()
    sign = 1 - 2 * ((torch.arange(2 * SIDE)[:, None] + torch.arange(2 * SIDE)) % 2)
    view = shown(target)._replace(image=target["image"] + 0.2 * sign)
    assert measures()(view, target)["mse"].tolist() == pytest.approx([0.0] * 2, abs=1e-12)
    constant = shown(target)._replace(image=target["image"] + 0.2)
    assert measures()(constant, target)["mse"].tolist() == pytest.approx([0.04] * 2, rel=1e-5)


def test_a_render_that_is_not_finite_fails_and_spares_its_neighbour() -> None:
    target = batch()
    view = shown(target)
    view.image[0, 0, 3, 3] = float("nan")
    view.image_depth[0] = float("nan")
    found = measures()(view, target)
    rows = [as_row({name: float(value[i]) for name, value in found.items()}) for i in range(2)]
    assert rows[0]["failed"].split() == measures().columns
    assert rows[1]["failed"] == "" and float(rows[1]["mse"]) == 0


@pytest.mark.parametrize("novel", [True, False])
@pytest.mark.parametrize("all_of_them", [True, False])
def test_an_optimisation_that_diverged_is_counted_as_failed(
    novel: bool, all_of_them: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Alone: the other image of the batch is measured as if it had been by itself."""
    target = batch() | {"c": torch.zeros(2, 25), "name": ["a.png", "b.png"]}
    first = target["image"][:1]

    class Diverging:
        def invert(self, image: Tensor, c: Tensor) -> Tensor:
            if all_of_them or any(torch.equal(row[None], first) for row in image):
                raise FloatingPointError("the loss is nan at step 3; lower tuning.lr")
            return image

        def render(self, inversion: Tensor, c: Tensor) -> View:
            assert len(inversion) == 1
            return shown({name: value[1:] for name, value in target.items()})

    views = show(Diverging(), target, [target, target] if novel else [target], novel=novel)
    assert len(views) == 1 + novel
    for view in views:
        found = measures()(view, target)
        rows = [as_row({name: float(value[i]) for name, value in found.items()}) for i in range(2)]
        assert rows[0]["failed"].split() == measures().columns
        assert rows[1]["failed"] == rows[0]["failed"] if all_of_them else float(rows[1]["mse"]) == 0
    told = capsys.readouterr().out
    assert "a.png: counted as failed, since the loss is nan at step 3" in told
    assert ("b.png" in told) == all_of_them


def test_features_are_of_stored_images() -> None:
    """Rounded to 8 bits at the full size, as the images of the data set were, then averaged."""
    image = torch.full((1, 3, 2 * SIDE, 2 * SIDE), 0.5)  # 191.25 of 255
    assert measures(full=False).features(image).unique().tolist() == pytest.approx([191 / 127.5 - 1])
    assert measures(full=False).widths(torch.device("cpu")) == [3 * SIDE**2]


def test_features_of_two_networks_lie_side_by_side() -> None:
    image = batch()["image"]
    one, both = measures(full=False).features(image), measures().features(image)
    assert measures().widths(torch.device("cpu")) == [3 * SIDE**2, 3] and both.shape[1] == 3 * SIDE**2 + 3
    assert torch.equal(both[:, :-3], one)
    assert torch.allclose(both[:, -3:].norm(dim=1), torch.ones(2))  # `seen` gives unit vectors


def test_hashes_see_images_labels_and_maps(tiny_data: Any, tmp_path: Any) -> None:
    plain, mapped = PosedImages(tiny_data, 32), PosedImages(tiny_data, 32, extras=("depth",))
    assert images_hash(plain) == images_hash(PosedImages(tiny_data, 32)) != images_hash(mapped)
    before = images_hash(plain)
    plain.labels[3, 0] += 1e-3
    assert images_hash(plain) != before
    (tmp_path / "a.npz").write_bytes(b"1")
    first = folder_hash(tmp_path)
    (tmp_path / "a.npz").write_bytes(b"2")
    assert folder_hash(tmp_path) != first


def test_choices_are_checked() -> None:
    with pytest.raises(ValueError, match=r"metrics\.grid is 1"):
        MetricsConfig(grid=1)
