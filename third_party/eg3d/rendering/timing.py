"""Choice between the renderer's modes by their times: plain PyTorch, the fused kernels, planes in half precision."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from eg3d.generator import TriPlaneGenerator
from eg3d.ops import build
from torch import Tensor

MODES = ("fused", "plain", "half")
GAIN = 0.9  # a mode takes the place of one before it if it needs at most this share of its time
REPEATS = 5


def fastest(
    candidates: Mapping[str, Callable[[], object]], device: torch.device, repeats: int = REPEATS
) -> tuple[str, dict[str, float]]:
    """Time calls in turns after one uncounted call of each, and choose one.

    Args:
        candidates: by name, the preferred ones first: a later one must be clearly faster, see `GAIN`.
        device: where they compute; it is waited for.
    Returns: the name, and for each candidate the least of its seconds; infinite if memory was not enough.
    """
    seconds = dict.fromkeys(candidates, float("inf"))
    for turn in range(repeats + 1):
        for name, call in candidates.items():
            if turn > 1 and seconds[name] == float("inf"):
                continue
            taken = _seconds(call, device)
            seconds[name] = min(seconds[name], taken) if turn else seconds[name]
    best = next(iter(candidates))
    for name, taken in seconds.items():
        if taken < GAIN * seconds[best]:
            best = name
    return best, seconds


def render_calls(
    generator: TriPlaneGenerator, planes: Tensor, c: Tensor, modes: tuple[str, ...] = MODES
) -> dict[str, Callable[[], object]]:
    """Return a render with its backward pass in each mode; planes (B, 3, C, P, P), cameras (B, 25)."""

    def call(mode: str) -> None:
        with using_mode(generator, mode), torch.enable_grad():
            leaf = planes.detach().requires_grad_()
            generator.render(leaf, c).feature_image.square().mean().backward()

    return {mode: lambda mode=mode: call(mode) for mode in modes}  # type: ignore[misc]


def offered(generator: TriPlaneGenerator, device: torch.device) -> tuple[str, ...]:
    """Return the modes to choose from on a device: where there are no CUDA kernels, "fused" alone, as without a choice.

    On a CPU the kernels are always faster, and half precision would save nothing.
    """
    return MODES if build.resolve(generator.renderer.impl, device, "render") == "cuda" else MODES[:1]


@contextmanager
def using_mode(generator: TriPlaneGenerator, mode: str) -> Iterator[None]:
    """Render in a mode within."""
    before, generator.renderer.mode = generator.renderer.mode, mode
    try:
        yield
    finally:
        generator.renderer.mode = before


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    try:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return float("inf")
    return time.perf_counter() - start
