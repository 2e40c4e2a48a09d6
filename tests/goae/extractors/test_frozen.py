"""Reading weights of files without running them, and loading them strictly."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from goae.extractors.frozen import Frozen
from goae.states import load_strictly
from goae.weights import read_state


class _Net(Frozen):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        self.freeze()


def test_wrapped_and_prefixed_states_are_unwrapped(tmp_path: Path) -> None:
    state = nn.Linear(2, 3).state_dict()
    torch.save({"state_dict": {f"module.{n}": t for n, t in state.items()}}, tmp_path / "a.pt")
    save_file(state, tmp_path / "b.safetensors")
    for name in ("a.pt", "b.safetensors"):
        read = read_state(tmp_path / name)
        assert read.keys() == state.keys() and all(torch.equal(read[n], state[n]) for n in state)


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ["GOAE_TEST_EVIL"],)


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOAE_TEST_EVIL", str(tmp_path / "made"))
    torch.save({"a": _Evil()}, tmp_path / "evil.pt")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(_Evil()))
    for name in ("evil.pt", "evil.pkl"):
        with pytest.raises(ValueError, match=name):
            read_state(tmp_path / name)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nonsense", b"\x80\x02"])
def test_damaged_files_are_refused(content: bytes, tmp_path: Path) -> None:
    for name in ("x.pth", "x.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            read_state(tmp_path / name)


def test_what_is_no_dictionary_of_tensors_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"list\.pt holds no state dict but a list; expected a dict of tensors"):
        read_state(tmp_path / "list.pt")


def test_differences_are_listed() -> None:
    net = _Net()
    state = dict(net.state_dict())
    state["extra"] = state.pop("net.0.bias")
    state["net.0.weight"] = torch.zeros(2, 3)
    told = r"missing: net\.0\.bias; unexpected: extra; of another shape: net\.0\.weight \(2, 3\)"
    with pytest.raises(ValueError, match=told):
        load_strictly(net, state, "somewhere.pt")


def test_a_frozen_network_stays_in_evaluation_mode() -> None:
    net = nn.Sequential(_Net()).train()
    assert not any(m.training for m in net[0].modules())
    assert not any(p.requires_grad for p in net.parameters())
