"""The operators against reference numbers of the released code: values and gradients."""

import re

import pytest
import torch
from eg3d.ops import (
    bias_act,
    conv2d_resample,
    downsample2d,
    filter2d,
    modulated_conv2d,
    setup_filter,
    upfirdn2d,
    upsample2d,
)
from parity import Case, seeded
from torch import Tensor

TOLERANCE = 1e-5  # of the largest value; the released code differs from itself by up to 6e-7

BIAS_ACT, UPFIRDN2D = Case("ops_bias_act"), Case("ops_upfirdn2d")
CONV2D, MODULATED = Case("ops_conv2d_resample"), Case("ops_modulated_conv2d")


def cases(reference: Case, pattern: str = "") -> list:
    chosen = [case for case in reference.config["cases"] if re.match(pattern, case["name"])]
    return [pytest.param(case, id=case["name"]) for case in chosen]


def check(reference: Case, case: dict, y: Tensor, inputs: dict[str, Tensor], grad_out: Tensor | None = None) -> None:
    name = case["name"]
    reference.check(f"{name}.y", y, TOLERANCE)
    if grad_out is None:
        grad_out = seeded(case["grad_key"], y.shape)
    for key, grad in zip(inputs, torch.autograd.grad(y, list(inputs.values()), grad_out), strict=True):
        reference.check(f"{name}.{key}", grad, TOLERANCE)


@pytest.mark.parametrize("case", cases(BIAS_ACT, r"(?!.*dim0)"))
def test_bias_act(case: dict) -> None:
    inputs = {"dx": BIAS_ACT.input("x").requires_grad_()}
    if case["bias"]:
        inputs["db"] = BIAS_ACT.input("b").requires_grad_()
    options = {key: case[key] for key in ("dim", "act", "alpha", "gain", "clamp") if key in case}
    y = bias_act(inputs["dx"], inputs.get("db"), **options, impl="ref")
    check(BIAS_ACT, case, y, inputs, BIAS_ACT.input("grad_out"))


def test_bias_act_along_the_first_axis() -> None:
    y = bias_act(BIAS_ACT.input("x2"), BIAS_ACT.input("b2"), dim=0, act="lrelu", impl="ref")
    BIAS_ACT.check("lrelu.dim0.y", y, TOLERANCE)


def fir(name: str) -> Tensor | None:
    return None if name == "none" else UPFIRDN2D.input(f"filter_{name}")


@pytest.mark.parametrize("case", cases(UPFIRDN2D, r"c\d+$"))
def test_upfirdn2d(case: dict) -> None:
    x = UPFIRDN2D.input("x").requires_grad_()
    options = {key: case[key] for key in ("up", "down", "padding", "flip_filter", "gain")}
    check(UPFIRDN2D, case, upfirdn2d(x, fir(case["filter"]), **options, impl="ref"), {"dx": x})


@pytest.mark.parametrize("case", cases(UPFIRDN2D, "setup_filter"))
def test_setup_filter(case: dict) -> None:
    options = {key: value for key, value in case.items() if key not in ("name", "f")}
    UPFIRDN2D.check(case["name"], setup_filter(case["f"], **options), TOLERANCE)


def test_filters_of_the_upfirdn2d_cases() -> None:
    UPFIRDN2D.check("setup_filter0", fir("1331"), TOLERANCE)
    torch.testing.assert_close(setup_filter(UPFIRDN2D.input("f_asym").abs(), normalize=False), fir("asym"))
    torch.testing.assert_close(setup_filter(UPFIRDN2D.input("f_taps8").abs()), fir("taps8"))


def test_convenience_forms() -> None:
    x = UPFIRDN2D.input("x8")
    for name, op in (("filter2d", filter2d), ("upsample2d", upsample2d), ("downsample2d", downsample2d)):
        UPFIRDN2D.check(name, op(x, fir("1331"), impl="ref"), TOLERANCE)
    padded = filter2d(x, fir("asym"), padding=(1, 0, 2, -1), flip_filter=True, gain=2, impl="ref")
    UPFIRDN2D.check("filter2d_asym_pad", padded, TOLERANCE)
    UPFIRDN2D.check("upsample2d_asym", upsample2d(x, fir("asym"), impl="ref"), TOLERANCE)
    UPFIRDN2D.check("downsample2d_asym", downsample2d(x, fir("asym"), impl="ref"), TOLERANCE)


@pytest.mark.parametrize("case", cases(CONV2D))
def test_conv2d_resample(case: dict) -> None:
    x, w = CONV2D.input("x").requires_grad_(), CONV2D.input(case["weight"]).requires_grad_()
    options = {key: case[key] for key in ("up", "down", "padding", "groups", "flip_weight")}
    y = conv2d_resample(x, w, setup_filter(CONV2D.config["resample_filter"]), **options, impl="ref")
    check(CONV2D, case, y, {"dx": x, "dw": w})


@pytest.mark.parametrize("case", cases(MODULATED))
def test_modulated_conv2d(case: dict) -> None:
    x, w, s = (MODULATED.input(name).requires_grad_() for name in ("x", case["weight"], "styles"))
    options = {key: case[key] for key in ("up", "down", "padding", "demodulate", "flip_weight")}
    f = setup_filter(MODULATED.config["resample_filter"])
    y = modulated_conv2d(
        x, w, s, stated_noise(case), resample_filter=f, fused=case["fused_modconv"], **options, impl="ref"
    )
    check(MODULATED, case, y, {"dx": x, "dw": w, "ds": s})


def stated_noise(case: dict) -> Tensor | None:
    """The noise of a case that is written as FACTOR*seeded("KEY", [SHAPE])."""
    if case["noise"] is None:
        return None
    factor, key, shape = re.fullmatch(r'([\d.]+)\*seeded\("(\S+)", \[([\d,]+)\]\)', case["noise"]).groups()
    return float(factor) * seeded(key, [int(size) for size in shape.split(",")])
