"""The configuration that a script would run with, composed from configs/."""

from pathlib import Path
from typing import TypeVar

from hydra import compose, initialize_config_dir

from goae.config import register, to_object

CONFIGS = Path(__file__).parents[1] / "configs"
C = TypeVar("C")
register()


def composed_as(schema: type[C], *overrides: str, name: str = "train") -> C:
    """configs/<name>.yaml with the overrides, as its checked dataclasses."""
    with initialize_config_dir(str(CONFIGS), version_base=None):
        return to_object(compose(name, overrides=list(overrides)), schema)
