"""Strict loading of weights, with all that does not fit in one message."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Load a state dict whose names and shapes are exactly the module's.

    Raises: ValueError listing what is missing, unexpected, or of another shape in `source`.
    """
    own = module.state_dict()
    problems = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "of another shape": [
            f"{n} {tuple(state[n].shape)} instead of {tuple(own[n].shape)}"
            for n in sorted(own.keys() & state.keys())
            if own[n].shape != state[n].shape
        ],
    }
    if any(problems.values()):
        listed = "; ".join(f"{what}: {shortened(names)}" for what, names in problems.items() if names)
        raise ValueError(f"{source} does not fit {type(module).__name__}: {listed}")
    module.load_state_dict(dict(state))


def shortened(names: list[str], most: int = 12) -> str:
    """The first names of a list for a message, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
