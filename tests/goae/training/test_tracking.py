"""Where numbers go: JSON lines that survive a kill, pictures, wandb without a network."""

from pathlib import Path
from typing import Any

import pytest
import torch

from goae.training.tracking import LoggingConfig, Tracker, read_metrics


def tracker(folder: Path, **options: object) -> Tracker:
    return Tracker(folder, LoggingConfig(**({"progress": False} | options)), active=True)  # type: ignore[arg-type]


def test_resuming_drops_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    first = tracker(tmp_path)
    first.start("encoder", 0, 10)
    for step in range(5):
        first.scalars(step, {"e/l2": float(step)})
    with (tmp_path / "encoder.jsonl").open("a") as file:
        file.write('{"step": 5, "e/l')  # cut off by a kill
    second = tracker(tmp_path)
    second.start("encoder", 3, 10)
    second.scalars(3, {"e/l2": 30.0})
    assert [(row["step"], row["e/l2"]) for row in read_metrics(tmp_path, "encoder")] == [
        (0, 0),
        (1, 1),
        (2, 2),
        (3, 30),
    ]


def test_pictures_are_written(tmp_path: Path) -> None:
    one = tracker(tmp_path)
    one.start("refiner", 0, 1)
    one.images(0, torch.zeros(4, 3, 8, 8), columns=2)
    assert (tmp_path / "images" / "refiner-000000000.png").stat().st_size > 0


def test_an_inactive_tracker_writes_nothing(tmp_path: Path) -> None:
    silent = Tracker(tmp_path / "none", LoggingConfig(), active=False)
    silent.start("encoder", 0, 1)
    silent.scalars(0, {"x": 1.0})
    silent.images(0, torch.zeros(1, 3, 4, 4), columns=2)
    silent.advance(0)
    silent.close()
    assert not (tmp_path / "none").exists()


def test_progress_shows_the_newest_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = tracker(tmp_path, progress=True)
    one.start("encoder", 0, 2)
    one.scalars(0, {"e/l2": 0.5})
    one.advance(0)
    one.finish()
    assert "encoder" in capsys.readouterr().err


def test_a_resumed_run_goes_on_in_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("wandb.init", lambda **given: asked.append(given))
    for mode in ("online", "online", "offline"):
        Tracker(tmp_path / "mini-seed0", LoggingConfig(wandb=mode, progress=False), active=True)
    assert [(given["id"], given["resume"]) for given in asked] == [("mini-seed0", "allow")] * 2 + [("mini-seed0", None)]


def test_wandb_works_offline(tmp_path: Path) -> None:
    one = Tracker(tmp_path, LoggingConfig(wandb="offline", progress=False), active=True, settings={"seed": 0})
    one.start("encoder", 0, 1)
    one.scalars(0, {"e/l2": 1.0})
    one.images(0, torch.zeros(2, 3, 8, 8), columns=2)
    one.close()
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
