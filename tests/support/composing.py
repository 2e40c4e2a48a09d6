"""The configuration that a script would run with, composed from configs/."""

from pathlib import Path
from typing import TypeVar

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from goae.config import register, to_object

CONFIGS = Path(__file__).parents[2] / "configs"
C = TypeVar("C")
register()


def composed(*overrides: str, name: str = "train") -> DictConfig:
    """configs/<name>.yaml with the overrides, as Hydra composes it."""
    with initialize_config_dir(str(CONFIGS), version_base=None):
        return compose(name, overrides=list(overrides))


def composed_as(schema: type[C], *overrides: str, name: str = "train") -> C:
    """configs/<name>.yaml with the overrides, as its checked dataclasses."""
    return to_object(composed(*overrides, name=name), schema)
