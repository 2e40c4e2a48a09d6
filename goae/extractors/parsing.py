"""Which pixels are background: the mask M of the background-depth term (paper, Eq. 4).

Faces: a BiSeNet parser of 19 classes, class 0 is background. Cats, for which no parser exists: a general segmenter
with a cat class, or a rule on what the renderer says: background is where a ray's depth lies beyond a threshold. The
rule needs no file and is the default for cats.
"""

from pathlib import Path

import torch
from eg3d.uninitialized import Uninitialized
from torch import Tensor
from torch.nn import functional as F

from goae.extractors.bisenet import BiSeNet
from goae.extractors.frozen import Frozen, read_state
from goae.states import load_strictly
from goae.weights import locate

SIZE = 512  # side at which the networks see a picture
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VOC_CAT, VOC_PERSON, VOC_CLASSES = 8, 15, 21


class FaceParser(Frozen):
    """The face parser.

    Args:
        path: 79999_iter.pth; None looks into the cache.
        size: pictures are parsed at size², a multiple of 32.
    Raises: FileNotFoundError saying how to get the file; ValueError listing what does not fit.
    """

    def __init__(self, path: str | Path | None = None, size: int = SIZE) -> None:
        super().__init__()
        if size % 32:
            raise ValueError(f"size {size} is not a multiple of 32")
        file = locate("parser", path)
        self.size = size
        with Uninitialized():
            self.network = BiSeNet()
        load_strictly(self.network, read_state(file), file)
        self.freeze()

    def parts(self, image: Tensor) -> Tensor:
        """Logits of (B, 3, H, W) images in [-1, 1]. Returns: (B, 19, size, size)."""
        return self.network(_normalised(image, self.size))

    @torch.no_grad()
    def background(self, image: Tensor) -> Tensor:
        """Returns: (B, 1, H, W), 1 where the likeliest class is background."""
        return _mask(self.parts(image).argmax(1, keepdim=True) == 0, image)


class Segmenter(Frozen):
    """A general segmenter: everything that is not `subject` counts as background.

    Args:
        path: torchvision's deeplabv3_resnet50_coco-cd0a2569.pth (21 VOC classes); None looks into the cache.
        subject: the VOC class to keep, 8 is cat, 15 is person.
        size: pictures are segmented at size².
    """

    def __init__(self, path: str | Path | None = None, subject: int = VOC_CAT, size: int = SIZE) -> None:
        from torchvision.models.segmentation import deeplabv3_resnet50  # takes seconds

        super().__init__()
        if not 0 < subject < VOC_CLASSES:
            raise ValueError(f"subject {subject} is not one of the classes 1..{VOC_CLASSES - 1}")
        file = locate("segmenter", path)
        self.subject, self.size = subject, size
        with Uninitialized():
            self.network = deeplabv3_resnet50(
                weights=None, weights_backbone=None, num_classes=VOC_CLASSES, aux_loss=True
            )
        load_strictly(self.network, read_state(file), file)
        self.freeze()

    def parts(self, image: Tensor) -> Tensor:
        """Logits of (B, 3, H, W) images in [-1, 1]. Returns: (B, 21, size, size)."""
        return self.network(_normalised(image, self.size))["out"]

    @torch.no_grad()
    def background(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) images in [-1, 1]. Returns: (B, 1, H, W), 1 where the likeliest class is not the subject."""
        return _mask(self.parts(image).argmax(1, keepdim=True) != self.subject, image)


def background_by_depth(depth: Tensor, threshold: float) -> Tensor:
    """1 where the depth along the ray (B, 1, R, R) lies beyond `threshold`, scene units."""
    return (depth > threshold).to(depth.dtype)


def _normalised(image: Tensor, size: int) -> Tensor:
    if image.shape[2:] != (size, size):
        image = F.interpolate(image, (size, size), mode="bilinear", align_corners=False, antialias=True)
    mean, std = image.new_tensor(MEAN)[:, None, None], image.new_tensor(STD)[:, None, None]
    return ((image + 1.0) / 2.0 - mean) / std


def _mask(background: Tensor, image: Tensor) -> Tensor:
    return F.interpolate(background.to(image.dtype), image.shape[2:], mode="nearest")
