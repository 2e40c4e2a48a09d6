"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `cuda` need a GPU."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="no CUDA GPU"))


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve procedural heads of 32² with their cameras, factors, depth and parts, as a zip in EG3D's format."""
    from goae.data.mini import SplitConfig, write_split

    path = tmp_path_factory.mktemp("data") / "train.zip"
    write_split(SplitConfig("train", 12, 0, 32), path, workers=1, progress=lambda done: None)
    return path
