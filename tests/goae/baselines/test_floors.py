"""The floors: the mean, the nearest, the average code."""

from pathlib import Path

import pytest
import torch
from tiny import tiny_generator, tiny_images, tiny_labels

from goae.baselines.floors import AverageCode, MeanView, NearestView, StoredViews
from goae.data.datasets import PosedImages
from goae.evaluation.image_metrics import mse


@pytest.fixture(scope="module")
def images(tiny_data: Path) -> PosedImages:
    return PosedImages(tiny_data, 32, extras=("depth",))


@pytest.fixture(scope="module")
def views(images: PosedImages) -> StoredViews:
    return StoredViews(images)


def test_the_mean_is_the_best_constant(images: PosedImages, views: StoredViews) -> None:
    batch = torch.stack([images[i]["image"] for i in range(12)])
    method = MeanView(views)
    view = method.render(method.invert(batch, tiny_labels(12)), tiny_labels(12))
    assert torch.allclose(view.image, batch.mean(0).expand_as(batch), atol=1e-5)
    depth = torch.stack([images[i]["depth"] for i in range(12)]).mean(0)
    assert torch.allclose(view.image_depth[3], depth, atol=2e-3)  # float16
    assert mse(view.image, batch).mean() < mse(view.image + 0.01, batch).mean()


def test_the_nearest_is_found_across_chunks(
    images: PosedImages, views: StoredViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("goae.baselines.floors.CHUNK", 5)
    method = NearestView(views)
    batch = torch.stack([images[i]["image"] for i in (11, 0, 7)])
    noisy = batch + 0.05 * torch.randn(batch.shape, generator=torch.Generator().manual_seed(0))
    assert method.invert(noisy, tiny_labels(3)).tolist() == [11, 0, 7]
    view = method.render(torch.tensor([11, 0, 7]), tiny_labels(3))
    assert torch.allclose(view.image, batch, atol=1e-6)
    assert torch.allclose(view.image_depth[1], images[0]["depth"], atol=2e-3)
    other = tiny_images(2)
    direct = torch.stack([mse(other, images[i]["image"].expand_as(other)) for i in range(12)], 1).argmin(1)
    assert torch.equal(method.invert(other, tiny_labels(2)), direct)


def test_reading_tells_how_far_it_is(images: PosedImages) -> None:
    heard: list[int] = []
    assert len(StoredViews(images, heard.append)) == 12 and heard == list(range(1, 13))


def test_the_average_code_follows_the_camera() -> None:
    generator, c = tiny_generator(), tiny_labels(2)
    method = AverageCode(generator)
    view = method.render(method.invert(tiny_images(2), c), c)
    with torch.no_grad():
        expected = generator.synthesis(generator.w_avg.expand(2, generator.num_ws, -1), c)
    assert torch.equal(view.image, expected.image) and not torch.equal(view.image[0], view.image[1])
