"""Pairs differ in the person alone; the area under the curve is that of counting."""

import itertools

import pytest
import torch

from goae.evaluation.pairs import area_under_curve, between_features, between_images, view_pairs


def pictures(people: int = 4, expressions: int = 2, views: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Shuffled person, expression and view numbers; persons are numbered from 3,000,000."""
    rows = torch.tensor(list(itertools.product(range(people), range(expressions), range(views))))
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    return rows[:, 0] + 3_000_000, rows[:, 1], rows[:, 2]


def test_partners_share_expression_and_camera() -> None:
    person, expression, view = pictures()
    pairs = view_pairs(person, expression, view)
    assert len(pairs.first) == 4 * 2 * 3  # three pairs of three views
    assert torch.equal(pairs.person, person[pairs.first]) and torch.equal(pairs.person, person[pairs.same])
    assert bool((person[pairs.other] != pairs.person).all())
    assert bool((view[pairs.first] != view[pairs.same]).all()) and torch.equal(view[pairs.other], view[pairs.same])
    for partner in (pairs.same, pairs.other):
        assert torch.equal(expression[partner], expression[pairs.first])
    known = {tuple(sorted(x)) for x in torch.stack([pairs.first, pairs.same], 1).tolist()}
    assert len(known) == len(pairs.first)
    assert len(pairs.person.unique()) == 4 and len(person[pairs.other].unique()) == 4
    assert torch.equal(pairs.other, view_pairs(person, expression, view).other)
    assert not torch.equal(pairs.other, view_pairs(person, expression, view, seed=1).other)


def test_missing_pictures_are_refused() -> None:
    person, expression, view = pictures()
    with pytest.raises(ValueError, match="23 pictures of 4 people"):
        view_pairs(person[1:], expression[1:], view[1:])
    with pytest.raises(ValueError, match="two people and views"):
        view_pairs(*(x[person == 3_000_000] for x in (person, expression, view)))


def test_the_area_is_that_of_counting() -> None:
    rng = torch.Generator().manual_seed(0)
    same, other = torch.randint(0, 9, (40,), generator=rng).float(), torch.randint(2, 12, (50,), generator=rng).float()
    counted = [1.0 if a < b else 0.5 if a == b else 0.0 for a in same.tolist() for b in other.tolist()]
    assert float(area_under_curve(same, other)) == pytest.approx(sum(counted) / len(counted))
    assert float(area_under_curve(torch.zeros(3), torch.ones(2))) == 1.0
    assert float(area_under_curve(torch.ones(3), torch.zeros(2))) == 0.0
    assert float(area_under_curve(torch.ones(3), torch.ones(2))) == 0.5
    with pytest.raises(ValueError, match="not all finite"):
        area_under_curve(torch.tensor([float("nan")]), other)


def test_distances_of_rows() -> None:
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    a, b = torch.tensor([0, 2, 1]), torch.tensor([1, 2, 0])
    assert between_features(features)(a, b).tolist() == [5.0, 0.0, 5.0]
    images = features.view(3, 2, 1, 1)
    sizes: list[int] = []

    def distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return (x - y).norm(dim=1).flatten()

    assert between_images(images, distance, batch_size=2)(a, b).tolist() == [5.0, 0.0, 5.0] and sizes == [2, 1]
