"""Bootstrap intervals against what is known of means."""

import pytest
import torch

from goae.evaluation.intervals import bootstrap, mean_interval, mean_intervals, paired_difference


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = mean_interval(values, num=4000)
    spread = 1.96 * float(values.std()) / 20
    assert found.value == pytest.approx(float(values.mean()))
    # 4,000 resamples know an end of the interval to about 4 %
    assert found.low == pytest.approx(found.value - spread, abs=0.15 * spread)
    assert found.high == pytest.approx(found.value + spread, abs=0.15 * spread)
    assert mean_interval(values, num=100, seed=3) == mean_interval(values, num=100, seed=3)


def test_rows_of_a_group_are_drawn_together() -> None:
    """Ten equal rows of each of 20 people say no more than one row of each."""
    values = torch.randn(20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one = mean_interval(values)
    ten = mean_interval(values.repeat_interleave(10), torch.arange(20).repeat_interleave(10))
    assert ten == pytest.approx(one)
    apart = mean_interval(values.repeat_interleave(10))
    assert apart.high - apart.low < 0.5 * (one.high - one.low)


def test_one_group_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least two groups"):
        bootstrap(lambda rows: rows.double().mean(), torch.zeros(5))


def test_a_record_has_both_ends() -> None:
    record = mean_interval(torch.tensor([1.0, 1.0])).as_record("fd")
    assert record == {"fd": 1.0, "fd_interval": [1.0, 1.0]}


def test_pairs_tell_apart_what_apart_they_do_not() -> None:
    """Two methods that differ by 0.1 on images whose own spread is ten times that."""
    rng = torch.Generator().manual_seed(2)
    images = torch.randn(100, generator=rng, dtype=torch.float64)
    first, second = images + 0.1 + 0.01 * torch.randn(100, generator=rng), images
    found = paired_difference(first, second)
    assert found.value == pytest.approx(float(first.mean() - second.mean()))
    assert 0.09 < found.low < found.value < found.high < 0.11
    assert mean_interval(first).low < float(second.mean())  # intervals of their own overlap
    with pytest.raises(ValueError, match="same rows"):
        paired_difference(first, second[:-1])


def test_columns_have_the_intervals_of_single_means() -> None:
    rng = torch.Generator().manual_seed(4)
    values, groups = torch.randn(60, 2, generator=rng), torch.arange(20).repeat_interleave(3) * 5
    found = mean_intervals(values, groups, num=300, seed=1)
    for column, estimate in zip(values.T, found, strict=True):
        assert estimate == pytest.approx(mean_interval(column, groups, num=300, seed=1), rel=1e-9)


def test_what_is_not_a_number_takes_no_part() -> None:
    nan = float("nan")
    values = torch.tensor([[1.0, nan, nan], [3.0, nan, 4.0], [nan, nan, 6.0]])
    first, second, third = mean_intervals(values, torch.tensor([0, 1, 2]), num=500)
    assert first is not None and (first.value, first.low, first.high) == (2.0, 1.0, 3.0)
    assert second is None
    assert third is not None and (third.value, third.low, third.high) == (5.0, 4.0, 6.0)
    alone = mean_intervals(values[:2, :1], torch.tensor([7, 7]))[0]
    assert alone is not None and alone.value == 2.0 and alone.low != alone.low  # one person has no interval
