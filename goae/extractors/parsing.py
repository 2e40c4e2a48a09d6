"""Which pixels are background: the mask M of the background-depth term (paper, Eq. 4).

Faces: a BiSeNet parser of 19 classes, class 0 is background. Cats, for which no parser exists: a general segmenter of
21 classes. A rule on the render's depth needs no file, but its mask is empty where the term is needed, see
`background_by_depth`: it is for tests, and for runs that were begun with it.
"""

from pathlib import Path

import torch
from eg3d.uninitialized import Uninitialized
from torch import Tensor
from torch.nn import functional as F

from goae.extractors.bisenet import BiSeNet
from goae.extractors.frozen import Frozen
from goae.states import load_strictly
from goae.weights import locate, read_state

SIZE = 512  # side at which the networks see a picture
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VOC_CLASSES = 21
# What is not background. A cat's face close up is at times taken for a dog's: under `cat` the head would then be pushed
# to the background's depth, while an animal behind the head, which `animal` misses, costs the term a few pixels.
SUBJECTS = {"cat": (8,), "animal": (3, 8, 10, 12, 13, 17)}  # animal: bird, cat, cow, dog, horse, sheep


class _Parser(Frozen):
    """Pictures as networks trained on ImageNet see them.

    Args:
        size: side at which they are seen.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def normalised(self, image: Tensor) -> Tensor:
        """Resize (B, 3, H, W) in [-1, 1] to size² and normalise the colours."""
        if image.shape[2:] != (self.size, self.size):
            image = F.interpolate(image, (self.size, self.size), mode="bilinear", align_corners=False, antialias=True)
        return ((image + 1.0) / 2.0 - self.mean) / self.std


class FaceParser(_Parser):
    """The face parser.

    Args:
        path: 79999_iter.pth; None looks into the cache.
        size: pictures are parsed at size², a multiple of 32.
    Raises: FileNotFoundError saying how to get the file; ValueError listing what does not fit.
    """

    def __init__(self, path: str | Path | None = None, size: int = SIZE) -> None:
        super().__init__(size)
        if size % 32:
            raise ValueError(f"size {size} is not a multiple of 32")
        file = locate("parser", path)
        with Uninitialized():
            self.network = BiSeNet()
        load_strictly(self.network, read_state(file, "parser"), file)
        self.freeze()

    def parts(self, image: Tensor) -> Tensor:
        """Logits of (B, 3, H, W) images in [-1, 1]. Returns: (B, 19, size, size)."""
        return self.network(self.normalised(image))

    @torch.no_grad()
    def background(self, image: Tensor) -> Tensor:
        """Returns: (B, 1, H, W), 1 where the likeliest class is background."""
        return _mask(self.parts(image).argmax(1, keepdim=True) == 0, image)


class Segmenter(_Parser):
    """A general segmenter: everything that is not the subject counts as background.

    Args:
        path: torchvision's deeplabv3_resnet50_coco-cd0a2569.pth (21 VOC classes); None looks into the cache.
        subject: whose pixels are kept, a key of `SUBJECTS`.
        size: pictures are segmented at size².
    Raises: ValueError for an unknown subject; FileNotFoundError saying how to get the file.
    """

    def __init__(self, path: str | Path | None = None, subject: str = "cat", size: int = SIZE) -> None:
        from torchvision.models.segmentation import deeplabv3_resnet50  # takes seconds

        super().__init__(size)
        if subject not in SUBJECTS:
            raise ValueError(f"subject is {subject!r}; expected one of {', '.join(SUBJECTS)}")
        file = locate("segmenter", path)
        self.subject = SUBJECTS[subject]
        with Uninitialized():
            self.network = deeplabv3_resnet50(
                weights=None, weights_backbone=None, num_classes=VOC_CLASSES, aux_loss=True
            )
        load_strictly(self.network, read_state(file, "segmenter"), file)
        self.freeze()

    def parts(self, image: Tensor) -> Tensor:
        """Logits of (B, 3, H, W) images in [-1, 1]. Returns: (B, 21, size, size)."""
        return self.network(self.normalised(image))["out"]

    @torch.no_grad()
    def background(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) images in [-1, 1]. Returns: (B, 1, H, W), 1 where the likeliest class is not the subject."""
        likeliest = self.parts(image).argmax(1, keepdim=True)
        return _mask(torch.stack([likeliest != subject for subject in self.subject]).all(0), image)


def background_by_depth(depth: Tensor, threshold: float) -> Tensor:
    """1 where the depth along the ray (B, 1, R, R) lies beyond `threshold`, scene units.

    A mask for L_BG that comes from the very depth which the term corrects: background that lies before the threshold
    counts as head, has neither loss nor gradient, and is never pulled back.
    """
    return (depth > threshold).to(depth.dtype)


def _mask(background: Tensor, image: Tensor) -> Tensor:
    return F.interpolate(background.to(image.dtype), image.shape[2:], mode="nearest")
