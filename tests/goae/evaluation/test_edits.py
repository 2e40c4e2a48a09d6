"""The numbers of an edit on made-up heads, computed by hand."""

import pytest
import torch

from goae.evaluation.edits import Seen, edit_record

YAWS = (-30.0, 5.0, 40.0)


def turned(angles: torch.Tensor) -> torch.Tensor:
    """Unit vectors (..., 2)."""
    return torch.stack([angles.cos(), angles.sin()], -1)


def test_changes_spread_and_identity_by_hand() -> None:
    before = Seen(torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]), turned(torch.zeros(2, 3)))
    angles = torch.tensor([[0.0, 0.0, 0.0], [0.2, 0.1, 0.5]])
    after = Seen(torch.tensor([[0.0, 0.0, 0.0], [-2.0, -2.0, -2.0]]), turned(angles))
    found = edit_record(before, after, YAWS, sign=-1.0, num=20)
    assert list(found["views"]) == ["-30", "5", "40"]
    assert [view["change"] for view in found["views"].values()] == pytest.approx([1.5, 2.0, 2.5])
    assert found["views"]["-30"]["change_interval"] == pytest.approx([1.0, 2.0])
    assert found["views"]["40"]["identity"] == pytest.approx((1 + torch.cos(angles[1, 2])) / 2)
    assert found["spread"] == pytest.approx(0.5)  # of 1, 2, 3 and of 2, 2, 2
    alike = (1 + (torch.cos(torch.tensor(0.1)) + torch.cos(torch.tensor(0.4))) / 2) / 2  # to the front, which is at 5
    assert found["alike"] == pytest.approx(float(alike)) and found["alike_unedited"] == pytest.approx(1.0)
    assert found["alike_lost"] == pytest.approx(1 - float(alike))


def test_one_view_says_nothing_of_consistency() -> None:
    seen = Seen(torch.zeros(2, 1), turned(torch.zeros(2, 1)))
    with pytest.raises(ValueError, match="1 views of 2 heads; expected at least two of each"):
        edit_record(seen, seen, (0.0,), sign=1.0, num=20)
