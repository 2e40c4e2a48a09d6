"""Edit directions: the released containers and shapes, and the glasses compensation."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import unnoticed
from mutations import on_file, survives

from goae.editing.directions import edit_delta, load_direction, save_direction
from goae.models.goae import preset


@pytest.mark.parametrize("shape", [(1, 14, 8), (14, 8)])
@pytest.mark.parametrize("container", ["numpy", "torch"])
def test_released_containers_are_read_whatever_their_suffix(tmp_path: Path, container: str, shape: tuple) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "cat_black.npy"
    with path.open("wb") as file:
        np.save(file, values.numpy()) if container == "numpy" else torch.save(values, file)
    assert torch.equal(load_direction(path, num_ws=14, w_dim=8), values.reshape(14, 8))


def test_flipped_bits_of_a_written_direction_are_noticed(tmp_path: Path) -> None:
    path, normal = tmp_path / "smile.npy", torch.randn(16, generator=torch.Generator().manual_seed(0))
    save_direction(normal, 2.0, path, num_ws=4)
    assert torch.equal(load_direction(path, num_ws=4, w_dim=16), (2 * normal).expand(4, 16))
    assert np.array_equal(np.load(path), (2 * normal).expand(1, 4, 16).numpy())
    assert [other.name for other in tmp_path.iterdir()] == ["smile.npy"]
    assert not unnoticed(path, lambda: load_direction(path, num_ws=4, w_dim=16))


def test_one_row_serves_all(tmp_path: Path) -> None:
    np.save(tmp_path / "n.npy", np.arange(8.0))
    found = load_direction(tmp_path / "n.npy", num_ws=10, w_dim=8)
    assert found.shape == (10, 8) and torch.equal(found[3], torch.arange(8.0))


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


def test_what_is_no_direction_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no edit direction"):
        load_direction(tmp_path / "none.npy", num_ws=14, w_dim=8)
    np.save(tmp_path / "wrong.npy", np.zeros((13, 8)))
    with pytest.raises(ValueError, match=r"shape \(13, 8\); expected \(14, 8\)"):
        load_direction(tmp_path / "wrong.npy", num_ws=14, w_dim=8)
    (tmp_path / "evil.npy").write_bytes(pickle.dumps(Evil(tmp_path / "marker")))
    with pytest.raises(ValueError, match=r"evil\.npy cannot be read as tensors: it names `pathlib"):
        load_direction(tmp_path / "evil.npy", num_ws=14, w_dim=8)
    torch.save({"a": torch.zeros(1)}, tmp_path / "dict.pt")
    with pytest.raises(ValueError, match="holds a dict"):
        load_direction(tmp_path / "dict.pt", num_ws=14, w_dim=8)
    assert not (tmp_path / "marker").exists()


def test_D16_glasses_are_taken_off_by_a_share_that_alpha_does_not_scale() -> None:
    n, glasses = torch.ones(14, 8), torch.full((14, 8), 2.0)
    assert torch.equal(edit_delta(n, 3.0), 3 * n)
    comp = preset("official").edit_glass_comp
    assert torch.allclose(edit_delta(n, 3.0, glasses=glasses, glass_comp=comp), torch.full((14, 8), 3 - 0.8 * 2))
    assert torch.equal(edit_delta(n, 0.5, glasses=glasses, glass_comp=preset("paper").edit_glass_comp), 0.5 * n)
    with pytest.raises(ValueError, match="no glasses direction"):
        edit_delta(n, 1.0, glass_comp=0.8)


def saved(container: str) -> bytes:
    file, values = io.BytesIO(), torch.arange(112.0).view(14, 8)
    if container in ("npy", "npz"):
        (np.save if container == "npy" else np.savez)(file, values.numpy())
    else:
        torch.save(values, file, _use_new_zipfile_serialization=container == "pt")
    return file.getvalue()


@pytest.mark.parametrize("container", ["npy", "npz", "pt", "old"])
def test_mutated_directions(tmp_path: Path, container: str) -> None:
    load = on_file(tmp_path / "age.npy", lambda path: load_direction(path, num_ws=14, w_dim=8))
    survives(load, [saved(container)], few=150)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (saved("npz"), r"a zip archive of arr_0\.npy, none that torch\.save wrote; unpack it first"),
        (saved("npy").replace(b"<f4", b"|O4"), "array"),
        (saved("npy")[:90], "array"),
        (b"<html></html>", "a web page"),
        (b"", "empty"),
    ],
)
def test_other_files_are_named_with_a_remedy(tmp_path: Path, data: bytes, told: str) -> None:
    (tmp_path / "age.npy").write_bytes(data)
    with pytest.raises(ValueError, match=rf"age\.npy cannot be read as tensors: .*{told}.*train_directions\.py"):
        load_direction(tmp_path / "age.npy", num_ws=14, w_dim=8)
