"""Inception of FID: plumbing with random weights."""

from pathlib import Path

import pytest
import torch
from standins import random_inception
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from goae.extractors.inception import Inception, build
from goae.weights import read_state


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return random_inception()


def test_float_and_uint8_images_agree_and_fid_of_equal_sets_is_zero(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "inception.pth"
    torch.save(state, path)
    net = Inception(path)
    pixels = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    features = net.features(pixels.float() / 127.5 - 1.0)
    assert features.shape == (2, 2048)
    torch.testing.assert_close(net(pixels), features, rtol=1e-5, atol=1e-6)
    fid = FrechetInceptionDistance(feature=net)
    fid.update(pixels, real=True)
    fid.update(pixels, real=False)
    assert abs(float(fid.compute())) < 1e-3


def test_a_state_that_does_not_fit_is_refused(state: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"somewhere.pth does not fit .*fc\.weight"):
        build({n: t for n, t in state.items() if n != "fc.weight"}, "somewhere.pth")


def test_read_state_is_what_reads_the_file(tmp_path: Path) -> None:
    """torch-fidelity's own loader would run what a pickle asks for."""
    import os

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save({"fc.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil\.pth"):
        Inception(tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil\.pth"):
        read_state(tmp_path / "evil.pth")
    assert not (tmp_path / "made").exists()
