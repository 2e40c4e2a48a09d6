"""Where pretrained files are looked for."""

import dataclasses
from pathlib import Path

import pytest

from goae import weights
from goae.config import CheckMetersConfig, EvaluateConfig, PerceptionConfig, RivalsConfig
from goae.evaluation.distribution import DistributionConfig
from goae.evaluation.measuring import MetricsConfig
from goae.fetching.catalogue import ASSETS


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GOAE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_configured_path_wins_over_the_cache(tmp_path: Path, empty_cache: Path) -> None:
    empty_cache.mkdir()
    (empty_cache / weights.FILES["alex"]).write_bytes(b"cached")
    (tmp_path / "mine.safetensors").write_bytes(b"mine")
    assert weights.locate("alex", tmp_path / "mine.safetensors").read_bytes() == b"mine"
    assert weights.locate("alex").read_bytes() == weights.locate("alex", "").read_bytes() == b"cached"


def test_a_missing_file_names_the_command(tmp_path: Path) -> None:
    told = r"python scripts/fetch_weights.py arcface.*cache/model_ir_se50.pth.*metrics\.identity_path"
    with pytest.raises(FileNotFoundError, match=told):
        weights.locate("arcface")
    with pytest.raises(FileNotFoundError, match=r"configured path .*elsewhere.pth does not exist"):
        weights.locate("arcface", tmp_path / "elsewhere.pth")


def test_a_configured_path_that_is_missing_does_not_fall_back_to_the_cache(tmp_path: Path, empty_cache: Path) -> None:
    empty_cache.mkdir()
    (empty_cache / weights.FILES["alex"]).write_bytes(b"cached")
    with pytest.raises(FileNotFoundError):
        weights.locate("alex", tmp_path / "elsewhere")


def test_published_files_are_found_by_name_in_the_cache(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"fetch_weights.py ffhqrebalanced512-128 --accept-licence"):
        weights.find("weights/ffhqrebalanced512-128.pkl")
    empty_cache.mkdir()
    (empty_cache / "ffhqrebalanced512-128.pkl").touch()
    assert weights.find("weights/ffhqrebalanced512-128.pkl") == empty_cache / "ffhqrebalanced512-128.pkl"
    (tmp_path / "ffhqrebalanced512-128.pkl").touch()
    assert weights.find("~/ffhqrebalanced512-128.pkl") == tmp_path / "ffhqrebalanced512-128.pkl"
    assert weights.find("~/other.pkl") == tmp_path / "other.pkl"


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="no pretrained file is called 'alexnet'"):
        weights.locate("alexnet")


def test_without_the_variable_the_cache_is_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOAE_CACHE")
    assert weights.cache() == Path.home() / ".cache" / "goae"


def test_the_keys_of_every_network_that_is_located_exist() -> None:
    fields = {f"perception.{f.name}" for f in dataclasses.fields(PerceptionConfig)}
    fields |= {f"networks.{f.name}" for f in dataclasses.fields(PerceptionConfig)}
    fields |= {f"metrics.{f.name}" for f in dataclasses.fields(MetricsConfig)}
    fields |= {f"distribution.{f.name}" for f in dataclasses.fields(DistributionConfig)}
    fields |= {f"rivals.{f.name}" for f in dataclasses.fields(RivalsConfig)}
    fields |= {f.name for schema in (EvaluateConfig, CheckMetersConfig) for f in dataclasses.fields(schema)}
    named = {key for keys in weights.KEYS.values() for key in keys.split(", ")}
    assert named <= fields


def test_every_name_is_catalogued_and_has_its_own_file() -> None:
    assert set(ASSETS) == set(weights.FILES)
    assert len(set(weights.FILES.values())) == len(weights.FILES)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"<!DOCTYPE html><html>Sign in</html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"", "it is empty"),
        (bytes(4096), "nothing but zeros"),
        (b"PK\x03\x04 cut", "cannot be read as a zip"),
        (b"\x80\x02", "cut short"),
    ],
)
@pytest.mark.parametrize("name", ["arcface", "swin", ""])
def test_what_is_no_file_of_weights_is_named_with_its_remedy(tmp_path: Path, name: str, data: bytes, told: str) -> None:
    path = tmp_path / weights.FILES.get(name, "mine.pt")
    path.write_bytes(data)
    remedy = rf"fetch_weights\.py {name}`" if name else "download it again"
    with pytest.raises(ValueError, match=rf"{path.name} cannot be read as tensors: .*{told}.*{remedy}") as error:
        weights.read_state(path)
    assert "weights_only" not in str(error.value)
