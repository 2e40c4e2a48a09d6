"""Identity by ArcFace IR-SE50, as the paper's identity loss and metric use it (Sec. 4.1).

The images are brought to 256², cropped to rows 35..222 and columns 32..219, averaged to 112², and embedded; similarity
is the cosine of embeddings. Layer names are those of the public checkpoint `model_ir_se50.pth`:

    input_layer.{0 conv, 1 bn, 2 prelu}
    body.N.shortcut_layer.{0 conv, 1 bn}        where the width changes, else the input is subsampled
    body.N.res_layer.{0 bn, 1 conv, 2 prelu, 3 conv, 4 bn, 5.fc1, 5.fc2}          24 units
    output_layer.{0 bn, 3 linear, 4 bn}
"""

from pathlib import Path

from eg3d.uninitialized import Uninitialized
from torch import Tensor, nn
from torch.nn import functional as F

from goae.extractors.frozen import Frozen
from goae.ir_se import Trunk
from goae.states import load_strictly
from goae.weights import locate, read_state

WIDTHS, UNITS, SQUEEZE = (64, 128, 256, 512), (3, 4, 14, 3), 16


class ArcFace(Frozen):
    """Embeddings of portraits; differentiable in the image.

    Args:
        path: model_ir_se50.pth; None looks into the cache.
    Raises: FileNotFoundError saying how to get the file; ValueError listing what does not fit.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        super().__init__()
        file = locate("arcface", path)
        with Uninitialized():
            self.network = IRSE50()
        load_strictly(self.network, read_state(file, "arcface"), file)
        self.freeze()

    def embed(self, image: Tensor) -> Tensor:
        """Identity of (B, 3, H, W) images in [-1, 1]. Returns: (B, 512) unit vectors."""
        return F.normalize(self.network.embed(crop(image)))


def crop(image: Tensor) -> Tensor:
    """(B, 3, H, W) -> the face at 112², by way of 256²."""
    if image.shape[2] % 256 == 0 and image.shape[3] % 256 == 0:
        image = F.adaptive_avg_pool2d(image, 256)
    elif image.shape[2:] != (256, 256):
        image = F.interpolate(image, (256, 256), mode="bilinear", align_corners=False, antialias=True)
    return F.adaptive_avg_pool2d(image[:, :, 35:223, 32:220], 112)


class IRSE50(Trunk):
    """Improved residual network of 50 layers with squeeze-and-excitation, and the embedding of its last map."""

    def __init__(self) -> None:
        super().__init__(3, WIDTHS, UNITS, SQUEEZE)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512), nn.Dropout(0.6), nn.Flatten(), nn.Linear(512 * 7 * 7, 512), nn.BatchNorm1d(512)
        )

    def embed(self, image: Tensor) -> Tensor:
        """(B, 3, 112, 112) in [-1, 1] -> the embedding (B, 512), of no fixed length."""
        embedding: Tensor = self.output_layer(self(image)[-1])
        return embedding
