"""Inverters from files, released and our own."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from eg3d import checkpoint
from tiny import tiny_goae, tiny_images, tiny_labels

from goae import load_inverter
from goae.inversion import Inverter
from goae.loading import save_encoder, save_refiner
from goae.models import published
from goae.models.goae import GOAE, GOAEConfig, preset
from goae.models.occlusion import MixConfig


@pytest.fixture(scope="module")
def goae() -> GOAE:
    return tiny_goae(GOAEConfig(mix=MixConfig(close="none")))


@pytest.fixture(scope="module")
def files(goae: GOAE, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    checkpoint.save(goae.generator, folder / "generator.safetensors")
    save_encoder(goae.encoder, folder / "encoder.safetensors")
    save_refiner(goae.afa, goae.config, folder / "refiner.safetensors")
    return folder


def paths(folder: Path) -> dict[str, Path]:
    return {name: folder / f"{name}.safetensors" for name in ("generator", "encoder", "refiner")}


def test_our_files_give_the_same_inverter(goae: GOAE, files: Path) -> None:
    loaded = load_inverter(**paths(files))
    assert loaded.goae.config == goae.config
    image, c = tiny_images(), tiny_labels()
    got, expected = loaded.invert(image, c), Inverter(goae).invert(image, c)
    assert torch.equal(got.planes, expected.planes) and got.generator == expected.generator


def test_presets_replace_what_was_saved(goae: GOAE, files: Path) -> None:
    for name in ("paper", "official"):
        assert load_inverter(**paths(files), preset=name).goae.config == preset(name)
    own = GOAEConfig(edit_late_rows="source")
    with_generator = {**paths(files), "generator": goae.generator}
    assert load_inverter(**with_generator, preset=own).goae.config == own
    with pytest.raises(ValueError, match="preset is 'released'"):
        load_inverter(**paths(files), preset="released")


def test_swapped_and_missing_files_are_named(files: Path) -> None:
    with pytest.raises(ValueError, match="holds a AFA; expected weights of the Encoder"):
        load_inverter(**{**paths(files), "encoder": files / "refiner.safetensors"})
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        load_inverter(**{**paths(files), "refiner": files / "none.pt"})


@pytest.mark.parametrize("device", ["foo", "cuda:99"])
def test_a_device_that_is_not_there_is_named(files: Path, device: str) -> None:
    with pytest.raises(ValueError, match=rf"device is '{device}' \(.*\); give cpu, or cuda"):
        load_inverter(**paths(files), device=device)


@pytest.mark.parametrize("part", ["generator", "encoder", "refiner"])
def test_a_lost_json_is_named(files: Path, tmp_path: Path, part: str) -> None:
    alone = shutil.copy(files / f"{part}.safetensors", tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"{part}\.safetensors .*{part}\.json .*[Cc]opy"):
        load_inverter(**{**paths(files), part: Path(alone)})


@pytest.mark.slow
def test_released_files_of_other_generators_are_refused(files: Path, tmp_path: Path) -> None:
    torch.save({"input_layer.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "afa.pt")
    with pytest.raises(ValueError, match=r"does not fit the AFA: missing: body\.0\..* and \d+ more"):
        load_inverter(**{**paths(files), "refiner": tmp_path / "afa.pt"})


@pytest.mark.slow
def test_released_files_take_the_official_preset(tmp_path: Path) -> None:
    from eg3d.generator import GeneratorConfig, TriPlaneGenerator

    from goae.models.afa import AFA, AFAConfig
    from goae.models.encoder import Encoder, EncoderConfig

    generator = TriPlaneGenerator(GeneratorConfig())
    published.export_encoder(Encoder(EncoderConfig(), 14, 512), tmp_path / "encoder.pt")
    published.export_afa(AFA(AFAConfig(variant="official")), tmp_path / "afa.pt")
    inverter = load_inverter(generator=generator, encoder=tmp_path / "encoder.pt", refiner=tmp_path / "afa.pt")
    assert inverter.goae.config == preset("official")
    assert inverter.goae.afa.config.variant == "official"
    assert dataclasses.asdict(inverter.goae.encoder.config) == dataclasses.asdict(EncoderConfig())
