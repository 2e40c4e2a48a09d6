"""Weights on disk: published files give the same generator again, our own give it bit by bit, damage is reported."""

import json
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eg3d.cameras import canonical_label
from eg3d.checkpoint import UnsafeCheckpointError, describe, generator_hash, load, save
from eg3d.generator import GeneratorConfig, TriPlaneGenerator
from eg3d.nn.superresolution import VARIANTS
from eg3d.rendering.renderer import RenderingConfig
from eg3d.stored import state_hash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parity import load_state, make_state, seeded
from pickling import Call, Name, axes_matrices, dumps, easy, init_kwargs, persistent, published, snapshot
from safetensors.torch import load_file, save_file


def tiny(plane_axes: str = "xy,xz,zx", **changes: Any) -> TriPlaneGenerator:
    """A generator that is small in every size, with seeded weights."""
    values: dict[str, Any] = {
        "z_dim": 8,
        "w_dim": 12,
        "image_resolution": 32,
        "plane_resolution": 16,
        "plane_channels": 4,
        "channel_base": 128,
        "channel_max": 16,
        "neural_rendering_resolution": 8,
        "superresolution": "2X",
        "superresolution_input": 16,
        "superresolution_channels": [6, 4],
        "rendering": RenderingConfig(depth_resolution=4, depth_resolution_importance=4, plane_axes=plane_axes),
    }
    generator = TriPlaneGenerator(GeneratorConfig(**(values | changes)), impl="ref").eval().requires_grad_(False)
    shapes = {name: tuple(tensor.shape) for name, tensor in generator.state_dict().items()}
    load_state(generator, make_state(shapes, equalized=True))
    return generator


def write(folder: Path, content: Any, **options: Any) -> Path:
    path = folder / "network.pkl"
    path.write_bytes(dumps(content, **options))
    return path


def assert_same(loaded: TriPlaneGenerator, generator: TriPlaneGenerator) -> None:
    """Same configuration, tensors and picture; ready for inference."""
    assert loaded.config == generator.config
    state = generator.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    z, c = seeded("checkpoint/z", [1, generator.config.z_dim]), canonical_label()
    ours, theirs = (g.synthesis(g.mapping(z, c), c) for g in (loaded, generator))
    assert torch.equal(ours.image, theirs.image) and torch.equal(ours.image_depth, theirs.image_depth)
    assert float(ours.image.std()) > 0


# Published files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("numpy_names", ["old", "new"])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_published_file_gives_the_generator_again(
    tmp_path: Path, ordered: bool, numpy_names: str, protocol: int
) -> None:
    generator, marker = tiny(), tmp_path / "marker"
    path = write(
        tmp_path, snapshot(generator, marker=marker, ordered=ordered), protocol=protocol, numpy_names=numpy_names
    )
    assert str(marker).encode() in path.read_bytes()
    assert_same(load(path, impl="ref"), generator)
    assert not marker.exists()


def test_G_and_G_ema_are_told_apart(tmp_path: Path) -> None:
    average, current = tiny(), tiny()
    current.decoder.requires_grad_(False).net[0].bias.add_(1)
    path = write(tmp_path, snapshot(average) | {"G": published(current)})
    assert_same(load(path, impl="ref"), average)
    assert_same(load(path, which="G", impl="ref"), current)
    with pytest.raises(ValueError, match="no network 'G_avg'; it has: G, D, G_ema"):
        load(path, which="G_avg")
    with pytest.raises(ValueError, match="a DualDiscriminator, expected a TriPlaneGenerator"):
        load(path, which="D")


@pytest.mark.parametrize("axes", ["xy,xz,zx", "xy,xz,zy", "xy,yz,zx"])
def test_plane_axes_come_from_the_renderer(tmp_path: Path, axes: str) -> None:
    path = write(tmp_path, snapshot(tiny(axes)))
    assert load(path).config.rendering.plane_axes == axes == describe(path).plane_axes


def test_published_plane_axes_are_the_released_matrices() -> None:
    rows = [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1], [0, 1, 0]], [[0, 0, 1], [1, 0, 0], [0, 1, 0]]]
    assert torch.equal(axes_matrices("xy,xz,zx"), torch.tensor(rows, dtype=torch.float32))


def test_without_plane_axes_the_published_ones_are_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, snapshot(tiny(), plane_axes=None))
    assert load(path).config.rendering.plane_axes == "xy,xz,zx" and "plane axes" in caplog.text
    assert describe(path).plane_axes is None and "not said" in str(describe(path))


@pytest.mark.parametrize("matrices", [torch.zeros(3, 3, 3), torch.ones(2, 2), torch.full((3, 3, 3), float("nan"))])
def test_plane_axes_that_are_none(tmp_path: Path, matrices: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="plane_axes"):
        load(write(tmp_path, snapshot(tiny(), plane_axes=matrices)))


def test_attributes_win_over_constructor_arguments(tmp_path: Path) -> None:
    generator = tiny()
    constructed = {"neural_rendering_resolution": 4}
    changed = easy(**{"ray_start": 1.5, "ray_end": 4.0, "box_warp": 1.25, "depth_resolution": 5})
    changed.items = init_items(generator) | changed.items
    path = write(tmp_path, snapshot(generator, kwargs=constructed, rendering_kwargs=changed))
    config = load(path).config
    assert config.neural_rendering_resolution == 8
    rendering = config.rendering
    assert (rendering.ray_start, rendering.ray_end, rendering.box_warp, rendering.depth_resolution) == (
        1.5,
        4.0,
        1.25,
        5,
    )
    told = describe(path)
    assert str(told).endswith("box_warp: 1.25") and "depth_resolution: 5\n" in str(told).partition("set since init")[2]
    assert told.rendering_kwargs["box_warp"] == 1.25 and told.init_kwargs["rendering_kwargs"]["box_warp"] == 1.0  # type: ignore[index]


def init_items(generator: TriPlaneGenerator, **changes: Any) -> dict[str, Any]:
    """The rendering settings of a generator as a dict."""
    return init_kwargs(generator.config)["rendering_kwargs"].items | changes


@pytest.mark.parametrize(
    "changes",
    [
        {"rendering": RenderingConfig(ray_start=None, ray_end=None, white_back=True)},
        {"rendering": RenderingConfig(disparity_space_sampling=True, box_warp=1.6)},
        {"c_gen_conditioning_zero": True, "avg_camera_radius": 1.7, "avg_camera_pivot": [0.0, 0.0, -0.06]},
        {"sr_num_fp16_res": 0, "sr_antialias": False, "superresolution_noise_mode": "const", "decoder_lr_mul": 0.5},
        {"mapping_layers": 3, "c_scale": 0.5},
        {"superresolution": "8XDC", "superresolution_input": 8},
        {"superresolution": "4X"},
        {"superresolution": "Deepfp32"},
    ],
)
def test_every_setting_survives(tmp_path: Path, changes: dict[str, Any]) -> None:
    generator = tiny(**changes)
    assert load(write(tmp_path, snapshot(generator))).config == generator.config
    save(generator, tmp_path / "own.safetensors")
    assert load(tmp_path / "own.safetensors").config == generator.config


@pytest.mark.parametrize("variant", VARIANTS)
def test_published_sizes_of_the_superresolution_are_not_spelt_out(tmp_path: Path, variant: str) -> None:
    own = VARIANTS[variant]
    size = own.input_resolution * own.up * 2
    generator = tiny(
        superresolution=variant, superresolution_input=None, superresolution_channels=None, image_resolution=size
    )
    config = describe(write(tmp_path, {"G_ema": published(generator)})).config
    assert config == generator.config and config.superresolution_input is None


def test_settings_absent_from_old_files(tmp_path: Path) -> None:
    generator = tiny()
    items = init_items(generator)
    for key in ("c_scale", "white_back", "decoder_lr_mul", "sr_antialias", "c_gen_conditioning_zero"):
        del items[key]
    config = load(write(tmp_path, snapshot(generator, rendering_kwargs=items))).config
    assert config == replace(generator.config, c_scale=0.0)  # as the released code reads a missing c_scale


def test_unused_statistics_are_ignored(tmp_path: Path) -> None:
    generator = tiny()
    path = write(tmp_path, snapshot(generator, extra={"dataset_label_std": torch.ones(25)}))
    assert_same(load(path, impl="ref"), generator)
    assert describe(path).num_tensors == len(generator.state_dict())


def test_stored_dtypes_are_converted(tmp_path: Path) -> None:
    generator = tiny().half()
    loaded = load(write(tmp_path, snapshot(generator)))
    assert all(t.dtype == torch.float32 for t in loaded.state_dict().values())
    assert all(torch.equal(t, generator.state_dict()[n].float()) for n, t in loaded.state_dict().items())


def test_description(tmp_path: Path) -> None:
    generator = tiny("xy,xz,zy")
    told = describe(write(tmp_path, snapshot(generator), numpy_names="old"))
    assert (told.class_name, told.networks, told.numpy_names) == ("TriPlaneGenerator", ["G", "D", "G_ema"], "old")
    assert told.superresolution_class == "SuperresolutionHybrid2X" and told.plane_axes == "xy,xz,zy"
    assert told.num_tensors == len(generator.state_dict())
    assert told.num_elements == sum(tensor.numel() for tensor in generator.state_dict().values())
    assert told.init_kwargs["z_dim"] == 8 and told.rendering_kwargs["avg_camera_pivot"] == [0.0, 0.0, 0.2]
    for part in (
        "class:            TriPlaneGenerator",
        "xy,xz,zy",
        "numpy names:      old",
        "z_dim: 8",
        "box_warp: 1.0",
    ):
        assert part in str(told)


@pytest.mark.slow
def test_full_size(tmp_path: Path) -> None:
    """The published 512² face configuration: counts of EG3D's generator, and every bit of its weights."""
    generator = TriPlaneGenerator(GeneratorConfig(), impl="ref")
    path = write(tmp_path, {"G_ema": published(generator, extra={"dataset_label_std": torch.ones(25)})})
    told = describe(path)
    assert (told.num_tensors, told.num_elements) == (176, 30_662_136 + 831_024) and told.config == generator.config
    assert generator_hash(load(path)) == generator_hash(generator)


def test_tensors_that_differ_are_listed(tmp_path: Path) -> None:
    generator = tiny()
    more = {"decoder.net.0.other": torch.ones(1)}
    with pytest.raises(ValueError, match=r"do not fit its configuration\. unexpected: decoder\.net\.0\.other"):
        load(write(tmp_path, snapshot(generator, extra=more)))
    wrong = {"decoder.net.2.bias": torch.ones(7)}
    with pytest.raises(ValueError, match=r"of another shape: decoder\.net\.2\.bias \(7,\) \(expected \(33,\)\)"):
        load(write(tmp_path, snapshot(generator, extra=wrong)))
    with pytest.raises(ValueError, match=r"missing: backbone\.mapping\.fc2\.bias, backbone\.mapping\.fc2\.weight"):
        load(write(tmp_path, snapshot(generator, kwargs={"mapping_kwargs": easy(num_layers=3)})))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"z_dim": "64"}, r"init_kwargs\.z_dim is '64', expected an integer"),
        ({"w_dim": 1 << 40}, r"w_dim is 1099511627776, expected an integer"),
        ({"z_dim": -1}, "z_dim is -1"),
        ({"mapping_kwargs": 3}, "mapping_kwargs is 3, expected a dict"),
        ({"mapping_kwargs": {"num_layers": 60_000}}, "implausible sizes"),
        ({"img_channels": 4}, "img_channels is 4; only 3 is supported"),
        ({"conv_clamp": 256}, "conv_clamp is 256; only None is supported"),
        ({"img_resolution": 512}, "image_resolution is 512"),
        ({"sr_num_fp16_res": True}, "sr_num_fp16_res is True"),
        ({"hidden": torch.ones(2)}, "_init_kwargs holds a TensorRecord"),
        ({"hidden": [0] * 2000}, "more than 1000 values"),
        ({"rendering_kwargs": None}, "rendering_kwargs is a NoneType, expected a dict"),
    ],
)
def test_constructor_arguments_that_cannot_be(tmp_path: Path, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path, snapshot(tiny(), kwargs=kwargs)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ray_start": "auto"}, "two of one kind"),
        ({"ray_start": None}, "ray_start is None, expected a finite number"),
        ({"box_warp": float("inf")}, "box_warp is inf"),
        ({"box_warp": -1.0}, "box_warp is -1.0"),
        ({"clamp_mode": "relu"}, "only softplus is supported"),
        ({"density_noise": 1.0}, "density_noise is 1.0"),
        ({"avg_camera_pivot": [0, 0]}, "expected three numbers"),
        ({"avg_camera_pivot": [0, 0, "x"]}, "avg_camera_pivot.2 is 'x'"),
        ({"white_back": 1}, "white_back is 1, expected True or False"),
        ({"superresolution_noise_mode": 1}, "expected a text"),
        ({"depth_resolution": 1}, "depth_resolution is 1"),
    ],
)
def test_rendering_settings_that_cannot_be(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    generator = tiny()
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path, snapshot(generator, rendering_kwargs=init_items(generator, **changes))))


@pytest.mark.parametrize("missing", ["z_dim", "img_resolution", "sr_num_fp16_res"])
def test_arguments_that_are_needed(tmp_path: Path, missing: str) -> None:
    content = snapshot(tiny())
    del content["G_ema"].arguments[0]["state"]["_init_kwargs"][missing]
    with pytest.raises(ValueError, match=f"init_kwargs has no '{missing}'"):
        load(write(tmp_path, content))


def test_refusal_is_one_paragraph_with_a_remedy(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    content = snapshot(tiny()) | {"augment_pipe": Call(Name("os", "system"), (f"touch {marker}",))}
    for door in (load, describe):
        with pytest.raises(UnsafeCheckpointError, match=r"`os\.system`") as caught:
            door(write(tmp_path, content))  # type: ignore[operator]
        message = str(caught.value)
        assert (
            "\n" not in message and "nothing" in message and "download it again" in message and "network.pkl" in message
        )
    assert not marker.exists()


def test_tensors_that_unfold_are_refused(tmp_path: Path) -> None:
    generator = tiny()
    content = snapshot(generator)
    shared = torch.nn.Parameter(torch.zeros(1000))
    del content["G"]
    parameters = content["G_ema"].arguments[0]["state"]["_parameters"]
    parameters |= {f"x{i}": shared for i in range(900)}
    with pytest.raises(UnsafeCheckpointError, match="unfold to more bytes"):
        load(write(tmp_path, content))


def test_other_superresolution_class(tmp_path: Path) -> None:
    content = snapshot(tiny())
    content["G_ema"].arguments[0]["state"]["_modules"]["superresolution"].arguments[0]["class_name"] = (
        "SuperresolutionNew"
    )
    with pytest.raises(ValueError, match="super-resolution is SuperresolutionNew, expected one of"):
        load(write(tmp_path, content))


def test_integers_as_weights_are_refused(tmp_path: Path) -> None:
    integers = {"decoder.net.2.bias": torch.ones(33, dtype=torch.int64)}
    with pytest.raises(ValueError, match=r"not floating-point: decoder\.net\.2\.bias"):
        load(write(tmp_path, snapshot(tiny(), extra=integers)))


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        load(tmp_path / "absent.pkl")
    with pytest.raises(FileNotFoundError, match="it is a folder"):
        describe(tmp_path)
    with pytest.raises(UnsafeCheckpointError, match="is empty"):
        (tmp_path / "empty.pkl").touch()
        load(tmp_path / "empty.pkl")


# Damage at random -----------------------------------------------------------------------------------------------------

Mutation = tuple[float, int, int]


def mutate(data: bytes, mutations: list[Mutation]) -> bytes:
    """Replace, insert or remove a byte at each relative position."""
    changed = bytearray(data)
    for position, what, value in mutations:
        at = min(int(position * len(changed)), len(changed) - 1)
        changed[at : at + (what != 1)] = b"" if what == 2 else bytes([value])
    return bytes(changed)


@pytest.fixture(scope="module")
def seed_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A folder, and a small published file that would create the file `marker` there."""
    folder = tmp_path_factory.mktemp("fuzz")
    generator = tiny(plane_channels=1, channel_max=2, channel_base=16, superresolution_channels=[1, 1], w_dim=2)
    marker = folder / "marker"
    content = {"G_ema": published(generator, marker=marker)}
    return folder, dumps(content)


@settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_files_raise_nothing_else(seed_file: tuple[Path, bytes], mutations: list[Mutation]) -> None:
    folder, data = seed_file
    path = folder / "damaged.pkl"
    path.write_bytes(mutate(data, mutations))
    with suppress(ValueError):
        describe(path)
    assert not (folder / "marker").exists()


def test_opcodes_at_random_raise_nothing_else(seed_file: tuple[Path, bytes]) -> None:
    """Change bytes outside of the raw numbers and texts, where they matter to the machine."""
    folder, data = seed_file
    rng, path = random.Random(0), folder / "damaged.pkl"
    interesting = [i for i, byte in enumerate(data) if byte in b"\x93\x94R\x81bhjtu(.}]\x85\x86\x87\x8c\x8e\x95BCcQ"]
    refused = 0
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            changed[rng.choice(interesting)] = rng.choice(b"\x93\x94R\x81bhjtu(.}]\x85\x86\x87\x8c0cQ\x82io")
        path.write_bytes(bytes(changed))
        try:
            describe(path)
        except ValueError:
            refused += 1
    assert refused > 75 and not (folder / "marker").exists()


# Our own files --------------------------------------------------------------------------------------------------------


def test_saved_generator_loads_bit_by_bit(tmp_path: Path) -> None:
    generator, path = tiny("xy,xz,zy"), tmp_path / "own.safetensors"
    save(generator, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["own.json", "own.safetensors"]
    assert_same(load(path, impl="ref"), generator)
    meta = json.loads(path.with_suffix(".json").read_text())
    assert generator_hash(generator) == generator_hash(load(path))
    assert meta["config"] == asdict(generator.config)


def test_published_to_own(tmp_path: Path) -> None:
    generator = tiny()
    save(load(write(tmp_path, snapshot(generator))), tmp_path / "own.safetensors")
    assert_same(load(tmp_path / "own.safetensors", impl="ref"), generator)
    told = describe(tmp_path / "own.safetensors")
    assert told.config == generator.config and told.num_tensors == len(generator.state_dict())
    assert told.plane_axes == "xy,xz,zx" and told.numpy_names == "none" and "init kwargs:      none" in str(told)


def test_half_precision_halves_the_file(tmp_path: Path) -> None:
    generator, path = tiny(), tmp_path / "half.safetensors"
    save(generator, path, dtype=torch.float16)
    save(generator, tmp_path / "full.safetensors")
    assert path.stat().st_size < 0.7 * (tmp_path / "full.safetensors").stat().st_size
    state = load(path).state_dict()
    assert all(torch.equal(t, generator.state_dict()[n].half().float()) for n, t in state.items())


def test_half_precision_does_not_overflow(tmp_path: Path) -> None:
    generator = tiny()
    generator.decoder.net[0].bias.fill_(1e6)
    with pytest.raises(ValueError, match=r"too large are values of decoder\.net\.0\.bias"):
        save(generator, tmp_path / "half.safetensors", dtype=torch.float16)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "dtype"), [("x.pkl", torch.float32), ("x.safetensors", torch.bfloat16)])
def test_save_refuses_other_endings_and_dtypes(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="expected a path that ends in"):
        save(tiny(), tmp_path / name, dtype=dtype)


def test_hash_follows_every_bit() -> None:
    generator = tiny()
    first = generator_hash(generator)
    assert first == generator_hash(tiny()) and len(first) == 64
    bias = generator.decoder.net[0].bias
    bias[0] = float(np.nextafter(np.float32(bias[0]), np.float32(9)))
    assert generator_hash(generator) != first


def as_version_1(path: Path) -> None:
    """Write the pair as it was before files had checksums: a hash of the tensors in the JSON."""
    state, beside = load_file(path), path.with_suffix(".json")
    meta = json.loads(beside.read_text())
    save_file(state, path)
    digest = state_hash({name: tensor.float() for name, tensor in state.items()})
    beside.write_text(json.dumps(meta | {"version": 1, "sha256": digest}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_files_of_version_1_load(tmp_path: Path, dtype: torch.dtype) -> None:
    generator, path = tiny(), tmp_path / "own.safetensors"
    save(generator, path, dtype=dtype)
    state = load(path).state_dict()
    as_version_1(path)
    assert all(torch.equal(tensor, state[name]) for name, tensor in load(path).state_dict().items())


def no_json(path: Path) -> None:
    path.with_suffix(".json").unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def pickled(path: Path) -> None:
    path.write_bytes(dumps({"G_ema": persistent("TriPlaneGenerator", {}, "")}))


def configured(**changes: Any) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        meta = json.loads(path.with_suffix(".json").read_text())
        meta["config"] |= changes
        path.with_suffix(".json").write_text(json.dumps(meta))

    return damage


def written(text: str) -> Callable[[Path], None]:
    return lambda path: path.with_suffix(".json").write_text(text) and None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_json, "needs own.json with its configuration beside it"),
        (cut, "is damaged or no safetensors file"),
        (empty, "is damaged or no safetensors file"),
        (flip, "not those that own.json was written for"),
        (pickled, "is damaged or no safetensors file"),
        (configured(w_dim=13), r"do not fit its configuration\. of another shape: backbone"),
        (configured(mapping_layers=3), r"missing: backbone\.mapping\.fc2"),
        (configured(mapping_layers=10**9), "implausible sizes"),
        (configured(superresolution_channels=[10**9, 4]), "implausible sizes"),
        (configured(w_dim="13"), "w_dim = '13' is unknown or of a wrong type"),
        (configured(z_dim=True), "z_dim = True is unknown"),
        (configured(c_scale=float("nan")), "c_scale = nan is unknown"),
        (configured(wdim=13), "wdim = 13 is unknown"),
        (configured(superresolution="16X"), "superresolution is '16X'"),
        (configured(rendering={"plane_axes": "xx,yy,zz"}), "plane_axes is 'xx,yy,zz'"),
        (configured(rendering={"rays": 3}), "rays = 3 is unknown"),
        (configured(rendering=None), "TypeError"),
        (written("{"), "not the configuration of an EG3D generator"),
        (written("[]"), "not the configuration of an EG3D generator"),
        (written("{}"), "KeyError: 'format'"),
        (written("[" * 100_000), "not the configuration of an EG3D generator"),
        (written('{"format": "eg3d", "version": 3, "sha256": "", "config": {}}'), "expected format 'eg3d', version 2"),
        (written('{"format": "eg3d", "version": 1, "sha256": 0, "config": {}}'), "or version 1 and a hash"),
    ],
)
def test_damage_is_reported(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    """With the message given where no checksum tells it first."""
    path = tmp_path / "own.safetensors"
    expected = FileNotFoundError if damage is no_json else ValueError
    for version, told in ((1, message), (2, message if damage is no_json else "is damaged")):
        save(tiny(), path)
        if version == 1:
            as_version_1(path)
        damage(path)
        with pytest.raises(expected, match=told) as caught:
            load(path)
        assert "own." in str(caught.value) and "\n" not in str(caught.value)
