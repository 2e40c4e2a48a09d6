"""Jobs for a child process, which has to import them."""

import os
import time
from collections.abc import Callable

import torch

from goae.benchmark.child import Setting
from goae.benchmark.measure import extra_bytes
from goae.precision import uses_tf32

MB = 2**20


def doubled(setting: Setting, report: Callable[[], None], number: int) -> tuple[int, int, bool]:
    """Two reports, the double of a number, the threads of the process, and whether it uses TF32."""
    report()
    report()
    return 2 * number, torch.get_num_threads(), uses_tf32()


def raising(setting: Setting, report: Callable[[], None]) -> None:
    """A job that fails."""
    raise ValueError("no such thing")


def dying(setting: Setting, report: Callable[[], None]) -> None:
    """A job whose process ends."""
    os._exit(7)


def sleeping(setting: Setting, report: Callable[[], None]) -> None:
    """A job that does not end."""
    time.sleep(3600)


def holding(setting: Setting, report: Callable[[], None], *sizes: int) -> int | None:
    """The peak memory of holding so many MB one after another, each freed before the next."""

    def run() -> None:
        for size in sizes:
            torch.ones(size * MB, dtype=torch.uint8)

    return extra_bytes(run, setting.device)
