"""Freeze pre-trained extractors: no gradient to its parameters, evaluation mode for good."""

from typing import Self

from torch import nn


class Frozen(nn.Module):
    """A network that is used, not trained: gradients reach its input only, `train()` leaves it in evaluation mode."""

    def freeze(self) -> Self:
        """Stop gradients to the parameters and switch dropout and batch statistics off."""
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)
