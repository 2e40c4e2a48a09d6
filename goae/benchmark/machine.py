"""What the machine is, and how fast it multiplies, convolves and copies: the limits that times are compared with."""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn import functional as F

from goae.benchmark.measure import synchronize
from goae.evaluation.runner import cpu_facts, cpu_name
from goae.precision import uses_tf32

FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
SECONDS = 0.5  # each rate is the best of the runs in so much time
# (in and out channels, side) of the 3 x 3 convolutions whose best rate counts
CONVOLUTIONS = ((64, 256), (128, 128), (256, 64), (512, 32))
MATRIX = 2048
COPIED = 2**28  # bytes, beyond every cache


@dataclass(frozen=True)
class Rates:
    """Floating-point operations a second of large matrix products and convolutions in one dtype."""

    matmul: float
    conv: float


@dataclass(frozen=True)
class Machine:
    """Name, cores, vector instructions, measured rates; whether float32 may be TF32.

    `copy` counts bytes read and written, a second.
    """

    name: str
    cores: int
    threads: int
    flags: list[str]
    device: str
    torch: str
    bf16: bool
    tf32: bool
    rates: Rates
    rates_bf16: Rates | None
    copy: float

    def as_dict(self) -> dict[str, Any]:
        """For the JSON: rates in GFLOP/s and GB/s."""
        plain = {name: value for name, value in asdict(self).items() if not name.startswith("rates") and name != "copy"}
        plain |= {"matmul_gflops": self.rates.matmul / 1e9, "conv_gflops": self.rates.conv / 1e9}
        if self.rates_bf16:
            plain |= {
                "matmul_bf16_gflops": self.rates_bf16.matmul / 1e9,
                "conv_bf16_gflops": self.rates_bf16.conv / 1e9,
            }
        return plain | {"copy_gb_per_s": self.copy / 1e9}


def describe(device: torch.device) -> Machine:
    """Measure the machine; in bfloat16 too where it has the instructions, as emulating them takes minutes."""
    bf16 = has_bf16(device)
    return Machine(
        name=torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        flags=[flag for flag in FLAGS if flag in cpu_flags()],
        device=device.type,
        torch=torch.__version__,
        bf16=bf16,
        tf32=uses_tf32(),
        rates=measure_rates(device, torch.float32),
        rates_bf16=measure_rates(device, torch.bfloat16) if bf16 else None,
        copy=copy_rate(device),
    )


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    return device.type == "cuda" or bool(BF16_FLAGS & cpu_flags())


def cpu_flags() -> set[str]:
    """Names of its instruction sets; empty where the system does not list them."""
    return set(" ".join([*cpu_facts("flags")[:1], *cpu_facts("Features")[:1]]).split())


def measure_rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """Matrix products of 2048³ and 3 x 3 convolutions of the generator's sizes."""
    a, b = (torch.randn(MATRIX, MATRIX, device=device, dtype=dtype) for _ in range(2))
    matmul = 2 * MATRIX**3 / best_seconds(lambda: a @ b, device)
    return Rates(matmul, max(_conv_rate(channels, side, device, dtype) for channels, side in CONVOLUTIONS))


@torch.no_grad()
def _conv_rate(channels: int, side: int, device: torch.device, dtype: torch.dtype) -> float:
    x = torch.randn(1, channels, side, side, device=device, dtype=dtype)
    w = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype)
    return 2 * 9 * channels**2 * side**2 / best_seconds(lambda: F.conv2d(x, w, padding=1), device)


def copy_rate(device: torch.device) -> float:
    """Bytes read and written a second, copying from memory to memory."""
    source = torch.ones(COPIED, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * COPIED / best_seconds(lambda: target.copy_(source), device)


def best_seconds(call: Callable[[], Any], device: torch.device) -> float:
    """The shortest run of those in `SECONDS`, at least three, after one to warm up."""
    call()
    best, began, runs = float("inf"), time.perf_counter(), 0
    while runs < 3 or time.perf_counter() - began < SECONDS:
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        best, runs = min(best, time.perf_counter() - start), runs + 1
    return best
