"""Inception-v3 features of FID and KID (2,048 numbers after the last pooling), for torchmetrics' `feature=`.

Architecture and resizing are torchmetrics' and torch-fidelity's; their loader unpickles whatever a file holds, so the
file is read here as tensors and handed over from memory.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from goae.extractors.frozen import Frozen
from goae.weights import locate, read_state

if TYPE_CHECKING:
    from torchmetrics.image.fid import NoTrainInceptionV3


class Inception(Frozen):
    """Pooled features of images.

    Args:
        path: weights-inception-2015-12-05-6726825d.pth; None looks into the cache.
        antialias: whether images that are shrunk to 299² are smoothed first; the original FID does not.
    Raises: FileNotFoundError naming the command to run; ValueError for a file that does not fit.
    """

    num_features = 2048  # read by torchmetrics

    def __init__(self, path: str | Path | None = None, antialias: bool = False) -> None:
        super().__init__()
        file = locate("inception", path)
        self.network = build(read_state(file, "inception"), file, antialias)
        self.freeze()

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W), uint8 or float in [-1, 1] -> (B, 2048) float32."""
        if image.dtype != torch.uint8:
            image = ((image.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
        return self.network(image)

    def features(self, image: Tensor) -> Tensor:
        """The same under the name that every Fréchet extractor has."""
        return self(image)


def build(state: dict[str, Tensor], source: Path | str, antialias: bool = False) -> "NoTrainInceptionV3":
    """torchmetrics' module with the tensors of `state`. Raises: ValueError listing what does not fit."""
    from torchmetrics.image.fid import NoTrainInceptionV3  # takes seconds

    memory = io.BytesIO()
    torch.save(dict(state), memory)
    memory.seek(0)
    try:
        return NoTrainInceptionV3("inception-v3-compat", ["2048"], memory, antialias=antialias)  # type: ignore[arg-type]
    except RuntimeError as error:  # the list of names that differ
        raise ValueError(f"{source} does not fit the Inception-v3 of FID: {' '.join(str(error).split())}") from error
