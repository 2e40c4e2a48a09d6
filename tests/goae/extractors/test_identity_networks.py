"""Identity networks with seeded random weights; their layouts against what is published; real weights where cached."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from facenet_pytorch import InceptionResnetV1
from safetensors.torch import save_file
from torch import Tensor, nn

from goae.extractors import arcface, face_resnet
from goae.extractors.arcface import IRSE50, ArcFace
from goae.extractors.face_resnet import CHIP, FaceResNet, FaceResNetwork, align, similarity
from goae.extractors.facenet import FaceNet
from goae.weights import locate


def _network(make: Callable[[], nn.Module]) -> nn.Module:
    """Random weights of a size that keeps the signal; batch statistics as after some training."""
    torch.manual_seed(0)
    network = make()
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
    return network.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("identity")
    torch.save(_network(IRSE50).state_dict(), folder / "arcface.pth")
    state = InceptionResnetV1(pretrained=None).state_dict()
    torch.save(
        state | {"logits.weight": torch.zeros(8631, 512), "logits.bias": torch.zeros(8631)}, folder / "facenet.pt"
    )
    save_file(_network(FaceResNetwork).state_dict(), folder / "face_resnet.safetensors")
    return folder


NETWORKS = [(ArcFace, "arcface.pth", 512), (FaceNet, "facenet.pt", 512), (FaceResNet, "face_resnet.safetensors", 128)]


@pytest.mark.parametrize(("network", "file", "length"), NETWORKS)
def test_embeddings_are_unit_vectors_row_by_row(network: type[ArcFace], file: str, length: int, folder: Path) -> None:
    net = network(folder / file)
    image = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1
    image.requires_grad_()
    embedding = net.embed(image)
    assert embedding.shape == (2, length)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(net.embed(image[1:]), embedding[1:], rtol=0, atol=1e-5)
    embedding[0, 0].backward()
    assert image.grad is not None and float(image.grad[0].abs().sum()) > 0 and float(image.grad[1].abs().sum()) == 0
    assert all(p.grad is None and not p.requires_grad for p in net.parameters())


@pytest.mark.parametrize(("network", "file"), [(n, f) for n, f, _ in NETWORKS])
def test_a_state_that_lacks_a_tensor_is_refused_by_name(network: type[ArcFace], file: str, folder: Path) -> None:
    path = folder / f"short-{file}".replace("safetensors", "pt")
    state = dict(network(folder / file).network.state_dict())
    name = sorted(n for n in state if n.endswith("weight"))[0]
    torch.save({n: t for n, t in state.items() if n != name}, path)
    with pytest.raises(ValueError, match=f"missing: {name}"):
        network(path)


def test_arcface_has_the_published_layout() -> None:
    state = IRSE50().state_dict()
    units = {n.split(".")[1] for n in state if n.startswith("body.")}
    assert len(units) == 24
    assert (
        sum(t.numel() for n, t in state.items() if not n.endswith(("running_mean", "running_var", "tracked")))
        == 43797696
    )
    shapes = {
        "input_layer.0.weight": (64, 3, 3, 3),
        "input_layer.2.weight": (64,),
        "body.3.shortcut_layer.0.weight": (128, 64, 1, 1),
        "body.0.res_layer.5.fc1.weight": (4, 64, 1, 1),
        "body.23.res_layer.3.weight": (512, 512, 3, 3),
        "output_layer.3.weight": (512, 25088),
        "output_layer.4.running_var": (512,),
    }
    assert {n: tuple(state[n].shape) for n in shapes} == shapes
    assert "body.0.shortcut_layer.0.weight" not in state


def test_arcface_crops_rows_35_to_222_and_columns_32_to_219() -> None:
    rows = torch.arange(256.0)[:, None].expand(256, 256)
    image = torch.stack([rows, rows.T, torch.zeros(256, 256)])[None]
    cropped = arcface.crop(image)
    assert cropped.shape == (1, 3, 112, 112)
    torch.testing.assert_close(cropped[0, :2].mean((1, 2)), torch.tensor([128.5, 125.5]), atol=0.05, rtol=0)
    assert (float(cropped[0, 0, 0, 0]), float(cropped[0, 1, 0, 0])) == (35.5, 32.5)
    doubled = image.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(arcface.crop(doubled), cropped)


def test_the_similarity_of_moved_points_is_recovered() -> None:
    angle, scale, shift = torch.tensor(0.3), 1.7, torch.tensor([4.0, -9.0])
    turn = scale * torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    points = torch.tensor(CHIP)
    matrix = similarity(points[None], (points @ turn.T + shift)[None])[0]
    torch.testing.assert_close(matrix, torch.cat([turn, shift[:, None]], 1), rtol=1e-4, atol=1e-4)


def test_a_chip_that_stands_on_its_template_is_taken_as_it_is() -> None:
    image = torch.rand(1, 3, 150, 150, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(align(image, torch.tensor(CHIP)[None]), image, rtol=0, atol=1e-3)


@pytest.mark.parametrize("scale", [0.5, 2.0, 3.5])
def test_alignment_undoes_scale_and_shift(scale: float) -> None:
    """A smooth picture of sines is sampled at the template's points whatever its size."""
    side = int(180 * scale)
    y, x = torch.meshgrid(torch.arange(side) / scale, torch.arange(side) / scale, indexing="ij")
    image = torch.stack([torch.sin(x / 20), torch.cos(y / 20), torch.sin((x + y) / 25)])[None]
    chip = align(image, (torch.tensor(CHIP)[None] + 10.0) * scale)
    y, x = torch.meshgrid(torch.arange(150.0) + 10, torch.arange(150.0) + 10, indexing="ij")
    expected = torch.stack([torch.sin(x / 20), torch.cos(y / 20), torch.sin((x + y) / 25)])[None]
    assert float((chip - expected).abs().max()) < 0.03


def test_alignment_refuses_other_landmarks() -> None:
    with pytest.raises(ValueError, match=r"expected \(1, 5, 2\)"):
        align(torch.zeros(1, 3, 32, 32), torch.zeros(1, 4, 2))


def test_the_padding_of_unequal_summands_is_zero() -> None:
    """150 pixels leave 3x3 beside 4x4, and 1x1 beside 2x2, in the deepest blocks, as in the reference."""
    network, sizes = _network(FaceResNetwork), []
    for block in network.blocks:
        block.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
    network(torch.zeros(1, 3, 150, 150))
    expected = [(32, 35, 35)] * 3 + [(64, 17, 17)] * 4 + [(128, 8, 8)] * 3 + [(256, 4, 4)] * 3 + [(256, 2, 2)]
    assert sizes == expected
    small, large = torch.ones(1, 2, 3, 3), torch.ones(1, 4, 4, 4)
    padded = face_resnet._padded(small, large)
    assert padded.shape == large.shape and float(padded.sum()) == 18.0 and float(padded[0, :2, :3, :3].sum()) == 18.0


def _astronaut() -> tuple[Tensor, Tensor]:
    """A real face and its landmarks by MTCNN, whose weights are in its wheel."""
    data = pytest.importorskip("skimage.data")
    from facenet_pytorch import MTCNN

    picture = data.astronaut()
    _, _, points = MTCNN().detect(picture, landmarks=True)
    image = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1.0
    return image, torch.from_numpy(points.astype("float32"))


def test_the_real_network_tells_a_face_from_noise_and_keeps_it_in_the_mirror() -> None:
    """The reference implementation of the same file has 0.21 between this face and its mirror image."""
    try:
        net = FaceResNet(locate("face_resnet"))
    except FileNotFoundError as error:
        pytest.skip(str(error))
    image, points = _astronaut()
    mirrored = torch.stack([image.shape[-1] - 1 - points[..., 0], points[..., 1]], -1)[:, [1, 0, 2, 4, 3]]
    own = net.describe(image, points)
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert float((own - net.describe(image.flip(-1), mirrored)).norm()) == pytest.approx(0.21, abs=0.03)
    assert float((own - net.describe(noise, points)).norm()) > 0.6
