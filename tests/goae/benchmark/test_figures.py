"""A lazy reference is found out."""

import pytest

from goae.benchmark.figures import CONV_RATE, TOLERANCE, lazy_parts, original_seconds


def test_figures_scale_with_the_convolution_rate() -> None:
    assert original_seconds("renderer_forward", CONV_RATE) == 2.79
    assert original_seconds("renderer_forward", CONV_RATE / 4) == pytest.approx(4 * 2.79)
    assert original_seconds("mini_prior_step", CONV_RATE) is None


def test_a_slow_reference_is_named_with_its_figures() -> None:
    limit = TOLERANCE * 10.0
    parts = {
        "encoder": {"ref_s": limit + 0.1, "original_s": 10.0},
        "backbone": {"ref_s": limit - 0.1, "original_s": 10.0},
        "mini_encoder": {"ref_s": 1000.0},
    }
    (message,) = lazy_parts(parts)
    assert message.startswith("encoder: the plain reference needs 13.10 s, 1.31 times the 10.00 s")
