"""The converter: what it prints and writes, and that it fails with one paragraph and leaves things as they were."""

import io
import subprocess
import sys
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from eg3d.cameras import canonical_label
from eg3d.checkpoint import generator_hash, load
from pickling import Call, Name, dumps, snapshot
from tiny import tiny_generator

from scripts import run_script

SCRIPT = Path(__file__).parents[2] / "scripts/convert_checkpoint.py"


def convert(*arguments: str | Path) -> str:
    """Run the script in this process; returns what it says if it fails, "" for success."""
    told = io.StringIO()
    with redirect_stderr(told):
        code = run_script("convert_checkpoint", *arguments)
    return told.getvalue().rstrip("\n") if code else ""


@pytest.fixture(scope="module")
def pickled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / "network.pkl"
    path.write_bytes(dumps(snapshot(tiny_generator(), marker=path.with_name("marker")), numpy_names="old"))
    return path


def test_round_trip(pickled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new/own.safetensors"
    assert convert(pickled, output) == ""
    printed = capsys.readouterr().out
    for line in ("TriPlaneGenerator", "G, D, G_ema", "xy,xz,zy", "old", "z_dim: 16", "box_warp: 1.0", "mapping_kwargs"):
        assert line in printed
    generator = tiny_generator().eval()
    state = generator.state_dict()
    assert f"tensors:          {len(state)} with {sum(t.numel() for t in state.values()):,} elements" in printed
    assert f"hash:             {generator_hash(generator)}" in printed
    z, c = torch.linspace(-1, 1, 16)[None], canonical_label()
    with torch.no_grad():
        images = [g.synthesis(g.mapping(z, c), c).image for g in (generator, load(pickled), load(output))]
    assert torch.equal(images[0], images[1]) and torch.equal(images[1], images[2])
    assert not pickled.with_name("marker").exists()


def test_replaces_only_when_forced(pickled: Path, tmp_path: Path) -> None:
    output = tmp_path / "own.safetensors"
    output.with_suffix(".json").write_text("mine")
    assert "--force" in convert(pickled, output) and not output.exists()
    assert output.with_suffix(".json").read_text() == "mine"
    assert convert(pickled, output, "--force", "--half") == ""
    half = {name: tensor.half().float() for name, tensor in tiny_generator().state_dict().items()}
    assert all(torch.equal(tensor, half[name]) for name, tensor in load(output).state_dict().items())


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("missing", "no such file"),
        ("zip", "zip archive"),
        ("ending", "ends in .safetensors"),
        ("folder", "File exists"),
    ],
)
def test_errors_are_one_paragraph(pickled: Path, tmp_path: Path, kind: str, expected: str) -> None:
    path, output = tmp_path / "network.pkl", tmp_path / "own.safetensors"
    if kind == "zip":
        torch.save({}, path)
    if kind == "ending":
        path, output = pickled, tmp_path / "own.pt"
    if kind == "folder":
        path, output = pickled, pickled / "own.safetensors"
    message = convert(path, output)
    assert message.startswith("error: ") and expected in message and "\n" not in message
    assert not output.exists()


def test_hostile_file_ends_the_process_with_an_error(tmp_path: Path) -> None:
    path, marker, output = tmp_path / "network.pkl", tmp_path / "marker", tmp_path / "own.safetensors"
    path.write_bytes(dumps(Call(Name("os", "system"), (f"touch {marker}",))))
    command = [sys.executable, str(SCRIPT), str(path), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "`os.system`" in done.stderr and done.stderr.count("\n") == 1
    assert not marker.exists() and list(tmp_path.iterdir()) == [path]


def test_samples_change_the_stored_configuration_alone(pickled: Path, tmp_path: Path) -> None:
    output = tmp_path / "own.safetensors"
    assert convert(pickled, output, "--samples", "7") == ""
    before, after = load(pickled), load(output)
    rendering = replace(before.config.rendering, depth_resolution=7, depth_resolution_importance=7)
    assert after.config == replace(before.config, rendering=rendering)
    assert generator_hash(after) == generator_hash(before)
