"""What every pre-trained extractor shares: strict loading, no gradient to its parameters, evaluation mode for good."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from eg3d.integrity import verify
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn


class Frozen(nn.Module):
    """A network that is used, not trained: gradients reach its input only, `train()` leaves it in evaluation mode."""

    def freeze(self) -> Self:
        """Stop gradients to the parameters and switch dropout and batch statistics off."""
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors or of a torch file, on the CPU; no code of the file is run.

    A dictionary with one entry `state_dict` is unwrapped, and a `module.` in front of every name dropped.
    Raises: ValueError if the file is damaged or holds more than tensors.
    """
    verify(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} cannot be read as network weights: {error}") from error
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            raise
        raise ValueError(f"{path} holds more than tensors and was not loaded: {error}") from error
    while isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected a dictionary of tensors")
    state = {str(name): value for name, value in content.items()}
    return {n.removeprefix("module."): t for n, t in state.items()} if all(n[:7] == "module." for n in state) else state
