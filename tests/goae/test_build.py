"""Every rival is built in every world, in the sizes of its generator."""

from pathlib import Path

import pytest
import torch
from composing import CONFIGS, composed_as
from eg3d.generator import TriPlaneGenerator

from goae import build
from goae.config import METHODS, TrainConfig
from goae.extractors.bisenet import BiSeNet
from goae.extractors.mini_network import NUM_PARTS
from goae.weights import FILES

OTHERS = ("prior", "camera")  # experiments of other scripts than train.py
EXPERIMENTS = sorted(p.stem for p in (CONFIGS / "experiment").glob("*.yaml") if not p.stem.endswith(OTHERS))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a face parser of random weights."""
    folder = tmp_path_factory.mktemp("cache")
    torch.save(BiSeNet().state_dict(), folder / FILES["parser"])
    return folder


@pytest.mark.filterwarnings("ignore:for .* copying from a non-meta")
@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("method", sorted({*METHODS} - {"goae"}))
def test_every_rival_is_built_in_every_world(
    experiment: str, method: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOAE_CACHE", str(cache))
    config = composed_as(TrainConfig, f"experiment={experiment}", f"method={method}")
    meta = torch.device("meta")  # all shapes, no memory
    with meta:
        generator = TriPlaneGenerator(config.generator)
        networks = build.build_networks(config, generator, meta)
    schedule, encoder = build.build_schedule(config, networks), networks.encoder
    assert encoder.image_resolution == config.encoder.backbone.image_resolution  # the image that GOAE's encoder gets
    assert config.latent_discriminator.w_dim == encoder.w_dim == generator.config.w_dim
    assert encoder.active_rows(schedule(0)) == (1 if method == "e4e" else generator.num_ws)
    assert schedule(10**7) == encoder.last_stage and encoder.active_rows(encoder.last_stage) == generator.num_ws


def test_weights_of_the_mini_world_are_small() -> None:
    for method in ("psp", "e4e", "ide3d"):
        config = composed_as(TrainConfig, "experiment=mini", f"method={method}")
        state = build.build_networks(config, build.build_generator(config), torch.device("cpu")).encoder.state_dict()
        assert sum(2 * tensor.numel() for tensor in state.values()) < 4e6  # bytes in half precision


def test_parsers_are_chosen_by_name(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOAE_CACHE", str(cache))
    cpu, image = torch.device("cpu"), torch.zeros(1, 3, 64, 64)
    for name, num_parts in (("mini", NUM_PARTS), ("parser", 19)):
        parser = build.build_parser(composed_as(TrainConfig, "experiment=mini", f"rival.parts={name}"), cpu)
        assert parser.num_parts == num_parts == parser.logits(image).shape[1]
    with pytest.raises(FileNotFoundError, match="segmenter"):
        build.build_parser(composed_as(TrainConfig, "experiment=mini", "rival.parts=segmenter"), cpu)
    with pytest.raises(ValueError, match=r"rival\.parts is 'none'"):
        build.build_parser(composed_as(TrainConfig, "experiment=mini", "rival.parts=none"), cpu)


def test_a_generator_is_read_from_the_cache_and_its_statistics_lie_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOAE_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    config = composed_as(TrainConfig, "experiment=ffhq")
    for read in (build.build_generator, build.stats_path):
        with pytest.raises(FileNotFoundError, match=r"ffhqrebalanced512-128 --accept-licence"):
            read(config)
    (tmp_path / "ffhqrebalanced512-128.pkl").write_bytes(b"no pickle")
    with pytest.raises(ValueError, match=str(tmp_path)):
        build.build_generator(config)
    assert build.stats_path(config) == tmp_path / "ffhqrebalanced512-128-canonical.safetensors"


@pytest.mark.parametrize(
    ("given", "file"),
    [
        (["experiment=ffhq"], "weights/swinv2_base_window12to16_192to256.safetensors"),
        (["experiment=ffhq", "sweep=weight_adv"], "weights/swinv2_base_window12to16_192to256.safetensors"),
        (["experiment=afhq_cat", "method=psp"], "weights/model_ir_se50.pth"),
        (["experiment=ffhq", "method=ide3d"], "weights/model_ir_se50.pth"),
        (["experiment=ffhq", "paths.backbone=own.pth"], "own.pth"),
        (["experiment=ffhq", "method=e4e", "paths.backbone=random"], ""),
        (["experiment=ffhq", "sweep=backbone", "encoder.backbone.embed_dim=64"], ""),
        (["experiment=mini"], ""),
        (["experiment=tiny", "method=e4e"], ""),
    ],
)
def test_stage_1_starts_from_the_published_weights_that_fit(given: list[str], file: str) -> None:
    assert build.backbone_path(composed_as(TrainConfig, *given)) == file


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_path_is_no_choice_where_published_weights_fit(method: str) -> None:
    config = composed_as(TrainConfig, "experiment=ffhq", f"method={method}", "paths.backbone=")
    with pytest.raises(ValueError, match=r"give paths\.backbone=published .*, or paths\.backbone=random"):
        build.backbone_path(config)


def test_random_weights_of_a_generator_are_asked_for_by_name() -> None:
    assert build.build_generator(composed_as(TrainConfig, "experiment=tiny")).config.image_resolution == 32
    with pytest.raises(ValueError, match=r"paths\.generator is empty.*paths\.generator=random"):
        build.build_generator(composed_as(TrainConfig, "experiment=tiny", "paths.generator="))
