"""Scripts that Hydra configures: a command line in, a checked configuration to the job, errors in one paragraph."""

from goae.errors import AGAIN, one_paragraph

import functools
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from goae.config.command_line import as_given, explain
from goae.config.composing import register, require_plugins, to_object
from goae.config.training import InRunFolder
from goae.training import checkpoint

C = TypeVar("C")
R = TypeVar("R")


def script(name: str, schema: type[C], *others: type) -> Callable[[Callable[[C], R]], Callable[[], None]]:
    """Make a script of a job: its argument is `configs/<name>.yaml` with what the command line changes, as `schema`.

    Args:
        others: further schemas that the job composes itself.
    """
    register(schema, *others)

    def decorate(job: Callable[[C], R]) -> Callable[[], None]:
        @functools.wraps(job)  # Hydra looks for configs/ from the file of the job
        def task(composed: DictConfig) -> R:
            with one_paragraph():
                config = _checked(composed, schema)
            HydraConfig.instance().cfg = None  # Fabric starts further processes by the plain command line and folder
            with one_paragraph(partial(_kept, config)):
                return job(config)

        @functools.wraps(job)
        def main() -> None:
            with one_paragraph():
                require_plugins(sys.argv[1:])
                os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach this place, and are not printed by Hydra
                sys.argv[1:] = as_given(sys.argv[1:], schema)  # also what further processes are started with
                try:
                    hydra.main(version_base=None, config_path="../configs", config_name=name)(task)()
                except (HydraException, OmegaConfBaseException) as error:
                    raise ValueError(explain(error, schema)) from error

        return main

    return decorate


def _checked(composed: DictConfig, schema: type[C]) -> C:
    try:
        return to_object(composed, schema)
    except OmegaConfBaseException as error:
        raise ValueError(explain(error, schema)) from error


def _kept(config: object) -> str:
    """Say what a stopped job leaves and how to go on."""
    folder = config.run_dir / "checkpoints" if isinstance(config, InRunFolder) else None
    if folder is None or not folder.is_dir():
        return AGAIN
    steps = {stage.name: checkpoint.reached(stage) for stage in sorted(folder.iterdir())}
    told = ", ".join(f"step {step} of stage {stage}" for stage, step in steps.items() if step is not None)
    return f"{folder} keeps {told}; the same command goes on from there." if told else AGAIN
