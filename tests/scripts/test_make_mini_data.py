"""scripts/make_mini_data.py from the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_mini_data.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), "--resolution", "16", "--workers", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_it_writes_keeps_and_refuses(tmp_path: Path) -> None:
    out = str(tmp_path / "mini")
    sizes = ("--train", "3", "--test", "2", "--splits", "train", "test", "--out", out)
    first = run(*sizes)
    assert first.returncode == 0, first.stderr
    manifest = json.loads((tmp_path / "mini" / "manifest.json").read_text())
    assert {name: split["num_images"] for name, split in manifest.items()} == {"train": 3, "test": 2}
    again = run(*sizes)
    assert again.returncode == 0 and again.stdout.count("complete already") == 2
    other = run(*sizes, "--seed", "1")
    assert other.returncode == 1 and "seed 0 (asked: 1)" in " ".join(other.stderr.split())
    assert "Traceback" not in other.stderr


def test_impossible_settings_are_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sizes = run("--train", "1", "--people", "0", "--out", str(tmp_path / "mini"))
    assert sizes.returncode == 1 and "multiview cannot have 0 images" in " ".join(sizes.stderr.split())
    assert not (tmp_path / "mini").exists()
    unwritable = run("--train", "1", "--splits", "train", "--out", str(tmp_path / "file" / "mini"))
    assert unwritable.returncode == 1 and "error:" in unwritable.stderr and "Traceback" not in unwritable.stderr
