"""docs/full-world.md from its first command to its last, on a miniature of its files: `make rehearsal`.

The commands are those of the page, as printed and in order, each with the sizes and steps of `full_world.OVERLAY`
appended. Only downloads are not run: the miniature's files stand in their places. The tests build on each other.
"""

import csv
import json
import math
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from full_world import (
    OVERLAY,
    write_cache,
    write_depth,
    write_downloads,
    write_released,
    write_scores,
    write_trunk,
)
from pages import commands
from PIL import Image
from safetensors.torch import load_file
from standins import write_crops

from goae.data.datasets import PosedImages
from goae.evaluation.paper_tables import TABLES
from goae.evaluation.tables import SOURCES
from goae.training.tracking import read_metrics
from goae.weights import FILES, cache
from scripts import SCRIPTS, run_script

pytestmark = pytest.mark.rehearsal
PAGE = commands("full-world.md")
ATTRIBUTES = ("glasses", "smile", "age")


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder of all commands, with everything that a user brings."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("GOAE_CACHE", str(folder / "cache"))
        write_downloads(folder / "downloads")
        write_cache(folder / "cache")
        write_trunk(
            folder / "weights" / FILES["arcface"]
        )  # of the rivals' width; losses and metrics take the cached one
        yield folder


def call(words: list[str], *more: str) -> None:
    """Run a command of the page with its part of the overlay."""
    python, path, *arguments = words
    name = Path(path).stem
    assert (python, path) == ("python", f"scripts/{name}.py")
    if name == "fetch_weights" and "--list" not in arguments:
        names = [argument for argument in arguments if not argument.startswith("--")]
        assert names and all((cache() / FILES[asset]).is_file() for asset in names)
        return
    began = time.monotonic()
    code = run_script(name, *arguments, *OVERLAY.get(name, []), *more)
    print(f"{time.monotonic() - began:6.1f} s  {shlex.join(words)}")
    assert code == 0, shlex.join(words)


def assert_no_copies(world: Path, *sets: str) -> None:
    """No two of these sets show one image, mirrored or not; those that are not trained on show none twice."""
    seen: set[bytes] = set()
    for name in sets:
        images, own = PosedImages(world / "data" / f"{name}.zip"), set[bytes]()
        for pixels in (images[i]["image"] for i in range(len(images))):
            keys = {pixels.numpy().tobytes(), pixels.flip(-1).numpy().tobytes()}
            assert not keys & seen and (name.endswith("train") or not keys & own)
            own |= keys
        seen |= own


def section(number: int) -> list[list[str]]:
    """The commands of a section of the page."""
    return next(found for heading, found in PAGE.items() if heading.startswith(f"{number}. "))


def test_1_weights(capsys: pytest.CaptureFixture[str]) -> None:
    for words in section(1):
        call(words)
    states = {line.split()[1]: line.split()[0] for line in capsys.readouterr().out.splitlines() if "; " in line}
    wanted = {name for words in section(1) for name in words if name in FILES} | {"arcface", "parser"}
    assert all(states[name] != "missing" for name in wanted)


def test_2_data(world: Path) -> None:
    for words in section(2):
        call(words)
    sizes = {"ffhq/val": 2, "celebahq/test": 3, "mead/test": 5}
    for name, size in sizes.items():
        assert len(PosedImages(world / "data" / f"{name}.zip", radius=2.7)) == size
    assert_no_copies(world, "ffhq/train", "ffhq/val")
    for name in ("celebahq", "mead"):
        assert_no_copies(world, f"{name}/test")
        write_depth(world / "data" / name / "test.zip", world / "data" / name / "depth")


def test_3_canonical_statistics() -> None:
    for words in section(3):
        call(words)
    assert (cache() / "ffhqrebalanced512-128-canonical.safetensors").is_file()


def test_4_missing_weights_stop_with_the_command(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the plan nor training itself begins with random weights in the place of published ones."""
    plan, train = section(4)
    swin = cache() / FILES["swin"]
    swin.rename(world / "swin")
    for words in (plan, train):
        assert run_script("train", *words[2:], *OVERLAY["train"]) == 1
        assert "fetch_weights.py swin" in "".join(capsys.readouterr())
    (world / "swin").rename(swin)
    assert not any(world.glob("runs/*/checkpoints"))
    call(plan)


def test_4_training_goes_on_after_a_kill(world: Path) -> None:
    """The uninterrupted run is a second one of another name."""
    _, words = section(4)
    process = subprocess.Popen([sys.executable, SCRIPTS / "train.py", *words[2:], *OVERLAY["train"]])
    run, end = world / "runs" / "ffhq-seed0", time.monotonic() + 240
    while not any(run.glob("checkpoints/encoder/step-*.pt")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert any(run.glob("checkpoints/encoder/step-*.pt")) and not (run / "encoder.safetensors").exists()
    call(words)
    call(words, "run=uninterrupted")
    for stage in ("encoder", "refiner"):
        ours, theirs = (
            load_file(world / "runs" / name / f"{stage}.safetensors") for name in (run.name, "uninterrupted")
        )
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
        logged = {name: value for row in read_metrics(run, stage) for name, value in row.items()}
        terms = {
            "encoder": "d/real d/fake r1/r1 e/l2 e/lpips e/id e/adv e/bg",
            "refiner": "afa/l2 afa/lpips afa/id afa/bg",
        }
        assert all(math.isfinite(logged[name]) for name in terms[stage].split())
        share = "e/bg_share" if stage == "encoder" else "afa/bg_share"
        assert max(row.get(share, 0) for row in read_metrics(run, stage)) > 0  # the mask is not empty


def test_5_rivals(world: Path) -> None:
    for words in section(5):
        call(words)
    for name in ("ffhq-psp-seed0/encoder", "ffhq-e4e-seed0/encoder", "ffhq-ide3d-seed0/encoder", "camera-seed0/camera"):
        assert (world / "runs" / f"{name}.safetensors").is_file()


def test_6_ablations(world: Path) -> None:
    for words in section(6):
        call(words)
    assert len(list(world.glob("runs/ffhq-table2-*/encoder.safetensors"))) == 4
    assert len(list(world.glob("runs/ffhq-table3-*/refiner.safetensors"))) == 2


def test_7_the_two_protocols(world: Path) -> None:
    for words in section(7):
        call(words)
    for protocol, shown in (("input_view", 2), ("novel_view", 8)):
        with (world / "runs" / "ffhq-seed0" / protocol / "full.csv").open() as file:
            assert len(list(csv.DictReader(file))) == shown


def test_8_every_column_of_every_table_gets_a_number(world: Path) -> None:
    for words in section(8):
        call(words)
    for number in TABLES:
        whole = json.loads((world / "docs" / "results" / "full" / f"table{number}.json").read_text())
        assert [row["method"] for row in whole["rows"]] == list(SOURCES[number])
        for row in (*whole["rows"], *whole["subset_rows"]):
            empty = [column for column, cell in row["values"].items() if not math.isfinite(cell["ours"] or math.nan)]
            assert not empty, (number, row["method"])
    claims = (world / "docs" / "results" / "full" / "claims.md").read_text()
    assert "not testable" not in claims.partition("## R73")[2].partition("## R74")[0]


def test_9_figures(world: Path) -> None:
    for words in section(9):
        if any(word.startswith("scores=") for word in words):
            write_scores(world / "heads", world / "scores.csv", ATTRIBUTES)
        call(words)
    drawn = {words[2] for words in section(9) if words[1] == "scripts/figures.py"}
    assert {f"figure={path.stem.removeprefix('figure-')}" for path in world.glob("runs/figures/*.png")} == drawn


def test_10_cats(world: Path) -> None:
    for words in section(10):
        call(words)
    assert_no_copies(world, "afhq_cat/train", "afhq_cat/val", "afhq_cat/test")
    assert (world / "runs" / "afhq_cat-seed0" / "refiner.safetensors").is_file()
    assert (world / "runs" / "figures" / "figure-16.png").is_file()


def test_11_the_authors_weights(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At their published sizes, since files in the released layout say no other; fewer samples per ray."""
    (world / "released" / "weights").mkdir(parents=True)
    monkeypatch.chdir(world / "released")
    write_released(Path("weights"))
    write_crops(Path("downloads/photos"), ["me.png"], side=512)
    for words in section(11):
        call(words)
    with Image.open("inversions/me/reconstruction.png") as image:
        assert image.size == (512, 512)


def test_the_page_has_no_other_commands() -> None:
    assert [heading.partition(".")[0] for heading in PAGE] == [str(number) for number in range(1, 12)]
