"""Our own files of networks."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from damage import cuts, unnoticed
from eg3d.integrity import SUMS, verify
from mutations import on_file, survives
from safetensors.torch import save_file

from goae.models.discriminator import LatentDiscriminator, LatentDiscriminatorConfig
from goae.models.storage import halve_model, is_stored, read_model, restore, save_model
from goae.states import load_strictly

SHIPPED = Path(__file__).parents[3] / "goae/assets"


@dataclass
class Inner:
    size: int = 1


@dataclass
class Outer:
    inner: Inner = field(default_factory=Inner)
    widths: list[int] = field(default_factory=list)


def saved(tmp_path: Path) -> tuple[LatentDiscriminator, Path]:
    module = LatentDiscriminator(LatentDiscriminatorConfig(w_dim=8, num_layers=2))
    path = tmp_path / "network.safetensors"
    save_model(module, path, rows=10)
    return module, path


def test_half_precision_rounds_the_weights_and_keeps_the_rest(tmp_path: Path) -> None:
    module, path = saved(tmp_path)
    halve_model(path, tmp_path / "half.safetensors")
    stored, half = read_model(path), read_model(tmp_path / "half.safetensors")
    assert (half.name, half.config, half.facts) == (stored.name, stored.config, stored.facts)
    assert all(torch.equal(half.state[name], tensor.half()) for name, tensor in stored.state.items())
    load_strictly(module, half.state, "half")
    assert all(p.dtype == torch.float32 for p in module.parameters())
    with torch.no_grad():
        next(module.parameters()).fill_(1e6)
    save_model(module, path, rows=10)
    with pytest.raises(ValueError, match="half precision cannot hold"):
        halve_model(path, tmp_path / "other.safetensors")
    assert not (tmp_path / "other.safetensors").exists()


def test_round_trip(tmp_path: Path) -> None:
    module, path = saved(tmp_path)
    assert is_stored(path) and sorted(p.name for p in tmp_path.iterdir()) == ["network.json", "network.safetensors"]
    stored = read_model(path)
    assert stored.name == "LatentDiscriminator" and stored.facts == {"rows": 10}
    config = restore(LatentDiscriminatorConfig, stored.config)
    assert config == module.config
    other = LatentDiscriminator(config)
    load_strictly(other, stored.state, path)
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), module.parameters(), strict=True))


def test_nested_configurations_come_back() -> None:
    assert restore(Outer, {"inner": {"size": 3}, "widths": [1, 2]}) == Outer(Inner(3), [1, 2])
    with pytest.raises(ValueError, match=r"Inner has no outer\.inner\.siz"):
        restore(Outer, {"inner": {"siz": 3}}, "outer.")


def test_misfits_are_listed(tmp_path: Path) -> None:
    module, path = saved(tmp_path)
    state = read_model(path).state
    state["extra"] = state.pop("layers.0.bias")
    state["layers.2.weight"] = torch.zeros(1, 9)
    told = r"missing: layers\.0\.bias; unexpected: extra; of another shape: layers\.2\.weight"
    with pytest.raises(ValueError, match=told):
        load_strictly(module, state, path)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        read_model(tmp_path / "none.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(ValueError, match="damaged"):
        read_model(path)
    path.write_bytes(whole)
    facts = path.with_suffix(".json")
    for content in ("{", "[]", json.dumps({"format": "another"}), json.dumps({"format": "goae-model-1"})):
        facts.write_text(content)
        with pytest.raises(ValueError, match=r"network\.safetensors"):
            read_model(path)
    facts.unlink()
    assert not is_stored(path)
    with pytest.raises(FileNotFoundError, match=r"network\.json"):
        read_model(path)


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    module, _ = saved(tmp_path)
    with pytest.raises(ValueError, match="suffix"):
        save_model(module, tmp_path / "network.pt")


def test_flipped_bits_of_both_files_are_noticed(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    for part in (path, path.with_suffix(".json")):
        assert not unnoticed(part, lambda: read_model(path))
        assert not unnoticed(part, lambda: read_model(path), cuts(part))
    path.write_bytes(path.read_bytes()[:-4] + b"bits")
    with pytest.raises(ValueError, match=r"checksum differs .* give the command of their training again"):
        read_model(path)


def test_files_without_checksums_load(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    stored = read_model(path)
    save_file(stored.state, path)
    old = read_model(path)
    assert old.config == stored.config and all(torch.equal(old.state[n], t) for n, t in stored.state.items())


def test_every_shipped_weight_file_has_its_checksum_beside() -> None:
    files = [path for path in SHIPPED.rglob("*") if path.suffix in (".safetensors", ".npy")]
    files += [other for path in files if (other := path.with_suffix(".json")).exists()]
    assert len(files) > 30 and all(verify(path) for path in files)
    listed = [line.split("  ") for sums in SHIPPED.rglob(SUMS) for line in sums.read_text().splitlines()]
    assert len(listed) == len(files)


def test_mutated_pairs_without_checksums(tmp_path: Path) -> None:
    module, path = saved(tmp_path)
    save_file(module.state_dict(), path)
    text = path.with_suffix(".json").read_bytes()
    assert survives(on_file(path.with_suffix(".json"), lambda _: read_model(path)), [text], few=150).accepted
    path.with_suffix(".json").write_bytes(text)
    assert survives(on_file(path, read_model), [path.read_bytes()], few=150).accepted
    path.write_bytes(b"<html>Sign in</html>")
    with pytest.raises(ValueError, match=r"network\.safetensors .* it is a web page"):
        read_model(path)
