"""LPIPS, the perceptual distance of training and evaluation (paper, Eq. 5; AlexNet unless configured otherwise).

Heads, normalisation and architecture are those of the `lpips` package; the ImageNet trunk, which its constructor would
download, is loaded from a file of `scripts/fetch_weights.py`.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from eg3d.uninitialized import Uninitialized
from torch import Tensor

from goae.extractors.frozen import Frozen
from goae.states import load_strictly
from goae.weights import locate, read_state

if TYPE_CHECKING:
    import lpips

NETS = ("alex", "vgg")
SMALLEST = {"alex": 32, "vgg": 16}  # pixels; below, a feature map has no pixel left


class LPIPS(Frozen):
    """Learned perceptual distance of image pairs, v0.1.

    Args:
        net: "alex" or "vgg".
        path: the trunk's file; None looks into the cache.
    Raises: ValueError for another net or a file that does not fit; FileNotFoundError naming the command to run.
    """

    def __init__(self, net: str = "alex", path: str | Path | None = None) -> None:
        super().__init__()
        if net not in NETS:
            raise ValueError(f"perception.lpips is {net!r}; expected one of {', '.join(NETS)}")
        self.name = net
        with Uninitialized():
            self.net = build(net)
        file = locate(net, path)
        trunk = read_state(file, net)
        own = {n: t for n, t in self.net.state_dict().items() if not n.startswith("net.")}
        load_strictly(self.net, own | trunk, file)
        self.freeze()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances of (B, 3, H, W) images in [-1, 1]. Returns: (B,), 0 for equal images."""
        if a.shape != b.shape or a.ndim != 4 or a.shape[1] != 3:
            raise ValueError(f"images have shapes {tuple(a.shape)} and {tuple(b.shape)}; expected (B, 3, H, W) twice")
        if min(a.shape[2:]) < SMALLEST[self.name]:
            raise ValueError(f"images are {tuple(a.shape[2:])}; LPIPS needs at least {SMALLEST[self.name]} pixels")
        return self.net(a, b).flatten()


def build(net: str) -> "lpips.LPIPS":
    """The package's network with its heads and a random trunk; downloads nothing and leaves the random state alone."""
    import lpips  # takes seconds, with torchvision's models

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        return lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
