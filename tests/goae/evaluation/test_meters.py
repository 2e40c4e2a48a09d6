"""A meter that knows people is informative, one that does not gets a footnote, one never checked is an error."""

from typing import Any

import pytest
import torch

from goae.evaluation.meters import LEAST_AUC, footnotes, is_informative, meter_record, pair_auc
from goae.evaluation.pairs import Pairs, between_features, view_pairs

PEOPLE, EXPRESSIONS, VIEWS = 12, 2, 3
PERSON = torch.arange(PEOPLE).repeat_interleave(EXPRESSIONS * VIEWS)


def pairs() -> Pairs:
    expression = torch.arange(EXPRESSIONS).repeat_interleave(VIEWS).repeat(PEOPLE)
    return view_pairs(PERSON, expression, torch.arange(VIEWS).repeat(PEOPLE * EXPRESSIONS))


def record(noise: float) -> dict[str, Any]:
    """Of a meter that sees a direction of each person, in noise."""
    rng = torch.Generator().manual_seed(0)
    people = torch.randn(PEOPLE, 8, generator=rng)[PERSON]
    seen = people + noise * torch.randn(people.shape, generator=rng)
    return meter_record(pair_auc(between_features(seen), pairs(), num=200), pairs())


def test_meters_are_told_apart() -> None:
    good, bad = record(0.3), record(20.0)
    assert good["auc"] > 0.97 and good["informative"]
    assert good["auc_interval"][0] <= good["auc"] <= good["auc_interval"][1]
    assert (good["pairs"], good["people"]) == (PEOPLE * EXPRESSIONS * 3, PEOPLE)
    assert bad["auc"] == pytest.approx(0.5, abs=0.15) and not bad["informative"]


def test_only_uninformative_meters_are_footnoted() -> None:
    records = {"meters": {"lpips": record(20.0), "identity": record(0.3)}}
    assert is_informative(records, "identity") and not is_informative(records, "lpips")
    notes = footnotes(records, ["identity", "lpips"])
    assert list(notes) == ["lpips"]
    assert notes["lpips"].startswith("LPIPS (AlexNet): uninformative") and f"below {LEAST_AUC}" in notes["lpips"]
    assert f"AUC {records['meters']['lpips']['auc']:.2f}" in notes["lpips"]


def test_a_meter_without_a_check_is_no_meter() -> None:
    with pytest.raises(ValueError, match=r"fd_vgg was not checked yet; run `python scripts/check_meters\.py`"):
        footnotes({"meters": {}}, ["fd_vgg"])
    with pytest.raises(ValueError, match="no meter is called 'colour'"):
        is_informative({}, "colour")
