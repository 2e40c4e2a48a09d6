"""Checksums of files: flipped bits and cuts are noticed, and files without one load as before."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import cuts, unnoticed
from eg3d.integrity import (
    SUMS,
    append_checksum,
    load_tensors,
    replace_file,
    save_object,
    save_tensors,
    verify,
    verify_pair,
    write_sums,
)
from safetensors.torch import load_file, save_file

TENSORS = {"weight": torch.arange(6.0).view(2, 3), "count": torch.tensor(3)}


def test_flipped_bits_and_cuts_of_a_safetensors_file_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(TENSORS, path, metadata={"made_by": "test"})
    tensors, metadata = load_tensors(path)
    assert metadata == {"made_by": "test"} and all(torch.equal(tensors[n], t) for n, t in TENSORS.items())
    assert load_file(path).keys() == TENSORS.keys()  # others read it as ever
    assert not unnoticed(path, lambda: load_tensors(path))
    assert not unnoticed(path, lambda: load_tensors(path), cuts(path))
    assert verify(path)


def test_flipped_bits_of_a_pair_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(TENSORS, path, beside='{"width": 3}\n')
    assert verify_pair(path) == '{"width": 3}\n'
    other = path.with_suffix(".json")
    assert not unnoticed(other, lambda: verify_pair(path))
    other.write_text('{"width": 4}\n')
    with pytest.raises(ValueError, match=r"a\.json is damaged: .* a\.safetensors carries\. Do this"):
        verify_pair(path, remedy="Do this.")


def test_flipped_bits_of_other_files_are_noticed(tmp_path: Path) -> None:
    saved, array = tmp_path / "a.pt", tmp_path / "a.npy"
    save_object(TENSORS, saved)
    np.save(array, np.arange(5))
    append_checksum(array)
    assert torch.equal(torch.load(saved, weights_only=True)["weight"], TENSORS["weight"])
    assert np.load(array).tolist() == [0, 1, 2, 3, 4]
    for path in (saved, array):
        assert not unnoticed(path, lambda path=path: verify(path))  # type: ignore[misc]


def test_a_pair_that_is_replaced_loads_whenever_the_writer_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, replace = tmp_path / "a.safetensors", Path.replace
    for killed_at, text in ((0, "old"), (1, "new")):
        for left in tmp_path.iterdir():
            left.unlink()
        save_tensors(TENSORS, path, beside=json.dumps("old"))
        done: list[Path] = []

        def dying(self: Path, target: Path, done: list[Path] = done, killed_at: int = killed_at) -> Path:
            if len(done) == killed_at:
                raise KeyboardInterrupt
            done.append(target)
            return replace(self, target)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Path, "replace", dying)
            save_tensors({"weight": torch.zeros(1)}, path, beside=json.dumps("new"))
        assert json.loads(verify_pair(path)) == text and len(load_tensors(path)[0]) == (2 if text == "old" else 1)
    stale = path.with_suffix(".json").stat().st_mtime_ns
    save_tensors({"weight": torch.ones(1)}, path, beside=json.dumps("old"))
    assert path.with_suffix(".json").stat().st_mtime_ns == stale and verify_pair(path) == '"old"'


def test_files_without_a_checksum_load_and_those_listed_beside_are_compared(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(TENSORS, path)
    path.with_suffix(".json").write_text("{}")
    before = path.read_bytes()
    assert not verify(path) and load_tensors(path)[1] == {} and verify_pair(path) == "{}"
    assert write_sums(tmp_path) == tmp_path / SUMS and verify(path) and path.read_bytes() == before
    for part in (path, path.with_suffix(".json")):
        assert not unnoticed(part, lambda: verify_pair(path))
        assert not unnoticed(part, lambda: verify_pair(path), cuts(part))
    path.write_bytes(before[:-1])
    with pytest.raises(ValueError, match=r"a\.safetensors is damaged: .*SHA256SUMS lists\. Restore .* `git checkout"):
        load_tensors(path)
    save_tensors(TENSORS, path)  # carries its own, which counts
    assert verify(path)


def test_what_cannot_be_written_is_named_as_what_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "taken.txt").mkdir()
    for path in (tmp_path / "none" / "a.txt", tmp_path / "taken.txt"):
        with pytest.raises(OSError) as caught:
            replace_file(path, "text")
        assert caught.value.filename == str(path) and ".partial" not in str(caught.value)
