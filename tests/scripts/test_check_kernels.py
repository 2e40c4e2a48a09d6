import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_kernels.py"
WRITES_ITS_OUTPUT = 'echo "$0 $@" >> "$LOG"; while [ "$1" != -o ]; do shift; done; touch "$2"'

pytestmark = pytest.mark.skipif(torch.version.cuda is None, reason="this PyTorch is built without CUDA")


def run(tmp_path: Path, nvcc: str) -> subprocess.CompletedProcess:
    """The script with stand-ins for the compilers, which are shell scripts."""
    for name, script in (("bin/nvcc", nvcc), ("c++", WRITES_ITS_OUTPUT)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    env = {**os.environ, "CUDA_HOME": str(tmp_path), "CXX": str(tmp_path / "c++"), "LOG": str(tmp_path / "log")}
    return subprocess.run([sys.executable, SCRIPT], env=env, capture_output=True, text=True, check=False)


def test_compiles_every_cuda_source(tmp_path: Path) -> None:
    done = run(tmp_path, WRITES_ITS_OUTPUT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"nvcc found: {tmp_path}/bin/nvcc\n")
    commands = (tmp_path / "log").read_text().splitlines()
    by_nvcc = [command for command in commands if command.startswith(f"{tmp_path}/bin/nvcc")]
    sources = sorted((SCRIPT.parents[1] / "third_party" / "eg3d" / "ops" / "csrc").glob("*.cu"))
    assert len(sources) == len(by_nvcc) == 3
    for source in sources:
        assert source.name in done.stdout
        command = next(command for command in by_nvcc if source.name in command)
        assert "code=sm_80" in command
        assert "code=sm_90" in command


def test_a_source_that_does_not_compile_is_shown(tmp_path: Path) -> None:
    done = run(tmp_path, "echo 'bias_act_cuda.cu(7): error: no such thing' >&2; exit 2")
    assert done.returncode == 1
    assert "bias_act_cuda.cu(7): error: no such thing" in done.stderr
