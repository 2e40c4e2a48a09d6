"""LPIPS: seeded random trunks always, the real trunk where the cache has it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from goae.extractors.lpips import LPIPS, build
from goae.weights import locate


@pytest.fixture(scope="module")
def trunks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files with seeded random trunks."""
    folder, paths = tmp_path_factory.mktemp("trunks"), {}
    for net in ("alex", "vgg"):
        torch.manual_seed(0)
        paths[net] = folder / f"{net}.safetensors"
        save_file({n: t for n, t in build(net).state_dict().items() if n.startswith("net.")}, paths[net])
    return paths


@pytest.fixture(scope="module")
def distance(trunks: dict[str, Path]) -> LPIPS:
    return LPIPS("alex", trunks["alex"])


def _images(size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    image = torch.rand(2, 3, size, size, generator=rng) * 2 - 1
    return image, torch.randn(image.shape, generator=rng)


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_distance_is_zero_for_equal_images_and_grows_with_noise(net: str, trunks: dict[str, Path]) -> None:
    distance, (image, noise) = LPIPS(net, trunks[net]), _images()
    values = torch.stack([distance(image, image + s * noise) for s in (0.0, 0.05, 0.2, 0.8)])
    assert values.shape == (4, 2)
    assert torch.equal(values[0], torch.zeros(2))
    assert bool((values[1:] > values[:-1]).all())


def test_it_is_frozen_but_lets_gradients_reach_the_image(distance: LPIPS) -> None:
    image, noise = _images()
    distance.train()
    assert not any(m.training for m in distance.modules())
    image.requires_grad_()
    distance(image, noise).sum().backward()
    assert image.grad is not None and float(image.grad.abs().sum()) > 0
    assert all(p.grad is None for p in distance.parameters())


def test_a_row_does_not_depend_on_its_batch(distance: LPIPS) -> None:
    image, noise = _images()
    torch.testing.assert_close(distance(image, noise)[1:], distance(image[1:], noise[1:]), rtol=1e-5, atol=1e-7)


def test_heads_are_those_of_the_package(distance: LPIPS) -> None:
    package = build("alex").state_dict()
    heads = {n: t for n, t in distance.net.state_dict().items() if not n.startswith("net.")}
    assert heads and all(torch.equal(t, package[n]) for n, t in heads.items())
    assert all(float(t.min()) >= 0 for n, t in heads.items() if n.startswith("lin"))


def test_building_leaves_the_random_state_alone(trunks: dict[str, Path]) -> None:
    torch.manual_seed(3)
    expected = torch.randn(3)
    torch.manual_seed(3)
    LPIPS("alex", trunks["alex"])
    assert torch.equal(torch.randn(3), expected)


def test_wrong_and_missing_files_are_refused(
    trunks: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOAE_CACHE", str(tmp_path / "none"))
    with pytest.raises(
        ValueError, match=r"does not fit LPIPS: missing: net\.slice1\.2\.bias.* more; unexpected: net\.slice2"
    ):
        LPIPS("vgg", trunks["alex"])
    with pytest.raises(FileNotFoundError, match=r"fetch_weights.py alex"):
        LPIPS("alex")
    with pytest.raises(ValueError, match=r"perception.lpips is 'squeeze'"):
        LPIPS("squeeze")
    alex = tmp_path / "cut.safetensors"
    alex.write_bytes(trunks["alex"].read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cut\.safetensors cannot be read .*fetch_weights.py alex"):
        LPIPS("alex", alex)


def test_images_of_other_shapes_are_refused(distance: LPIPS) -> None:
    with pytest.raises(ValueError, match="expected \\(B, 3, H, W\\) twice"):
        distance(torch.zeros(1, 3, 32, 32), torch.zeros(2, 3, 32, 32))
    with pytest.raises(ValueError, match="at least 32 pixels"):
        distance(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize(("net", "expected"), [("alex", [0.6782, 0.1213]), ("vgg", [0.6295, 0.0780])])
def test_the_real_trunk_gives_the_recorded_distances(net: str, expected: list[float]) -> None:
    """Recorded from the archive whose hash the catalogue pins; they move if layout, order or scaling is mistaken."""
    try:
        path = locate(net)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    rows = torch.linspace(-1, 1, 64)
    ramp = (rows[None, :] * rows[:, None]).expand(1, 3, 64, 64)
    waves = torch.sin(9 * rows)[None, None, None, :].expand(1, 3, 64, 64)
    distance = LPIPS(net, path)
    measured = [float(distance(ramp, waves)), float(distance(ramp, 0.5 * ramp))]
    assert measured == pytest.approx(expected, abs=1e-3)
