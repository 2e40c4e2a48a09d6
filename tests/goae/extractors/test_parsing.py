"""Background masks: layouts and plumbing with seeded random weights, and the rule on depth."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.segmentation import deeplabv3_resnet50

from goae.extractors.bisenet import BiSeNet
from goae.extractors.parsing import (
    FaceParser,
    Segmenter,
    background_by_depth,
)


@pytest.fixture(scope="module")
def parser_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("parser") / "parser.pth"
    torch.save(BiSeNet().state_dict(), path)
    return path


def test_the_parser_has_the_published_layout() -> None:
    state = BiSeNet().state_dict()
    shapes = {
        "cp.resnet.conv1.weight": (64, 3, 7, 7),
        "cp.resnet.layer4.0.downsample.0.weight": (512, 256, 1, 1),
        "cp.arm32.conv_atten.weight": (128, 128, 1, 1),
        "cp.conv_avg.conv.weight": (128, 512, 1, 1),
        "ffm.convblk.conv.weight": (256, 256, 1, 1),
        "ffm.conv2.weight": (256, 64, 1, 1),
        "conv_out.conv_out.weight": (19, 256, 1, 1),
        "conv_out16.conv.conv.weight": (64, 128, 3, 3),
    }
    assert {n: tuple(state[n].shape) for n in shapes} == shapes
    assert not any(n.endswith("bias") and "bn" not in n and "downsample.1" not in n for n in state)


def test_the_mask_is_one_where_background_wins(parser_file: Path) -> None:
    parser = FaceParser(parser_file, size=64)
    image = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mask = parser.background(image)
    assert mask.shape == (2, 1, 48, 48) and set(mask.unique().tolist()) <= {0.0, 1.0}
    for logit, expected in ((1e3, 1.0), (-1e3, 0.0)):
        parser.network.conv_out.conv_out.register_forward_hook(_background_logit(logit))
        assert float(parser.background(image).mean()) == expected


def _background_logit(logit: float) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    return lambda module, inputs, output: torch.cat([torch.full_like(output[:, :1], logit), output[:, 1:]], 1)


def test_logits_reach_the_image(parser_file: Path) -> None:
    image = torch.zeros(1, 3, 64, 64, requires_grad=True)
    FaceParser(parser_file, size=64).parts(image)[:, 1].sum().backward()
    assert image.grad is not None and float(image.grad.abs().sum()) > 0


def test_wrong_sizes_and_files_are_refused(parser_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOAE_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="not a multiple of 32"):
        FaceParser(parser_file, size=100)
    with pytest.raises(FileNotFoundError, match=r"fetch_weights.py parser"):
        FaceParser()
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"does not fit BiSeNet: missing: .* and \d+ more; unexpected: conv.weight"):
        FaceParser(tmp_path / "other.pth")


def test_the_segmenter_keeps_its_subject(tmp_path: Path) -> None:
    """VOC: 0 background, 8 cat, 12 dog, 15 person, 18 sofa."""
    network = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    torch.nn.init.zeros_(network.classifier[-1].weight)  # the same answer everywhere
    torch.save(network.state_dict(), tmp_path / "segmenter.pth")
    image = torch.zeros(1, 3, 32, 32)
    for subject, kept in (("cat", [8]), ("animal", [8, 12])):
        segmenter = Segmenter(tmp_path / "segmenter.pth", subject, size=64)
        for seen in (0, 8, 12, 15, 18):
            segmenter.network.classifier[-1].bias.data = torch.eye(21)[seen]
            mask = segmenter.background(image)
            assert mask.shape == (1, 1, 32, 32) and float(mask.mean()) == float(seen not in kept)
    parts = segmenter.parts(image)
    assert parts.shape == (1, 21, 64, 64) and (parts.argmax(1) == 18).all()


def test_an_unknown_subject_is_refused() -> None:
    with pytest.raises(ValueError, match="subject is 'sofa'; expected one of cat, animal"):
        Segmenter(subject="sofa")


def test_the_rule_on_depth() -> None:
    depth = torch.tensor([2.5, 2.9, 3.0, 3.2]).reshape(1, 1, 2, 2)
    assert background_by_depth(depth, 2.95).flatten().tolist() == [0.0, 0.0, 1.0, 1.0]
