"""Features of VGG16 on ImageNet, for distances between sets of images that no network of this project had a hand in."""

from pathlib import Path

from torch import Tensor

from goae.extractors.frozen import Frozen
from goae.extractors.lpips import LPIPS


class VGG(Frozen):
    """The trunk of LPIPS-VGG, averaged over the picture behind its fourth group of layers, where 64² have become 8².

    Args:
        path: what `scripts/fetch_weights.py vgg` writes; None looks into the cache.
    """

    num_features = 512

    def __init__(self, path: str | Path | None = None) -> None:
        super().__init__()
        self.network = LPIPS("vgg", path).net
        self.freeze()

    def features(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, 512)."""
        return self.network.net(self.network.scaling_layer(image)).relu4_3.mean((2, 3))
