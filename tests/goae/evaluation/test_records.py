"""Sections of a file of numbers: each writer changes its own keys, none is lost, nothing is half written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from goae.evaluation.records import read_records, update_section

WRITER = """
import sys
from pathlib import Path
from goae.evaluation.records import update_section
for i in range(40):
    update_section(Path(sys.argv[1]), sys.argv[2], {f"n{i}": i})
"""


def test_a_section_changes_and_all_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "new" / "metrics.json"
    update_section(path, "prior", {"fd": 2.0, "kid": 1.0})
    update_section(path, "canonical.left", {"identity": 0.5})
    update_section(path, "prior", {"fd": 3.0})
    assert json.loads(path.read_text()) == {
        "prior": {"fd": 3.0, "kid": 1.0},
        "canonical": {"left": {"identity": 0.5}},
    }
    assert [p.name for p in path.parent.iterdir()] == ["metrics.json"]


def test_a_key_that_is_none_is_taken_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    update_section(path, "prior", {"fd": 2.0, "fd_previous": 4.0})
    update_section(path, "prior", {"fd": 3.0, "fd_previous": None, "fd_warm_start": None})
    assert read_records(path) == {"prior": {"fd": 3.0}}


def test_no_number_of_writers_at_once_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), f"w{k}"]) for k in range(3)]
    assert [w.wait(timeout=100) for w in writers] == [0, 0, 0]
    assert read_records(path) == {f"w{k}": {f"n{i}": i for i in range(40)} for k in range(3)}


def test_what_cannot_be_written_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    update_section(path, "prior", {"fd": 2.0})
    before = path.read_text()
    with pytest.raises(ValueError, match="not JSON compliant"):
        update_section(path, "prior", {"kid": float("nan")})
    with pytest.raises(ValueError, match=r"prior\.fd .* leads through fd, which is 2\.0"):
        update_section(path, "prior.fd", {"low": 1.0})
    assert path.read_text() == before


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    with pytest.raises(FileNotFoundError, match=r"metrics\.json does not exist"):
        read_records(path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"metrics\.json cannot be read as JSON"):
        update_section(path, "prior", {"fd": 1.0})
    path.write_text("[]")
    with pytest.raises(ValueError, match="holds a list"):
        read_records(path)
