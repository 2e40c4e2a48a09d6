"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `cuda` need a GPU; those marked `slow` come first, so that no process ends long after the others."""
    for item in items:
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA GPU"))
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    items[:] = slow_first(items, workers)


def slow_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """The tests, so ordered that their equal runs, which `worksteal` deals to the workers, begin with slow ones."""
    slow = [item for item in items if item.get_closest_marker("slow")]
    quick = iter([item for item in items if not item.get_closest_marker("slow")])
    ordered: list[pytest.Item] = []
    for k in range(workers):
        ordered += slow[k::workers]
        length = len(items) * (k + 1) // workers - len(ordered)
        ordered += [item for item, _ in zip(quick, range(length), strict=False)]
    return ordered + list(quick)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve procedural heads of 32² with their cameras, factors, depth and parts, as a zip in EG3D's format."""
    from goae.data.mini import SplitConfig, write_split

    path = tmp_path_factory.mktemp("data") / "train.zip"
    write_split(SplitConfig("train", 12, 0, 32), path, workers=1, progress=lambda done: None)
    return path


@pytest.fixture
def nothing_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shipped run stands in for one that is missing."""
    monkeypatch.setattr("goae.config.training.SHIPPED_RUNS", str(tmp_path / "nothing"))
