"""Time and peak memory of a part's two implementations, side by side in one process."""

import ctypes
import gc
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from goae.benchmark.flops import Flops, count_flops

Call = Callable[[], Any]


@dataclass(frozen=True)
class Work:
    """One part, ready to run.

    Attributes:
        ref, ours: the plain reference and the library's own way; what they return is dropped.
        touched: modules and tensors that a call has to read at least once.
        counted: what is run to count FLOPs, where `ref` does more than has to be done.
        steps: repetitions within a call; times are divided by it.
        images: images in one repetition.
    """

    ref: Call
    ours: Call
    touched: Sequence[nn.Module | Tensor]
    counted: Call | None = None
    steps: int = 1
    images: int = 1


@dataclass(frozen=True)
class Side:
    """What one implementation needed: seconds of each run, and bytes above the loaded models; None if not measured."""

    runs: list[float]
    bytes: int | None

    @property
    def seconds(self) -> float:
        """The median."""
        return median(self.runs)


@dataclass(frozen=True)
class Measured:
    """A part's result. `touched`: bytes of its weights, inputs and outputs."""

    ref: Side
    ours: Side
    flops: Flops
    touched: int
    images: int


def num_calls(repeats: int) -> int:
    """How often `measure` reports progress."""
    return 5 + 2 * repeats


def measure(work: Work, device: torch.device, repeats: int, *, bf16: bool, report: Call) -> Measured:
    """Warm up, count FLOPs, measure memory, then time both in turns.

    Args:
        bf16: run `ours` under autocast to bfloat16; `ref` stays in float32.
        report: called after every call.
    """

    def ours() -> Any:
        with autocast(device, bf16):
            return work.ours()

    def reported(call: Callable[[], Any]) -> Any:
        value = call()
        report()
        return value

    flops = reported(lambda: count_flops(work.counted or work.ref))
    reported(work.ref if work.counted else lambda: None)  # otherwise counting has warmed it up
    result = reported(ours)
    touched = total_bytes(work.touched) + total_bytes([result])
    del result
    memory = [reported(lambda call=call: extra_bytes(call, device)) for call in (work.ref, ours)]  # type: ignore[misc]
    runs: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for call, seconds in zip((work.ref, ours), runs, strict=True):
            seconds.append(reported(lambda call=call: seconds_of(call, device)) / work.steps)  # type: ignore[misc]
    flops = Flops(flops.conv // work.steps, flops.matmul // work.steps)
    return Measured(Side(runs[0], memory[0]), Side(runs[1], memory[1]), flops, touched, work.images)


def autocast(device: torch.device, bf16: bool) -> AbstractContextManager:
    """Networks in bfloat16, if asked for."""
    return torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()


def synchronize(device: torch.device) -> None:
    """Wait for a GPU; nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(call: Call, device: torch.device) -> float:
    """Wall time of one call; what it returns is freed within it."""
    gc.collect()
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def extra_bytes(call: Call, device: torch.device) -> int | None:
    """The most memory held during a call, above what was held before it.

    On a CPU this is the resident set, after freed memory went back to the system, by the peak that Linux keeps; None on
    other systems. On a GPU it is what PyTorch had allocated.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    if not reset_peak():
        call()
        return None
    before = status_bytes("VmRSS")
    call()
    return max(0, status_bytes("VmHWM") - before)


def reset_peak() -> bool:
    """Give freed memory back and let the process's peak start from here; whether the system can do that."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def status_bytes(field: str) -> int:
    """A field of /proc/self/status: VmRSS is the resident set now, VmHWM its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def total_bytes(values: Any) -> int:
    """Bytes of all tensors in nested sequences, parameters and buffers of modules included."""
    if isinstance(values, Tensor):
        return values.nbytes
    if isinstance(values, nn.Module):
        return total_bytes([*values.parameters(), *values.buffers()])
    return sum(map(total_bytes, values)) if isinstance(values, list | tuple) else 0
