"""The mini world's perception network: plumbing with random weights, and what the shipped weights see."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from goae.data.people import People, render_people
from goae.extractors.mini import SHIPPED, MiniPerception, as_stored, export
from goae.extractors.mini_network import MiniNetwork, MiniNetworkConfig
from goae.training.perception import HELD_OUT, measure

SIZES = MiniNetworkConfig(width=8, blocks=1, embedding_dim=16, feature_dim=12, num_factors=5, num_attributes=3)


@pytest.fixture(scope="module")
def random_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("mini") / "perception.safetensors"
    export(MiniNetwork(SIZES), path, training={"seed": 0}, measured={}, attributes=["a", "b", "c"])
    return path


@pytest.fixture(scope="module")
def shipped() -> MiniPerception:
    return MiniPerception()


@pytest.fixture(scope="module")
def strangers() -> People:
    """Six people of whom training never saw a picture, three views each."""
    return render_people(HELD_OUT + 500, 6, 3, seed=0)


def _images(size: int = 64) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_every_output_has_its_shape_and_row(random_file: Path) -> None:
    net = MiniPerception(random_file)
    image = _images()
    shapes = {
        net.embed: (16,),
        net.features: (12,),
        net.parts: (11, 64, 64),
        net.depth: (1, 64, 64),
        net.background: (1, 64, 64),
        net.attributes: (3,),
        net.angles: (2,),
    }
    for method, shape in shapes.items():
        out = method(image)
        assert out.shape == (2, *shape)
        torch.testing.assert_close(method(image[1:]), out[1:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.embed(image).norm(dim=1), torch.ones(2))
    assert set(net.background(image).unique().tolist()) <= {0.0, 1.0}


def test_maps_come_back_in_the_size_of_the_image(random_file: Path) -> None:
    net = MiniPerception(random_file)
    assert net.parts(_images(96)).shape == (2, 11, 96, 96) and net.background(_images(32)).shape == (2, 1, 32, 32)
    with pytest.raises(ValueError, match=r"expected \(B, 3, H, W\)"):
        net.embed(torch.zeros(3, 64, 64))


@pytest.mark.parametrize("method", ["embed", "features", "parts", "depth"])
def test_gradients_reach_the_image_and_nothing_else(random_file: Path, method: str) -> None:
    net = MiniPerception(random_file).train()
    image = _images().requires_grad_()
    call: Callable[[Tensor], Tensor] = getattr(net, method)
    call(image)[:, 0].sum().backward()
    assert image.grad is not None and float(image.grad.abs().sum()) > 0
    assert all(p.grad is None and not p.requires_grad for p in net.parameters())


def test_what_is_measured_is_what_the_file_gives_back(random_file: Path) -> None:
    torch.manual_seed(0)
    network = MiniNetwork(SIZES)
    stored, read = as_stored(network).state_dict(), MiniPerception(random_file).network.state_dict()
    assert all(torch.equal(tensor, read[name]) for name, tensor in stored.items())
    assert any(not torch.equal(tensor, stored[name]) for name, tensor in network.state_dict().items())


def test_export_keeps_weights_to_half_precision_and_the_card(random_file: Path) -> None:
    torch.manual_seed(0)
    original, net = MiniNetwork(SIZES), MiniPerception(random_file)
    for name, tensor in original.state_dict().items():
        torch.testing.assert_close(net.network.state_dict()[name], tensor, rtol=1e-3, atol=1e-6)
    assert net.card["training"] == {"seed": 0} and net.card["attributes"] == ["a", "b", "c"]


def test_missing_and_wrong_files_are_refused(random_file: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"scripts/train_mini_perception\.py"):
        MiniPerception(tmp_path / "none.safetensors")
    copy = tmp_path / "wide.safetensors"
    save_file(load_file(random_file), copy)  # without the checksums, which would tell it first
    copy.with_suffix(".json").write_text(
        random_file.with_suffix(".json").read_text().replace('"width": 8', '"width": 6')
    )
    with pytest.raises(ValueError, match="does not fit MiniNetwork: of another shape: "):
        MiniPerception(copy)
    with pytest.raises(ValueError, match="feature_dim is 65"):
        MiniNetworkConfig(feature_dim=65)


def test_the_shipped_network_is_small(shipped: MiniPerception) -> None:
    assert sum(p.numel() for p in shipped.parameters()) <= 1_500_000
    assert SHIPPED.stat().st_size <= 3_000_000 and SHIPPED.name in (SHIPPED.parent / "README.md").read_text()


def test_the_shipped_network_knows_strangers(shipped: MiniPerception, strangers: People) -> None:
    """Bounds stand well below the numbers of the model card, which come from 75 people and ten views."""
    numbers = measure(shipped.network, strangers)
    assert numbers["identity_auc"] > 0.85
    assert numbers["part_miou"] > 0.55 and numbers["background_iou"] > 0.95
    assert numbers["depth_mae"] < 0.06


def test_the_shipped_network_prefers_the_same_person_in_the_mirror(shipped: MiniPerception, strangers: People) -> None:
    image = strangers.image[::3].float() / 127.5 - 1.0
    cosine = shipped.embed(image) @ shipped.embed(image.flip(-1)).T
    assert bool((cosine.argmax(1) == torch.arange(len(image))).all())
