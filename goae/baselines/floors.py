"""What every inversion has to beat: answers that look little at the input, or not at all, by the same two calls."""

from collections.abc import Callable

import torch
from eg3d.generator import TriPlaneGenerator
from torch import Tensor

from goae.data.datasets import PosedImages
from goae.models.latent_inverter import View

CHUNK = 500  # stored images compared at once


class AverageCode:
    """Every image is answered with the render of w_avg from its camera."""

    def __init__(self, generator: TriPlaneGenerator) -> None:
        self.generator = generator.eval()

    @torch.inference_mode()
    def invert(self, image: Tensor, c: Tensor) -> Tensor:
        """The average code (B, num_ws, w_dim)."""
        return self.generator.w_avg.expand(len(image), self.generator.num_ws, -1)

    @torch.inference_mode()
    def render(self, inversion: Tensor, c: Tensor) -> View:
        """Render from cameras (B, 25)."""
        view = self.generator.synthesis(inversion, c.to(inversion.device))
        return View(view.image, view.image_raw, view.image_depth)


class StoredViews:
    """A data set's images as uint8 (N, 3, R, R) and their true depth (N, 1, R, R) in float16, in memory."""

    def __init__(self, images: PosedImages, progress: Callable[[int], object] = lambda done: None) -> None:
        """Reads all of `images`, which have the extra `depth`; `progress` hears the number of those read."""
        size = images.resolution
        self.image = torch.empty(len(images), 3, size, size, dtype=torch.uint8)
        self.depth = torch.empty(len(images), 1, size, size, dtype=torch.float16)
        for i in range(len(images)):
            item = images[i]
            self.image[i] = ((item["image"] + 1) * 127.5).round().to(torch.uint8)
            self.depth[i] = item["depth"]
            progress(i + 1)

    def __len__(self) -> int:
        return len(self.image)


class MeanView:
    """Every image is answered with the mean of the stored images and depths, whatever the camera."""

    def __init__(self, views: StoredViews) -> None:
        self.image = as_float(views.image.sum(0, keepdim=True) / len(views))
        self.depth = views.depth.mean(0, keepdim=True, dtype=torch.float32)

    def invert(self, image: Tensor, c: Tensor) -> int:
        """Only the number of images."""
        return len(image)

    def render(self, inversion: int, c: Tensor) -> View:
        """The mean, once for each image."""
        image, depth = (x.expand(inversion, -1, -1, -1) for x in (self.image, self.depth))
        return View(image, image, depth)


class NearestView:
    """Every image is answered with the stored image of the least mean squared error and its depth."""

    def __init__(self, views: StoredViews) -> None:
        self.views = views

    def invert(self, image: Tensor, c: Tensor) -> Tensor:
        """The places (B,) of the nearest among the stored images."""
        return torch.cat([self._distances(chunk, image) for chunk in self.views.image.split(CHUNK)], 1).argmin(1)

    def render(self, inversion: Tensor, c: Tensor) -> View:
        """The stored image, from its own camera."""
        image = as_float(self.views.image[inversion])
        return View(image, image, self.views.depth[inversion].float())

    @staticmethod
    def _distances(stored: Tensor, image: Tensor) -> Tensor:
        """Squared differences (B, n) up to a number per image; in float64, since the squares nearly cancel."""
        stored, image = as_float(stored).flatten(1).double(), image.cpu().flatten(1).double()
        return stored.square().sum(1) - 2 * image @ stored.T


def as_float(image: Tensor) -> Tensor:
    """Numbers in [0, 255] to [-1, 1]."""
    return image.float() / 127.5 - 1
