"""Where results go."""

from pathlib import Path

import pytest
import torch

from goae.benchmark.parts import Worlds
from goae.benchmark.run import bench, output_path
from goae.config import BenchConfig

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_only_a_whole_run_is_recorded_by_default() -> None:
    assert output_path(BenchConfig(), CPU) == Path("docs/results/bench/cpu.json")
    assert output_path(BenchConfig(), GPU) == Path("docs/results/bench/gpu.json")
    assert output_path(BenchConfig(parts=["encoder"]), CPU) == Path("runs/bench/cpu.json")
    assert output_path(BenchConfig(parts=["encoder"], update=True), CPU) == Path("docs/results/bench/cpu.json")
    assert output_path(BenchConfig(parts=["encoder"], output="x.json"), GPU) == Path("x.json")


def test_other_sizes_do_not_get_into_the_record() -> None:
    worlds = Worlds.__new__(Worlds)  # nothing of it is read
    for changed in (BenchConfig(update=True, batch_size=2), BenchConfig(update=True, full=["experiment=tiny"])):
        with pytest.raises(ValueError, match="keeps the record's sizes"):
            bench(changed, worlds)
