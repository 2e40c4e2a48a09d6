"""Generators' files that ask for much, or hold another network, are refused by name, quickly and within memory."""

from pathlib import Path
from typing import Any

import pytest
from eg3d import checkpoint, stored
from eg3d.generator import GeneratorConfig, TriPlaneGenerator
from mutations import bounded, on_file, survives
from parity import load_state, make_state
from pickling import Call, Name, New, dumps, module_state, persistent, published, snapshot
from safetensors.torch import save_file

SEQUENTIAL = Name("torch.nn.modules.container", "Sequential")
STORAGE = Name("torch.storage", "_load_from_bytes")
TENSOR = Name("torch._utils", "_rebuild_tensor_v2")
LONG = "x" * 4_000_000


@pytest.fixture(scope="module")
def tiny() -> TriPlaneGenerator:
    config = GeneratorConfig(
        z_dim=4,
        w_dim=4,
        image_resolution=32,
        plane_resolution=8,
        plane_channels=2,
        channel_base=32,
        channel_max=4,
        neural_rendering_resolution=8,
        superresolution="2X",
        superresolution_input=16,
        superresolution_channels=[2, 2],
    )
    generator = TriPlaneGenerator(config, impl="ref").requires_grad_(False)
    load_state(generator, make_state({n: tuple(t.shape) for n, t in generator.state_dict().items()}, equalized=True))
    return generator


def chained(length: int) -> list[Any]:
    """Modules that hold the one before each; a file that lists them all looks flat."""
    found = [New(SEQUENTIAL, module_state())]
    for _ in range(length):
        found.append(New(SEQUENTIAL, module_state(_modules={"a": found[-1]})))
    return found


def flood(kind: str) -> Any:
    """Contents that are small in the file, since parts are shared, and large to whoever walks through them."""
    if kind == "shapes":
        return [Call(TENSOR, (0, 0, SHAPE, SHAPE, False, {})) for _ in range(2)]
    if kind == "names":
        return [persistent(LONG, {}, "") for _ in range(3000)]
    if kind == "fields":
        fields = {str(i): i for i in range(50_000)}
        return [Call(Name("torch_utils.persistence", "_reconstruct_persistent_obj"), (fields,)) for _ in range(5)]
    if kind == "texts":
        return persistent("TriPlaneGenerator", module_state(_init_kwargs={"a": [LONG] * 600}), "")
    if kind == "keys":
        return persistent("TriPlaneGenerator", module_state(_init_kwargs={"a": [{LONG: 1}] * 600}), "")
    modules = chained(2000)
    return persistent("TriPlaneGenerator", {"all": modules} | module_state(_modules={"last": modules[-1]}), "")


SHAPE = (1,) * 100_000


@pytest.mark.parametrize("kind", ["shapes", "names", "fields", "texts", "keys", "chain"])
def test_shared_parts_cost_little_time_and_memory(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "network.pkl"
    path.write_bytes(dumps({"G_ema": flood(kind)}))
    with pytest.raises(ValueError, match=r"network\.pkl was refused .*download it again"):
        bounded(lambda: checkpoint.describe(path), memory=256 << 20, seconds=5)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"G_ema": persistent("Generator", module_state(_init_kwargs={}), "")}, "is a Generator, expected a TriPlane"),
        (Call(Name("dnnlib.tflib.network", "Network"), ()), "a pickle of TensorFlow's StyleGAN"),
        ({"G": persistent("Generator", module_state(_init_kwargs={}), "")}, "has no network 'G_ema'; it has: G"),
    ],
)
def test_other_networks_are_refused_with_file_and_remedy(tmp_path: Path, content: Any, told: str) -> None:
    path = tmp_path / "stylegan2-ffhq.pkl"
    path.write_bytes(dumps(content))
    with pytest.raises(ValueError, match=rf"stylegan2-ffhq\.pkl was refused .*{told}.*download it again"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is empty"),
        (bytes(9999), "nothing but zeros"),
        (b"<!DOCTYPE html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
@pytest.mark.parametrize("name", ["network.pkl", "network.safetensors"])
def test_what_is_no_network_at_all_is_named(tmp_path: Path, name: str, data: bytes, told: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    path.with_suffix(".json").write_text("{}")
    with pytest.raises(ValueError, match=rf"network.*{told}.* again" if name.endswith("pkl") else "network"):
        checkpoint.load(path)


def test_a_lost_json_is_named(tiny: TriPlaneGenerator, tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    checkpoint.save(tiny, path)
    path.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match=r"network\.json"):
        checkpoint.load(path)


def test_mutated_generators(tiny: TriPlaneGenerator, tmp_path: Path) -> None:
    data = dumps(snapshot(tiny) | {"G": None, "D": None})
    survives(
        on_file(tmp_path / "network.pkl", checkpoint.describe), [data, dumps({"G_ema": published(tiny)}, 2)], few=100
    )


def test_mutated_pairs(tiny: TriPlaneGenerator, tmp_path: Path) -> None:
    """Files without checksums, as before there were any; with them, every mutation is noticed."""
    path = tmp_path / "network.safetensors"
    checkpoint.save(tiny, path)
    save_file(tiny.state_dict(), path)
    text = path.with_suffix(".json").read_bytes()
    assert survives(on_file(path.with_suffix(".json"), lambda _: stored.read_config(path)), [text]).accepted
    path.with_suffix(".json").write_bytes(text)
    assert survives(on_file(path, checkpoint.load), [path.read_bytes()], few=100).accepted
