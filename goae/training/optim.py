"""Optimisers of the two stages (paper, App. A): Ranger for the encoder, Adam for the discriminator and AFA."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

NAMES = ("ranger", "adam", "radam")


@dataclass
class OptimizerConfig:
    """What updates a set of parameters; the learning rate is constant (paper, App. A)."""

    name: str = "adam"  # ranger: RAdam + Lookahead (k 6, alpha 0.5) + gradient centralisation; adam; radam
    lr: float = 1e-4
    betas: list[float] = field(default_factory=list)  # empty: (0.95, 0.999) for ranger, (0.9, 0.999) for the others
    weight_decay: float = 0.0
    gradient_centralization: bool = True  # ranger only; the paper names RAdam and Lookahead alone

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(f"optimizer name is {self.name!r}; expected one of {', '.join(NAMES)}")
        if self.lr <= 0:
            raise ValueError(f"optimizer lr is {self.lr}; expected a positive number")
        if len(self.betas) not in (0, 2):
            raise ValueError(f"optimizer betas are {self.betas}; expected two numbers, or none for the defaults")


def build_optimizer(
    config: OptimizerConfig, parameters: Iterable[nn.Parameter] | list[dict[str, Any]]
) -> torch.optim.Optimizer:
    """The optimiser `config.name` over parameters, or over groups of them as PyTorch's optimisers take them."""
    default = (0.95, 0.999) if config.name == "ranger" else (0.9, 0.999)
    betas = (config.betas[0], config.betas[1]) if config.betas else default
    if config.name == "ranger":
        from goae.training.ranger import Ranger  # takes a second, and a configuration is checked without it

        return Ranger(
            parameters,
            lr=config.lr,
            betas=betas,
            weight_decay=config.weight_decay,
            use_gc=config.gradient_centralization,
            degenerated_to_sgd=True,  # otherwise the first five steps change nothing
        )
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.RAdam
    return kind(parameters, lr=config.lr, betas=betas, weight_decay=config.weight_decay)
