"""Which parts a run measures."""

import pytest

from goae.benchmark.figures import ORIGINAL_SECONDS
from goae.benchmark.parts import PARTS, choose

NAMED = (
    "renderer_forward renderer_backward superresolution backbone encoder afa novel_view full_inversion stage1_step "
    "stage2_step full_inversion_paper stage2_step_paper mini_prior_step mini_stage1_step mini_stage2_step"
)


def test_all_parts_have_their_names() -> None:
    assert set(NAMED.split()) <= set(choose([], bf16=False))
    assert set(ORIGINAL_SECONDS) <= set(PARTS)


def test_bfloat16_runs_where_there_are_instructions() -> None:
    assert not [name for name in choose([], bf16=False) if name.endswith("_bf16")]
    assert {"encoder_bf16", "full_inversion_bf16", "stage1_step_bf16"} <= set(choose([], bf16=True))
    assert choose(["encoder_bf16"], bf16=True) == ["encoder_bf16"]
    with pytest.raises(ValueError, match="encoder_bf16 need a device with bfloat16"):
        choose(["encoder", "encoder_bf16"], bf16=False)


def test_an_unknown_part_is_named() -> None:
    with pytest.raises(ValueError, match="parts renderer do not exist; expected some of mapping, encoder"):
        choose(["renderer", "encoder"], bf16=False)
