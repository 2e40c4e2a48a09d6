"""What is compared of each operator at its first use on a device: odd sizes, single and half precision."""

from collections.abc import Iterator

import torch
from eg3d.ops.bias_act import bias_act
from eg3d.ops.conv3x3 import conv3x3
from eg3d.ops.first_use import Case
from eg3d.ops.modulated_layer import modulated_layer
from eg3d.ops.upfirdn2d import setup_filter, upfirdn2d
from torch import Tensor

# Rounding of sums of some hundred products, several times over: far above what correct kernels show, far below what a
# wrong index or a missing term does.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2}


def cases(operator: str, device: str) -> Iterator[Case]:
    """Yield the cases of an operator on a type of device."""
    rng = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    if operator == "bias_act":
        yield from _bias_act(randn(3, 5, 7, 3) * 2, randn(5))
    elif operator == "upfirdn2d":
        yield from _upfirdn2d(randn(2, 3, 13, 11), randn(4, 3))
    elif operator == "conv3x3":
        yield _conv3x3(randn(2, 16, 7, 9), randn(32, 16, 3, 3) / 12, randn(32))
    elif operator == "modulated_layer":
        yield from _modulated_layer(randn(2, 16, 7, 9), randn(32, 16, 3, 3) / 12, randn(2, 16), randn(32))


def _bias_act(x: Tensor, b: Tensor) -> Iterator[Case]:
    for dtype, tolerance in TOLERANCE.items():
        for act, clamp in (("lrelu", 1.3), ("swish", None)):

            def call(impl: str, x: Tensor, b: Tensor, act: str = act, clamp: float | None = clamp) -> list[Tensor]:
                return [bias_act(x, b, act=act, gain=1.7, clamp=clamp, impl=impl)]

            yield Case(f"{act} in {_name(dtype)}", call, {"x": x, "b": b}, (dtype, dtype), ("y",), tolerance)


def _upfirdn2d(x: Tensor, f: Tensor) -> Iterator[Case]:
    for dtype, tolerance in TOLERANCE.items():
        for up, down in ((1, 1), (2, 1), (1, 2), (3, 2)):

            def call(impl: str, x: Tensor, up: int = up, down: int = down) -> list[Tensor]:
                taps = f.to(x.device)
                return [upfirdn2d(x, taps, up=up, down=down, padding=(2, 1, -1, 3), gain=1.5, impl=impl)]

            yield Case(f"up {up}, down {down} in {_name(dtype)}", call, {"x": x}, (dtype,), ("y",), tolerance)


def _conv3x3(x: Tensor, weight: Tensor, bias: Tensor) -> Case:
    def call(impl: str, x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
        return [conv3x3(x, weight, bias=bias, slope=0.2, gain=1.4, impl=impl)]

    inputs = {"x": x, "weight": weight, "bias": bias}
    return Case("float32", call, inputs, (torch.float32,) * 3, ("y",), TOLERANCE[torch.float32])


def _modulated_layer(x: Tensor, weight: Tensor, styles: Tensor, bias: Tensor) -> Iterator[Case]:
    f = setup_filter([1, 3, 3, 1])
    inputs = {"x": x, "weight": weight, "styles": styles, "bias": bias}
    for up in (1, 2):

        def call(impl: str, x: Tensor, weight: Tensor, styles: Tensor, bias: Tensor, up: int = up) -> list[Tensor]:
            return [modulated_layer(x, weight, styles, bias, up=up, resample_filter=f, clamp=1.5, impl=impl)]

        yield Case(f"up {up}", call, inputs, (torch.float32,) * 4, ("y",), TOLERANCE[torch.float32])


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
