"""Identity by InceptionResnetV1 trained on VGGFace2, as the `facenet-pytorch` package defines it."""

from pathlib import Path

from eg3d.uninitialized import Uninitialized
from torch import Tensor
from torch.nn import functional as F

from goae.extractors.frozen import Frozen
from goae.states import load_strictly
from goae.weights import locate, read_state

SIZE = 160
BOX = (0.20, 0.22, 0.80, 0.82)  # left, top, right, bottom of the face in EG3D's face crops, as shares of the side


class FaceNet(Frozen):
    """Embeddings of portraits cropped as EG3D's faces are; differentiable in the image.

    Args:
        path: 20180402-114759-vggface2.pt; None looks into the cache.
        box: the face's share of the picture, which is cropped and resized to 160².
    """

    def __init__(self, path: str | Path | None = None, box: tuple[float, float, float, float] = BOX) -> None:
        from facenet_pytorch import InceptionResnetV1  # takes seconds, with torchvision's models

        super().__init__()
        file = locate("facenet", path)
        self.box = box
        with Uninitialized():
            self.network = InceptionResnetV1(pretrained=None, classify=False)
        state = {
            n: t for n, t in read_state(file, "facenet").items() if not n.startswith("logits.")
        }  # training's classifier
        load_strictly(self.network, state, file)
        self.freeze()

    def embed(self, image: Tensor) -> Tensor:
        """Identity of (B, 3, H, W) images in [-1, 1]. Returns: (B, 512) unit vectors."""
        height, width = image.shape[2:]
        left, top, right, bottom = self.box
        face = image[:, :, round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
        face = F.interpolate(face, (SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True)
        return self.network(face * (127.5 / 128.0))  # the package's (pixel - 127.5) / 128
