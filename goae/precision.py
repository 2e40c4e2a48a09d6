"""Choose how exactly a GPU computes: single precision in full, and with the same algorithms in every run.

TF32 rounds the factors of float32 products to 11 bits on NVIDIA GPUs. PyTorch has it on in cuDNN's convolutions. With
it, images are off by about 1e-3.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

CUDNN: Any = torch.backends.cudnn
FILL: Any = torch.utils.deterministic
BACKENDS: tuple[Any, ...] = (torch.backends.cuda.matmul, CUDNN.conv, CUDNN.rnn)


def forbid_tf32() -> None:
    """Switch TF32 off for good, as jobs do in every process that runs networks."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def choose_algorithms(*, deterministic: bool) -> None:
    """Take algorithms with the same result in every run, or the ones that are fastest for the sizes at hand.

    Nothing changes on a CPU, which has one of each. An operation of PyTorch that has no deterministic algorithm warns.
    """
    CUDNN.deterministic, CUDNN.benchmark = deterministic, not deterministic
    if not torch.cuda.is_available():
        return
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    FILL.fill_uninitialized_memory = False  # it costs time and finds bugs, not other numbers


def uses_tf32() -> bool:
    """Check whether matrix products or convolutions would take TF32 on a GPU that has it."""
    return any(backend.fp32_precision == "tf32" for backend in BACKENDS)


@contextmanager
def without_tf32() -> Iterator[None]:
    """Switch TF32 off within; afterwards it is what the caller has chosen."""
    before = [backend.fp32_precision for backend in BACKENDS]
    try:
        _choose(["ieee"] * len(BACKENDS))
        yield
    finally:
        _choose(before)


def _choose(modes: list[str]) -> None:
    for backend, mode in zip(BACKENDS, modes, strict=True):
        backend.fp32_precision = mode
