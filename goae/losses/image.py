"""The reconstruction objective shared by both stages (paper, Eq. 5 and 13)."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from goae.losses.identity import identity
from goae.losses.reconstruction import mean_squared, perceptual, pooled


@dataclass
class ImageWeights:
    """lambda 1 to 3; 0 switches a term off and skips its network."""

    l2: float = 1.0
    lpips: float = 0.8
    id: float = 0.25

    def as_dict(self) -> dict[str, float]:
        """name -> weight."""
        return {"l2": self.l2, "lpips": self.lpips, "id": self.id}


class ImageLosses:
    """Unweighted terms of L_rec on images pooled to `resolution` by averaging."""

    def __init__(
        self,
        weights: ImageWeights,
        *,
        resolution: int,
        lpips: Callable[[Tensor, Tensor], Tensor] | None,
        embed: Callable[[Tensor], Tensor] | None,
    ) -> None:
        if weights.lpips and lpips is None:
            raise ValueError(
                "weights.lpips is not 0 but perception.lpips is none: name a network, or set the weight to 0"
            )
        if weights.id and embed is None:
            raise ValueError(
                "weights.id is not 0 but perception.identity is none: name a network, or set the weight to 0"
            )
        self.weights, self.resolution, self.lpips, self.embed = weights, resolution, lpips, embed

    def __call__(self, image: Tensor, target: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) in [-1, 1] each -> {l2, lpips, id} as far as their weight is not 0, scalars."""
        image, target = pooled(image, self.resolution), pooled(target, self.resolution)
        terms = {}
        if self.weights.l2:
            terms["l2"] = mean_squared(image, target)
        if self.weights.lpips and self.lpips is not None:
            terms["lpips"] = perceptual(image, target, self.lpips)
        if self.weights.id and self.embed is not None:
            terms["id"] = identity(image, target, self.embed)
        return terms
