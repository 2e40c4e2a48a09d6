"""Statistics of W_c: a known background depth is found, a stopped run goes on, files know their generator."""

from pathlib import Path

import pytest
import torch
from damage import flips, unnoticed
from tiny import tiny_generator
from torch import Tensor

from goae.models.sampling import with_samples
from goae.training.canonical import CanonicalStats, canonical_statistics


def left_half(image: Tensor, depth: Tensor) -> Tensor:
    mask = torch.zeros_like(image[:, :1])
    mask[..., : image.shape[-1] // 2] = 1
    return mask


def last(generator: object, num: int, **options: object) -> CanonicalStats:
    values = {"num_samples": num, "batch_size": 2, "seed": 0} | options
    *_, stats = canonical_statistics(generator, left_half, **values)  # type: ignore[arg-type]
    return stats


def test_average_is_over_background_pixels_alone() -> None:
    generator = tiny_generator()
    stats = last(generator, 3, erode=0)
    assert stats.num_samples == 3
    assert stats.d_map.shape == (1, 1, 16, 16)
    assert torch.allclose(stats.d_map[..., :8].mean(), stats.d_avg, atol=1e-6)
    assert torch.equal(stats.d_map[..., 8:], stats.d_avg.expand(1, 1, 16, 8))
    assert 2.25 < float(stats.d_avg) < 3.4
    assert stats.w_avg.shape == (32,)


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    generator, partial = tiny_generator(), tmp_path / "sums"
    whole = last(generator, 6)
    next(iter(canonical_statistics(generator, left_half, num_samples=6, batch_size=2, seed=0, partial=partial)))
    assert partial.exists()
    resumed = last(generator, 6, partial=partial)
    assert torch.equal(resumed.d_avg, whole.d_avg) and torch.equal(resumed.w_avg, whole.w_avg)
    for other in ({"seed": 1}, {"mask": "parser"}):
        with pytest.raises(ValueError, match="Delete it to start again"):
            last(generator, 6, partial=partial, **other)


def test_seeds_matter() -> None:
    generator = tiny_generator()
    assert not torch.equal(last(generator, 2).w_avg, last(generator, 2, seed=1).w_avg)


def test_no_background_at_all_is_an_error() -> None:
    nothing = canonical_statistics(
        tiny_generator(), lambda image, depth: torch.zeros_like(depth), num_samples=2, batch_size=2, seed=0
    )
    with pytest.raises(ValueError, match="No background was found"):
        list(nothing)


def test_files_know_their_generator(tmp_path: Path) -> None:
    generator, path = tiny_generator(), tmp_path / "stats.safetensors"
    stats = last(generator, 2, mask="parser, shrunk by 1")
    stats.save(path)
    loaded = CanonicalStats.load(path, generator, mask="parser, shrunk by 1")
    assert torch.equal(loaded.d_map, stats.d_map) and loaded.num_samples == 2
    assert loaded.digest() == stats.digest() != last(generator, 2, seed=1).digest()
    with pytest.raises(ValueError, match=r"found by parser, shrunk by 1, but it is to be found by depth beyond 3"):
        CanonicalStats.load(path, generator, mask="depth beyond 3, shrunk by 1")
    with pytest.raises(ValueError, match=r"measured with 6 \+ 6 samples per ray, .* compared at 5 \+ 5"):
        CanonicalStats.load(path, with_samples(generator, 5))
    assert not unnoticed(path, lambda: CanonicalStats.load(path, generator), flips(path, 100))
    with torch.no_grad():
        generator.decoder.net[2].bias += 1
    with pytest.raises(ValueError, match="were made for a generator with hash"):
        CanonicalStats.load(path, generator)
    with pytest.raises(FileNotFoundError, match=r"scripts/canonical_stats\.py"):
        CanonicalStats.load(tmp_path / "none", generator)
