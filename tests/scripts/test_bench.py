"""The benchmark from its command line, on the smallest networks."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts import run_script

TINY = [
    'full=["experiment=tiny","preset=official"]',
    'mini=["experiment=tiny","stages.encoder.bg=0","stages.refiner.bg=0"]',
    'prior=["generator=tiny","perception.lpips=none","data.resolution=32","data.loss_resolution=32"]',
    "num_threads=1",
    "device=cpu",
]
KEYS = {"ref_s", "ours_s", "ratio", "ref_bytes", "ours_bytes", "limit_s"}


def bench(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and what was written."""
    output = tmp_path / "out" / "cpu.json"
    code = run_script("bench", *TINY, f"output={output}", *arguments)
    return code, json.loads(output.read_text()) if output.exists() else {}


def test_parts_are_measured_and_a_failing_one_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = "parts=[mini_prior_step,renderer_backward]"
    code, written = bench(tmp_path, parts, "repeats=2")  # the prior's LPIPS is switched off, but not its weight
    shown = capsys.readouterr()
    assert code == 1
    assert "mini_prior_step failed" in shown.err
    assert "warm_start.lpips is not 0" in shown.err
    assert list(written["parts"]) == ["renderer_backward"]
    for part in written["parts"].values():
        assert set(part) >= KEYS
        assert part["ratio"] == pytest.approx(part["ref_s"] / part["ours_s"])
        assert part["flops"] > 0
        assert len(part["ref_runs_s"]) == len(part["ours_runs_s"]) == 2
        assert "original_s" not in part  # these are not the released sizes
    assert written["machine"]["threads"] == 1
    assert written["machine"]["conv_gflops"] > 0
    assert (tmp_path / "out" / "cpu.png").read_bytes().startswith(b"\x89PNG")
    assert "renderer_backward" in shown.out


def test_a_wrong_name_fails_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, written = bench(tmp_path, "parts=[rendering]")
    assert code == 1
    assert "parts rendering do not exist" in capsys.readouterr().err
    assert not written
