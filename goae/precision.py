"""Single precision in full: without TF32, which rounds the factors of float32 products to 11 bits on NVIDIA GPUs.

PyTorch has it on in cuDNN's convolutions. With it, images are off by about 1e-3.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

CUDNN: Any = torch.backends.cudnn
BACKENDS: tuple[Any, ...] = (torch.backends.cuda.matmul, CUDNN.conv, CUDNN.rnn)


def forbid_tf32() -> None:
    """Switch TF32 off for good, as jobs do in every process that runs networks."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


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
