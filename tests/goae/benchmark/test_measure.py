"""The meter sees what is allocated, and times are those of one repetition."""

import time

import pytest
import torch
from measuring import MB, holding
from torch import nn

from goae.benchmark.child import Setting, run_apart
from goae.benchmark.measure import Work, measure, num_calls, reset_peak, total_bytes

CPU = torch.device("cpu")


@pytest.mark.skipif(not reset_peak(), reason="this system keeps no peak that can be reset")
def test_peak_memory_is_what_was_held_at_once() -> None:
    """In a process of its own, as the benchmark measures: one that ran for long may keep what was freed."""
    held = run_apart(holding, Setting(CPU, 1, 1), 100, 60)
    assert 99 * MB < held < 115 * MB  # the kernel counts pages in bunches


def test_both_sides_are_run_in_turns_and_timed() -> None:
    calls = []
    work = Work(
        ref=lambda: (calls.append("ref"), time.sleep(0.02)),
        ours=lambda: calls.append("ours"),
        touched=[nn.Linear(3, 2)],
        steps=4,
        images=2,
    )
    reports = []
    measured = measure(work, CPU, 3, bf16=False, report=lambda: reports.append(1))
    assert len(reports) == num_calls(3)
    assert calls[-6:] == ["ref", "ours"] * 3
    assert 0.005 <= measured.ref.seconds < 0.02  # a quarter of a call
    assert measured.ours.seconds < 0.005
    assert (measured.touched, measured.images) == (4 * 8, 2)


def test_bfloat16_is_for_ours_alone() -> None:
    layer, x, dtypes = nn.Linear(4, 4), torch.randn(2, 4), []

    def run() -> None:
        dtypes.append(layer(x).dtype)

    measure(Work(run, run, []), CPU, 1, bf16=True, report=lambda: None)
    assert dtypes[-2:] == [torch.float32, torch.bfloat16]


def test_flops_are_counted_where_the_work_says() -> None:
    a = torch.randn(8, 8)
    work = Work(lambda: a @ a @ a, lambda: a @ a, [], counted=lambda: a @ a)
    assert measure(work, CPU, 1, bf16=False, report=lambda: None).flops.total == 2 * 8**3


def test_bytes_of_nested_values() -> None:
    assert total_bytes([torch.zeros(3), (torch.zeros(2, dtype=torch.uint8), None), nn.BatchNorm1d(1)]) == 12 + 2 + 24
