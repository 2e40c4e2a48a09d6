"""Where the background lies, on views whose depth and mask are known."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_generator
from torch import Tensor

from goae.data.datasets import PosedImages
from goae.runs.background_study import background_record

BEHIND = {0: 3.0, 1: 3.2}  # of even and odd images; heads lie at 2.5


class Flat:
    """A method whose front views are flat: the left half of the image is background."""

    def __init__(self, *, empty: bool = False) -> None:
        self.goae = SimpleNamespace(generator=tiny_generator())
        self.empty, self.seen = empty, 0

    def invert(self, image: Tensor, c: Tensor) -> Tensor:
        numbers = torch.arange(self.seen, self.seen + len(image))
        self.seen += len(image)
        return numbers

    def render(self, inversion: Tensor, c: Tensor) -> SimpleNamespace:
        assert len(c) == len(inversion)
        depth = torch.full((len(inversion), 1, 8, 8), 2.5)
        depth[:, :, :, :4] = torch.tensor([BEHIND[int(n) % 2] for n in inversion]).view(-1, 1, 1, 1)
        return SimpleNamespace(image=torch.zeros(len(inversion), 3, 16, 16), image_depth=depth)

    def segment(self, image: Tensor, depth: Tensor) -> Tensor:
        mask = torch.zeros(len(image), 1, 16, 16)
        if not self.empty:
            mask[:, :, :, :8] = 1
        return mask


def test_the_gap_and_the_depth_are_those_of_the_views(tiny_data: Path) -> None:
    method = Flat()
    found = background_record(method, PosedImages(tiny_data, 32), method.segment, num=10, batch_size=4, erode=1)  # type: ignore[arg-type]
    assert (found["num_images"], found["num_undefined"]) == (10, 0)
    assert found["depth_gap"] == pytest.approx(0.6) and found["background_depth"] == pytest.approx(3.1)
    low, high = found["depth_gap_interval"]
    assert 0.5 <= low < 0.6 < high <= 0.7


def test_views_without_background_are_told(tiny_data: Path) -> None:
    method = Flat(empty=True)
    with pytest.raises(ValueError, match="of 6 front views 0 show head and background"):
        background_record(method, PosedImages(tiny_data, 32), method.segment, num=6, batch_size=4, erode=0)  # type: ignore[arg-type]
