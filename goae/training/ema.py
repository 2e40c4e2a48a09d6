"""Exponential moving average of a module's weights; the paper uses none, so it is off unless configured."""

import copy

import torch
from torch import nn


class WeightAverage:
    """Follows `module`: parameters are averaged with `decay` per step, buffers are copied."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"ema decay is {decay}; expected a number between 0 and 1, or ema: 0 to switch it off")
        self.decay = decay
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average one step towards `module`."""
        for average, current in zip(self.module.parameters(), module.parameters(), strict=True):
            average.lerp_(current.detach(), 1 - self.decay)
        for copied, buffer in zip(self.module.buffers(), module.buffers(), strict=True):
            copied.copy_(buffer)
