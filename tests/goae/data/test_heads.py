"""Procedural heads: factors, groups, attributes."""

import pytest
import torch

from goae.data import heads
from goae.data.heads import HeadParams, sample_heads


def people(num: int = 4, seed: int = 0) -> HeadParams:
    return sample_heads(num, torch.Generator().manual_seed(seed))


def test_sampling_is_decided_by_the_seed() -> None:
    assert torch.equal(people(seed=3).latents, people(seed=3).latents)
    assert not torch.equal(people(seed=3).latents, people(seed=4).latents)


def test_groups_partition_the_factors() -> None:
    columns = sorted(i for group in heads.GROUPS for i in heads.COLUMNS[group])
    assert columns == list(range(heads.NUM_FACTORS))
    assert heads.NUM_FACTORS <= 64


def test_factors_are_standardised_and_padded() -> None:
    z = heads.factors(people(4000), 64)
    assert z.shape == (4000, 64) and z.abs().max() <= heads.LIMIT
    assert torch.equal(z[:, heads.NUM_FACTORS :], torch.zeros(4000, 64 - heads.NUM_FACTORS))
    # four standard errors of a mean, and of a deviation, over 4000 draws; clamping at 2.5 costs 2 % of the deviation
    assert z[:, : heads.NUM_FACTORS].mean(0).abs().max() < 4 / 4000**0.5
    assert (z[:, : heads.NUM_FACTORS].std(0) - 0.98).abs().max() < 0.06
    with pytest.raises(ValueError, match="cannot hold"):
        heads.factors(people(), 10)


def test_identity_outlives_expression_style_and_scene() -> None:
    a = people()
    b = heads.with_expression(a, "happy")
    for group in ("style", "scene"):
        b = heads.with_group(b, group, people(seed=9))
    assert torch.equal(heads.identity(a), heads.identity(b))
    assert not torch.equal(heads.factors(a), heads.factors(b))
    assert not torch.equal(heads.identity(a), heads.identity(people(seed=9)))


def test_attributes_are_the_physical_values() -> None:
    happy = heads.with_factors(heads.with_expression(people(2), "happy"), {"glasses": 2.0, "beard": -1.0})
    values = dict(zip(heads.ATTRIBUTES, heads.attributes(happy)[0].tolist(), strict=True))
    assert values["smile"] == pytest.approx(0.35 + 1.7 * 0.5)
    assert (values["glasses"], values["beard"]) == (1.0, 0.0)


def test_mirroring_twice_changes_nothing() -> None:
    a = people()
    assert torch.equal(heads.mirror(heads.mirror(a)).latents, a.latents)
    assert not torch.equal(heads.mirror(a).latents, a.latents)


def test_dark_skin_comes_with_dark_hair() -> None:
    pair = heads.with_factors(people(2), {"skin_tone": 2.0, "hair_dark": -2.0})
    assert all(head.hair_dark > 0.9 for head in heads.describe(pair))


@pytest.mark.parametrize("call", [heads.with_expression, lambda p, n: heads.with_group(p, n, p)])
def test_unknown_names_are_refused_with_the_known_ones(call: object) -> None:
    with pytest.raises(ValueError, match="'sleepy' is not one of"):
        call(people(), "sleepy")  # type: ignore[operator]
    with pytest.raises(ValueError, match="'sleepy' is not one of"):
        heads.with_factors(people(), {"sleepy": 1.0})


def test_wrong_width_is_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        HeadParams(torch.zeros(2, 3))
