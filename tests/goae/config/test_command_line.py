"""Paths reach a job as the shell gives them; all other values mean what Hydra makes of them."""

import os
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from composing import CONFIGS, composed_by_hydra
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from goae.config import (
    EditsConfig,
    FiguresConfig,
    InvertConfig,
    ProtocolConfig,
    TablesConfig,
    TrainConfig,
    claim_run,
    load_run,
    to_object,
)
from goae.config.command_line import as_given
from goae.config.composing import SCHEMAS, store_config
from goae.paths import is_path
from hydra.core.override_parser.overrides_parser import OverridesParser

ODD = [
    *("/home/josé/a.png", "a (1).png", "a[1].png", "[a].png", "a=b.png", "a,b.png", "it's.png", 'a"b.png', "a#b.png"),
    *("a&b.png", "{a}.png", "a{b}.png", "a$b.png", "${a}.png", "a${b", "$HOME", "a;b.png", "a!b.png", "a%b.png"),
    *("a@b.png", "图片.png", "C:\\Users\\josé\\a.png", "C:\\dir\\", "\\\\server\\${a}", "a\\${b}", "1.png", "007"),
    *("1e3", "true", "a  b.png", " a.png ", "a:b", "a|b", "-a", "--a", "a\tb", "choice(a,b)", "???a", "a\\", "*?"),
    *("a'", 'a"', "'", "!", "#", "{", "[1,2", "a\nb", "éa\u0301", "~nobody/a", "a~"),
]


def passed(argument: str, schema: type = InvertConfig) -> Any:
    """The value that Hydra sets for an argument."""
    (rewritten,) = as_given([argument], schema)
    override = OverridesParser.create().parse_override(rewritten)
    config = OmegaConf.structured(schema)
    OmegaConf.update(config, override.key_or_group, override.value())
    return OmegaConf.select(config, override.key_or_group)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
@example("\\\\'${a}\\'")
def test_any_path_arrives_unchanged(path: str) -> None:
    if path[0] not in "'\"~" and path not in ("null", "???"):
        assert passed(f"input={path}") == path
        assert as_given(as_given([f"input={path}"], InvertConfig), InvertConfig) == as_given(
            [f"input={path}"], InvertConfig
        )
