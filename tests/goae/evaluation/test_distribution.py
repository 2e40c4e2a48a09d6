"""Distances of image sets: hand cases, closed forms, torchmetrics, and generated images that only the seed decides."""

import pytest
import torch
from tiny import tiny_generator, tiny_labels
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from goae.evaluation import distribution
from goae.evaluation.distribution import (
    DistributionConfig,
    as_stored,
    compare_sets,
    distances,
    floor,
    frechet_distance,
    generated_features,
    kernel_distance,
)


def gaussian(mean: Tensor, cov: Tensor, *, num: int = 200, seed: int = 0) -> Tensor:
    """Rows whose sample mean and covariance are exactly these."""
    x = torch.randn(num, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(x.T)), x.T, upper=False).T
    return white @ torch.linalg.cholesky(cov).T + mean


class Same(nn.Module):
    """What torchmetrics takes for a feature network."""

    num_features = 8

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_a_set_is_at_no_distance_from_itself() -> None:
    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(0))  # a covariance without full rank
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-5)  # roots of eigenvalues that are 0 within 1e-14


def test_few_rows_give_what_their_covariances_give() -> None:
    """By rows, and by covariances when one set has as many rows as features: appended features of 0 change nothing."""
    x = torch.randn(20, 12, generator=torch.Generator().manual_seed(5))
    y = 0.5 * torch.randn(15, 12, generator=torch.Generator().manual_seed(6)) + 1
    padded = [torch.nn.functional.pad(rows, (0, 30)) for rows in (x, y)]
    assert frechet_distance(*padded) == pytest.approx(frechet_distance(x, y), rel=1e-9)


def test_comparisons_name_their_counts_and_a_rank_that_is_not_full() -> None:
    x = torch.randn(9, 8, generator=torch.Generator().manual_seed(3))
    found = compare_sets(x, x)
    assert found["fid"] == pytest.approx(0.0, abs=1e-6) and "note" not in found
    assert (found["num_real"], found["num_shown"], found["num_features"]) == (9, 9, 8)
    note = compare_sets(x, x[:8])["note"]  # eight rows have a covariance of rank 7
    assert isinstance(note, str) and note.startswith("8 images span at most 7 of 8")
    assert torch.linalg.matrix_rank(torch.cov(x[:8].double().T)) == 7
    assert torch.linalg.matrix_rank(torch.cov(x.double().T)) == 8


def test_frechet_distance_of_gaussians_with_equal_axes() -> None:
    """|mu_1 - mu_2|^2 + sum (s_1 - s_2)^2."""
    first = gaussian(torch.tensor([0.0, 1.0, 2.0]).double(), torch.diag(torch.tensor([1.0, 4.0, 9.0]).double()))
    second = gaussian(
        torch.tensor([1.0, 1.0, 0.0]).double(), torch.diag(torch.tensor([4.0, 4.0, 1.0]).double()), seed=1
    )
    assert frechet_distance(first, second) == pytest.approx(1 + 4 + 1 + 0 + 4, rel=1e-9)


def test_frechet_distance_of_gaussians_with_turned_axes() -> None:
    """In two dimensions tr (S_1 S_2)^(1/2) = (tr S_1 S_2 + 2 (det S_1 S_2)^(1/2))^(1/2)."""
    s1 = torch.tensor([[2.0, 0.5], [0.5, 1.0]]).double()
    s2 = torch.tensor([[1.0, -0.7], [-0.7, 3.0]]).double()
    product = s1 @ s2
    root = (product.trace() + 2 * torch.linalg.det(product).sqrt()).sqrt()
    expected = float(s1.trace() + s2.trace() - 2 * root)
    zero = torch.zeros(2).double()
    assert frechet_distance(gaussian(zero, s1), gaussian(zero, s2, num=90, seed=1)) == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_by_hand() -> None:
    """k = (x y + 1)^3: pairs within give 1 and 1, pairs between 1, 1, 1 and 27."""
    first, second = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]])
    assert kernel_distance(first, second) == pytest.approx(1 + 1 - 2 * 7.5)


def test_kernel_distance_is_unbiased_and_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all ways to draw two pairs from five numbers its mean is 0; with the diagonals it would be positive."""
    x = torch.tensor([[-1.0], [0.5], [1.0], [2.0], [-0.3]])
    values = [
        kernel_distance(x[[a, b]], x[[c, d]])
        for a in range(5)
        for b in range(5)
        for c in range(5)
        for d in range(5)
        if len({a, b, c, d}) == 4
    ]
    assert sum(values) / len(values) == pytest.approx(0.0, abs=1e-9)
    many = torch.randn(31, 4, generator=torch.Generator().manual_seed(0))
    whole = kernel_distance(many[:20], many[20:])
    monkeypatch.setattr(distribution, "BLOCK", 7)
    assert kernel_distance(many[:20], many[20:]) == pytest.approx(whole, rel=1e-12)


def test_both_agree_with_torchmetrics() -> None:
    rng = torch.Generator().manual_seed(0)
    first, second = torch.randn(60, 8, generator=rng), 1.3 * torch.randn(60, 8, generator=rng) + 0.4
    fid, kid = FrechetInceptionDistance(Same()), KernelInceptionDistance(Same(), subsets=1, subset_size=60)
    for metric in (fid, kid):
        metric.update(first, real=True)
        metric.update(second, real=False)
    found = distances(first, second)
    assert found["fd"] == pytest.approx(float(fid.compute()), rel=1e-5)  # its result is float32
    assert found["kid"] == pytest.approx(float(kid.compute()[0]), rel=1e-4)  # its kernel too


def test_the_floor_compares_halves() -> None:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    assert floor(x) == {
        "fd_floor": frechet_distance(x[::2], x[1::2]),
        "kid_floor": kernel_distance(x[::2], x[1::2]),
    }


def test_wrong_shapes_are_named() -> None:
    for wrong in (torch.zeros(4, 3), torch.zeros(1, 2), torch.zeros(4)):
        with pytest.raises(ValueError, match="features have shapes"):
            frechet_distance(torch.zeros(4, 2), wrong)
    with pytest.raises(ValueError, match="num_samples"):
        DistributionConfig(num_samples=1)


def test_images_are_taken_with_eight_bits() -> None:
    levels = (as_stored(torch.linspace(-1.5, 1.5, 999)) + 1) * 127.5
    assert torch.allclose(levels, levels.round(), atol=1e-4) and float(levels.max()) <= 255.001


def test_generated_images_depend_on_the_seed_alone() -> None:
    generator, labels = tiny_generator(), tiny_labels(5)

    def found(seed: int = 0, batch_size: int = 4, rank: int = 0, num_ranks: int = 1) -> Tensor:
        return generated_features(
            generator,
            labels,
            lambda image: image.mean((2, 3)),
            num=7,
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            num_ranks=num_ranks,
        )

    whole = found()
    assert whole.shape == (7, 3) and len({row.sum().item() for row in whole}) == 7
    assert torch.equal(whole, found()) and not torch.equal(whole, found(seed=1))
    # a batch of another size rounds otherwise, which may move a level of 255
    assert torch.allclose(whole, found(batch_size=3), atol=2 / 255 / 10)
    assert torch.equal(whole, found(rank=0, num_ranks=2) + found(rank=1, num_ranks=2))
    assert torch.equal(found(rank=2, num_ranks=3), torch.zeros(7, 3))
