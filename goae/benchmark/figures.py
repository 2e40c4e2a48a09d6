"""Seconds of the released code, and whether the plain reference keeps up with them.

A ratio against a lazy reference is worth nothing: the reference may need at most `TOLERANCE` times the released code's
seconds, scaled by how fast the machine convolves. The figures are medians at batch 1 on two cores that convolved at
`CONV_RATE`; how they were taken is told in docs/performance.md.
"""

from typing import Any

ORIGINAL_SECONDS = {
    "encoder": 0.50,
    "backbone": 0.49,
    "renderer_forward": 2.79,
    "renderer_backward": 1.31,
    "superresolution": 2.42,
    "afa": 0.95,
    "novel_view": 4.62,
    "full_inversion": 16.14,
    "stage1_step": 14.22,
}
CONV_RATE = 280e9  # floating-point operations a second
TOLERANCE = 1.3


def original_seconds(name: str, conv_rate: float) -> float | None:
    """What the released code would need for a part on a machine that convolves at `conv_rate`; None: not known."""
    seconds = ORIGINAL_SECONDS.get(name)
    return None if seconds is None else seconds * CONV_RATE / conv_rate


def lazy_parts(parts: dict[str, dict[str, Any]]) -> list[str]:
    """One sentence for each part of a result whose reference is too slow."""
    return [
        f"{name}: the plain reference needs {part['ref_s']:.2f} s, {part['ref_s'] / part['original_s']:.2f} times the "
        f"{part['original_s']:.2f} s of the released code ({ORIGINAL_SECONDS[name]} s, scaled by the convolution "
        f"rate); at most {TOLERANCE} times are allowed"
        for name, part in parts.items()
        if part.get("original_s") and part["ref_s"] > TOLERANCE * part["original_s"]
    ]
