"""The two calls of encoders alone, and rivals from files."""

import dataclasses
from pathlib import Path

import pytest
import torch
from tiny import BRIGHTNESS, tiny_goae, tiny_images, tiny_labels, tiny_rival

from goae.baselines.encoder_only import EncoderOnly, load_rival
from goae.loading import load_inverter, save_encoder
from goae.models.goae import GOAE


@pytest.mark.parametrize("method", ["psp", "e4e", "ide3d"])
def test_a_stored_rival_inverts_as_before(method: str, tmp_path: Path) -> None:
    inverter, image, c = tiny_rival(method), tiny_images(), tiny_labels()
    path = tmp_path / "encoder.safetensors"
    save_encoder(inverter.encoder, path)
    loaded = load_rival(generator=inverter.generator, encoder=path, parser=BRIGHTNESS)
    expected = EncoderOnly(inverter).invert(image, c)
    found = loaded.invert(image, c)
    assert type(loaded.goae.encoder) is type(inverter.encoder)
    assert torch.equal(found.ws, expected.ws) and torch.equal(found.view.image, expected.view.image)
    assert torch.equal(loaded.render(found, c).image, expected.view.image)
    side = loaded.render(found, c.flip(0))
    assert side.image.shape == (2, 3, 32, 32) and not torch.equal(side.image, expected.view.image)


def test_ide3d_needs_its_parser(tmp_path: Path) -> None:
    inverter = tiny_rival("ide3d")
    save_encoder(inverter.encoder, tmp_path / "encoder.safetensors")
    with pytest.raises(ValueError, match="needs parser=, the network of parts 'mini'"):
        load_rival(generator=inverter.generator, encoder=tmp_path / "encoder.safetensors")
    wider = BRIGHTNESS._replace(num_parts=4)
    with pytest.raises(ValueError, match=r"of another shape: semantic\.trunk\.input_layer\.0\.weight"):
        load_rival(generator=inverter.generator, encoder=tmp_path / "encoder.safetensors", parser=wider)


def test_files_of_the_other_kind_are_refused(tmp_path: Path) -> None:
    goae, rival = tiny_goae(), tiny_rival("psp")
    for name, encoder in (("ours", goae.encoder), ("rival", rival.encoder)):
        save_encoder(encoder, tmp_path / f"{name}.safetensors")
    with pytest.raises(ValueError, match=r"ours\.safetensors holds a Encoder; expected one of PSPEncoder"):
        load_rival(generator=goae.generator, encoder=tmp_path / "ours.safetensors")
    files = {"encoder": tmp_path / "rival.safetensors", "refiner": tmp_path / "rival.safetensors"}
    with pytest.raises(ValueError, match=r"rival\.safetensors holds a PSPEncoder; expected weights of the Encoder"):
        load_inverter(generator=goae.generator, **files)


def test_goae_without_its_second_stage_is_one_of_them() -> None:
    goae, image, c = tiny_goae(), tiny_images(), tiny_labels()
    found = EncoderOnly(goae).invert(image, c)
    assert isinstance(goae, GOAE) and dataclasses.is_dataclass(goae.encoder.config)
    with torch.no_grad():
        assert torch.equal(found.ws, goae.encode(image))
        assert torch.equal(found.view.image, goae.generator.synthesis(found.ws, c).image)
    assert EncoderOnly(goae).reconstruct(found) is found.view  # nothing is rendered twice
