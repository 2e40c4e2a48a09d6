"""Rows on disk: torn writes, several processes, and settings that must not mix."""

from pathlib import Path

import pytest
import torch
from torch import nn

from goae.evaluation.results import Results, module_hash


def results(folder: Path, width: int = 3) -> Results:
    return Results(folder, "full", ["name", "mse"], width=width, places=2)


def write(where: Results, rank: int, task: int) -> None:
    """Both rows of a task."""
    rows = [{"task": task, "place": i, "name": f"{task}-{i}", "mse": repr(task + i / 3)} for i in range(2)]
    where.append(rank, rows, torch.tensor([[task, i, 0.25] for i in range(2)]))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_rows_come_back_with_their_features_in_the_order_of_tasks(tmp_path: Path) -> None:
    found = results(tmp_path)
    for rank, task in ((0, 4), (1, 1), (0, 0)):
        write(found, rank, task)
    assert found.merge() == {0, 1, 4}
    rows, features = found.read()
    assert [row["name"] for row in rows] == ["0-0", "0-1", "1-0", "1-1", "4-0", "4-1"]
    assert float(rows[3]["mse"]) == 1 + 1 / 3
    assert features.tolist() == [[t, i, 0.25] for t in (0, 1, 4) for i in range(2)]
    assert sorted(content(tmp_path)) == ["full.csv", "full.features"]


def test_who_wrote_what_when_does_not_show(tmp_path: Path) -> None:
    one, two = results(tmp_path / "one"), results(tmp_path / "two")
    for folder in (one, two):
        folder.claim({})
    for task in range(4):
        write(one, 0, task)
    one.merge()
    write(two, 1, 3)
    two.merge()
    for rank, task in ((0, 0), (1, 1), (1, 2), (0, 3)):
        write(two, rank, task)
    two.merge()
    assert content(tmp_path / "one") == content(tmp_path / "two")


@pytest.mark.parametrize("lost", [1, 9, 30])
@pytest.mark.parametrize("file", ["full.part0.csv", "full.part0.features"])
def test_a_torn_end_loses_its_task_and_no_other(tmp_path: Path, lost: int, file: str) -> None:
    """A kill between or within the two writes leaves either file behind the other."""
    found = results(tmp_path)
    for task in range(3):
        write(found, 0, task)
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:-lost])
    complete = found.merge()
    assert {0} <= complete < {0, 1, 2}  # 30 bytes are more than a task's rows
    assert complete == {0, 1} or lost == 30
    for task in {0, 1, 2} - complete:
        write(found, 0, task)
    assert found.merge() == {0, 1, 2}
    rows, features = found.read()
    assert [row["name"] for row in rows] == [f"{t}-{i}" for t in range(3) for i in range(2)]
    assert features[:, :2].tolist() == [[t, i] for t in range(3) for i in range(2)]


@pytest.mark.parametrize("lost", [1, 20, 40])
def test_rows_that_lack_their_features_are_not_read(tmp_path: Path, lost: int) -> None:
    """A record has 20 bytes here: a torn one, one too few and two too few."""
    found = results(tmp_path)
    for task in range(3):
        write(found, 0, task)
    found.merge()
    binary = tmp_path / "full.features"
    binary.write_bytes(binary.read_bytes()[:-lost])
    with pytest.raises(ValueError, match=r"do not hold the same results; delete full\.\*"):
        results(tmp_path).read()


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    found = results(tmp_path)
    found.claim({"batch_size": 4, "yaws": (60.0, 0.0)})
    found.claim({"batch_size": 4, "yaws": [60.0, 0.0]})
    with pytest.raises(ValueError, match=r"batch_size: 4 there, 5 now.*output=FOLDER"):
        found.claim({"batch_size": 5, "yaws": [60.0, 0.0]})


def test_a_setting_that_came_later_is_at_its_default(tmp_path: Path) -> None:
    """Of groups that are stored, at any level; another value than the default is another setting."""
    defaults = {"goae": {"mix": {"oob": "drop", "sigma": 1.5}, "glass": 0.0}, "optimisation": {"steps": 3}}
    found = results(tmp_path)
    found.claim({"goae": {"mix": {"oob": "clamp"}}})
    found.check({"goae": {"mix": {"oob": "clamp", "sigma": 1.5}, "glass": 0.0}}, defaults=defaults)
    with pytest.raises(ValueError, match=r"goae: .*'sigma': 1\.5.* there, .*'sigma': 2\.0.* now"):
        found.check({"goae": {"mix": {"oob": "clamp", "sigma": 2.0}, "glass": 0.0}}, defaults=defaults)
    with pytest.raises(ValueError, match=r"goae: .*'oob': 'clamp'.* there, .*'oob': 'drop'.* now"):
        found.claim(defaults, defaults=defaults)


def test_a_hash_sees_every_weight() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = module_hash(network)
    assert before == module_hash(network)
    with torch.no_grad():
        network[1].running_mean[1] += 1e-3
    assert module_hash(network) != before
