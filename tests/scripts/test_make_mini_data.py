"""scripts/make_mini_data.py from the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts import run_script

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the script. Returns: the exit code, what it printed and its messages, each in one line."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run_script("make_mini_data", "--resolution", 16, "--workers", 1, *arguments)
        out, err = capsys.readouterr()
        return code, out, " ".join(err.split())

    return call


def test_it_writes_keeps_and_refuses(tmp_path: Path, run: Run) -> None:
    out = str(tmp_path / "mini")
    sizes = ("--train", "3", "--test", "2", "--splits", "train", "test", "--out", out)
    code, _, messages = run(*sizes)
    assert code == 0, messages
    manifest = json.loads((tmp_path / "mini" / "manifest.json").read_text())
    assert {name: split["num_images"] for name, split in manifest.items()} == {"train": 3, "test": 2}
    code, printed, _ = run(*sizes)
    assert code == 0 and printed.count("complete already") == 2
    code, _, messages = run(*sizes, "--seed", "1")
    assert code == 1 and "seed 0 (asked: 1)" in messages and "Traceback" not in messages


def test_impossible_settings_are_refused_before_any_work(tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").write_text("")
    code, _, messages = run("--train", "1", "--people", "0", "--out", str(tmp_path / "mini"))
    assert code == 1 and "multiview cannot have 0 images" in messages
    assert not (tmp_path / "mini").exists()
    code, _, messages = run("--train", "1", "--splits", "train", "--out", str(tmp_path / "file" / "mini"))
    assert code == 1 and "error:" in messages and "Traceback" not in messages
