"""Canonical latent discriminator: w -> logit (paper, Sec. 4.1, Eq. 2 and 3), and the history pool of its codes.

It judges single vectors: real ones are codes of the mapping network under the canonical pose, fake ones the rows of the
encoder's ws. The paper does not give its shape; the four layers and the pool of 50 codes follow e4e.
"""

from dataclasses import dataclass

import torch
from eg3d.transfer import send
from torch import Tensor, nn


@dataclass
class LatentDiscriminatorConfig:
    """Sizes of the latent discriminator."""

    w_dim: int = 512  # width of a code, and of the hidden layers
    num_layers: int = 4  # linear layers, the last one to the logit
    slope: float = 0.2  # of the LeakyReLU between them

    def __post_init__(self) -> None:
        if self.w_dim < 1 or self.num_layers < 1:
            raise ValueError(f"discriminator: w_dim={self.w_dim} and num_layers={self.num_layers} must be positive")


class LatentDiscriminator(nn.Module):
    """Linear layers with LeakyReLU between them; no activation on the logit."""

    def __init__(self, config: LatentDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        for _ in range(config.num_layers - 1):
            layers += [nn.Linear(config.w_dim, config.w_dim), nn.LeakyReLU(config.slope)]
        self.layers = nn.Sequential(*layers, nn.Linear(config.w_dim, 1))

    def forward(self, w: Tensor) -> Tensor:
        """Codes (N, w_dim) -> logits (N, 1); large means canonical."""
        return self.layers(w)


class CodePool:
    """The last codes shown to the discriminator, to be shown again.

    Until `size` codes are held, every code is stored and returned. From then on each code is, with equal chance,
    returned as it is, or put in the place of a stored one that is returned instead. Size 0 returns what comes in.
    """

    def __init__(self, size: int) -> None:
        if size < 0:
            raise ValueError(f"the pool's size must not be negative, got {size}")
        self.size = size
        self._codes: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._codes)

    def exchange(self, codes: Tensor, generator: torch.Generator) -> Tensor:
        """Pass codes (N, w_dim) through the pool; the result is detached.

        Args:
            generator: decides what is swapped; the same state and pool give the same result.
        """
        shown = []
        for code in codes.detach():
            if len(self._codes) < self.size:
                self._codes.append(code.clone())
            elif self.size and self._draw(2, generator):
                index = self._draw(self.size, generator)
                code, self._codes[index] = send(self._codes[index], code), code.clone()
            shown.append(code)
        return torch.stack(shown)

    @staticmethod
    def _draw(n: int, generator: torch.Generator) -> int:
        return int(torch.randint(n, (1,), generator=generator, device=generator.device))

    def state_dict(self) -> dict[str, Tensor]:
        """Give the stored codes (n, w_dim), in order, where they are; empty if there are none."""
        return {"codes": torch.stack(self._codes)} if self._codes else {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over stored codes. Raises: ValueError if they are more than the pool's size."""
        codes = list(state["codes"].unbind(0)) if "codes" in state else []
        if len(codes) > self.size:
            raise ValueError(f"a pool of {self.size} codes cannot take over {len(codes)}")
        self._codes = [code.clone() for code in codes]
