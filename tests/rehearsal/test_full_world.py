"""docs/full-world.md from its first command to its last, on a miniature of its files: `make rehearsal`.

The commands are those of the page, as printed and in order, each with the sizes and steps of `full_world.OVERLAY`
appended. Only downloads are not run: the miniature's files stand in their places. Two processes share the commands, of
which those that do not need each other run at the same time. The tests build on each other.
"""

import csv
import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from full_world import (
    OVERLAY,
    run_commands,
    write_cache,
    write_depth,
    write_downloads,
    write_released,
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
Lanes = Callable[..., None]


@pytest.fixture(scope="module")
def beside(world: Path) -> Iterator[Lanes]:
    """Run lists of commands, each list in its order by one of two processes; raises the first error."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:

        def run(*lanes: list[list[str]]) -> None:
            for done in [pool.submit(run_commands, lane) for lane in lanes]:
                done.result()

        yield run


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder of all commands, with everything that a user brings."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("GOAE_CACHE", str(folder / "cache"))
        write_downloads(folder / "downloads")
        write_cache(folder / "cache")
        # losses and metrics take the cached file, of the published width
        write_trunk(folder / "weights" / FILES["arcface"])
        yield folder


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


def test_weights(capsys: pytest.CaptureFixture[str]) -> None:
    run_commands(section(1))
    states = {line.split()[1]: line.split()[0] for line in capsys.readouterr().out.splitlines() if "; " in line}
    wanted = {name for words in section(1) for name in words if name in FILES} | {"arcface", "parser"}
    assert all(states[name] != "missing" for name in wanted)


def test_data(world: Path) -> None:
    run_commands(section(2))
    sizes = {"ffhq/val": 2, "celebahq/test": 3, "mead/test": 5}
    for name, size in sizes.items():
        assert len(PosedImages(world / "data" / f"{name}.zip", radius=2.7)) == size
    assert_no_copies(world, "ffhq/train", "ffhq/val")
    for name in ("celebahq", "mead"):
        assert_no_copies(world, f"{name}/test")
        write_depth(world / "data" / name / "test.zip", world / "data" / name / "depth")


def test_canonical_statistics_the_plan_and_cats(world: Path, beside: Lanes) -> None:
    plan, _ = section(4)
    beside([*section(3), plan], section(10))
    assert (cache() / "ffhqrebalanced512-128-canonical.safetensors").is_file()
    assert_no_copies(world, "afhq_cat/train", "afhq_cat/val", "afhq_cat/test")
    assert (world / "runs" / "afhq_cat-seed0" / "refiner.safetensors").is_file()
    assert (world / "runs" / "figures" / "figure-16.png").is_file()


def test_missing_weights_stop_with_the_command(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the plan nor training itself begins with random weights in the place of published ones."""
    swin = cache() / FILES["swin"]
    swin.rename(world / "swin")
    for words in section(4):
        assert run_script("train", *words[2:], *OVERLAY["train"]) == 1
        assert "fetch_weights.py swin" in "".join(capsys.readouterr())
    (world / "swin").rename(swin)
    assert not any(world.glob("runs/ffhq*/checkpoints"))


def test_training_goes_on_after_a_kill(world: Path, beside: Lanes) -> None:
    """The uninterrupted run is a second one of another name."""
    _, words = section(4)
    process = subprocess.Popen([sys.executable, SCRIPTS / "train.py", *words[2:], *OVERLAY["train"]])
    run, end = world / "runs" / "ffhq-seed0", time.monotonic() + 240
    while not any(run.glob("checkpoints/encoder/step-*.pt")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert any(run.glob("checkpoints/encoder/step-*.pt")) and not (run / "encoder.safetensors").exists()
    beside([words], [[*words, "run=uninterrupted"]])
    terms = {
        "encoder": "d/real d/fake r1/r1 e/l2 e/lpips e/id e/adv e/bg",
        "refiner": "afa/l2 afa/lpips afa/id afa/bg",
    }
    for stage, names in terms.items():
        ours, theirs = (
            load_file(world / "runs" / name / f"{stage}.safetensors") for name in (run.name, "uninterrupted")
        )
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
        rows = read_metrics(run, stage)
        logged = {name: value for row in rows for name, value in row.items()}
        assert all(math.isfinite(logged[name]) for name in names.split())
        share = "e/bg_share" if stage == "encoder" else "afa/bg_share"
        assert max(row.get(share, 0) for row in rows) > 0  # the mask is not empty


def test_rivals_the_protocols_and_ablations(world: Path, beside: Lanes) -> None:
    beside(section(5) + section(7), section(6))
    for name in ("ffhq-psp-seed0/encoder", "ffhq-e4e-seed0/encoder", "ffhq-ide3d-seed0/encoder", "camera-seed0/camera"):
        assert (world / "runs" / f"{name}.safetensors").is_file()
    assert len(list(world.glob("runs/ffhq-table2-*/encoder.safetensors"))) == 4
    assert len(list(world.glob("runs/ffhq-table3-*/refiner.safetensors"))) == 2
    for protocol, shown in (("input_view", 2), ("novel_view", 8)):
        with (world / "runs" / "ffhq-seed0" / protocol / "full.csv").open() as file:
            assert len(list(csv.DictReader(file))) == shown


def test_tables_and_figures(world: Path, beside: Lanes) -> None:
    """Every column of every table gets a number. Tables 2 and 3 share runs, so they are made one after the other."""
    first, second, third, claims = section(8)
    beside([first], [second, third, *section(9)])
    run_commands([claims])
    results = world / "docs" / "results" / "full"
    for number in TABLES:
        whole = json.loads((results / f"table{number}.json").read_text())
        assert [row["method"] for row in whole["rows"]] == list(SOURCES[number])
        for row in (*whole["rows"], *whole["subset_rows"]):
            assert all(math.isfinite(cell["ours"]) for cell in row["values"].values()), row["method"]
    assert "not testable" not in (results / "claims.md").read_text().partition("## R73")[2].partition("## R74")[0]
    wanted = {words[2] for number in (9, 10) for words in section(number) if words[1] == "scripts/figures.py"}
    drawn = {f"figure={path.stem.removeprefix('figure-')}" for path in world.glob("runs/figures/*.png")}
    assert drawn == wanted


def test_the_authors_weights(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At their published sizes, since files in the released layout say no other; fewer samples per ray."""
    (world / "released" / "weights").mkdir(parents=True)
    monkeypatch.chdir(world / "released")
    write_released(Path("weights"))
    write_crops(Path("downloads/photos"), ["me.png"], side=512)
    run_commands(section(11))
    with Image.open("inversions/me/reconstruction.png") as image:
        assert image.size == (512, 512)


def test_the_page_has_no_other_commands() -> None:
    assert [heading.partition(".")[0] for heading in PAGE] == [str(number) for number in range(1, 12)]
