"""The configuration that a script would run with, composed from configs/."""

import copy
from functools import cache
from pathlib import Path
from typing import TypeVar

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from goae.config import register, to_object

CONFIGS = Path(__file__).parents[2] / "configs"
C = TypeVar("C")
register()


def composed(*overrides: str, name: str = "train") -> DictConfig:
    """configs/<name>.yaml with the overrides, as Hydra composes it.

    Reading and merging the files takes most of the time, and is done once for the same choice of groups.
    """
    values = [override for override in overrides if sets_a_value(override)]
    config = copy.deepcopy(chosen(tuple(o for o in overrides if o not in values), name))
    parsed = OverridesParser.create().parse_overrides(values)
    ConfigLoaderImpl._apply_overrides_to_config(parsed, config)  # what Hydra itself does last
    return config


def composed_as(schema: type[C], *overrides: str, name: str = "train") -> C:
    """configs/<name>.yaml with the overrides, as its checked dataclasses."""
    return to_object(composed(*overrides, name=name), schema)


def sets_a_value(override: str) -> bool:
    """Whether it is KEY=VALUE and KEY no group of configs/."""
    key = override.partition("=")[0]
    return key.replace(".", "").isidentifier() and not (CONFIGS / key).is_dir()


@cache
def chosen(groups: tuple[str, ...], name: str) -> DictConfig:
    """What Hydra composes for these choices; not to be changed."""
    return composed_by_hydra(*groups, name=name)


def composed_by_hydra(*overrides: str, name: str = "train") -> DictConfig:
    """The same as `composed`, in Hydra's hands altogether."""
    with initialize_config_dir(str(CONFIGS), version_base=None):
        return compose(name, overrides=list(overrides))
