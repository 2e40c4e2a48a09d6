"""Facts and rates of the machine at hand."""

import pytest
import torch

from goae.benchmark import machine
from goae.benchmark.machine import best_seconds, describe, has_bf16

CPU = torch.device("cpu")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that take no time."""
    monkeypatch.setattr(machine, "SECONDS", 0.0)
    monkeypatch.setattr(machine, "MATRIX", 64)
    monkeypatch.setattr(machine, "CONVOLUTIONS", ((4, 16),))
    monkeypatch.setattr(machine, "COPIED", 2**16)


@pytest.mark.usefixtures("small")
def test_a_machine_is_described() -> None:
    values = describe(CPU).as_dict()
    rates = [values[name] for name in ("matmul_gflops", "conv_gflops", "copy_gb_per_s")]
    assert all(isinstance(rate, float) and rate > 0 for rate in rates)
    assert values["name"]
    assert values["cores"] >= 1
    assert values["bf16"] == has_bf16(CPU)
    assert ("matmul_bf16_gflops" in values) == values["bf16"]


@pytest.mark.usefixtures("small")
def test_bfloat16_rates_where_there_are_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_flags", lambda: {"amx_bf16"})
    assert describe(CPU).as_dict()["conv_bf16_gflops"] > 0


def test_instructions_are_read_from_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_flags", lambda: {"avx2", "avx512_bf16"})
    assert has_bf16(CPU)
    monkeypatch.setattr(machine, "cpu_flags", lambda: {"avx2", "avx512f"})
    assert not has_bf16(CPU)


def test_the_best_run_counts() -> None:
    calls = []
    assert 0 <= best_seconds(lambda: calls.append(1), CPU) < 0.1
    assert len(calls) > 3  # one to warm up, then at least three
