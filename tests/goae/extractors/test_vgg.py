"""VGG features with a random trunk: what they average, and what they ignore."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from goae import build
from goae.evaluation.distribution import DistributionConfig
from goae.extractors import lpips
from goae.extractors.vgg import VGG


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vgg") / "trunk.safetensors"
    state = {n: t.contiguous() for n, t in lpips.build("vgg").state_dict().items() if n.startswith("net.")}
    save_file(state, path)
    return path


def test_features_are_means_of_the_fourth_group(trunk: Path) -> None:
    net, image = VGG(trunk), torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = net.features(image)
    maps = net.network.net(net.network.scaling_layer(image)).relu4_3
    assert maps.shape == (2, 512, 8, 8) and found.shape == (2, 512)
    assert torch.equal(found, maps.mean((2, 3)))
    assert torch.allclose(net.features(image[1:]), found[1:], rtol=1e-4, atol=1e-6)
    assert all(not p.requires_grad for p in net.parameters())
    named = build.build_features(DistributionConfig("vgg", str(trunk)), torch.device("cpu"))
    assert torch.equal(named(image), found)


def test_a_missing_trunk_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOAE_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"fetch_weights\.py vgg"):
        VGG()
