"""Both protocols on tiny networks: every column, killed and resumed, one process and two, and what they refuse."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from composing import composed_as
from protocols import tiny_protocol
from torch import Tensor

from goae import build
from goae.config import ProtocolConfig
from goae.evaluation.image_metrics import psnr, ssim
from goae.evaluation.runner import Method
from goae.loading import load_inverter, save_encoder
from goae.models.goae import View
from goae.runs.protocol import run_protocol
from goae.runs.protocol_inputs import open_tasks
from scripts import run_script

ROOT = Path(__file__).parents[3]
NUMBERS = {"mse", "psnr", "ssim", "ms_ssim", "lpips", "id", "geo", "depth"}


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> list[str]:
    """Weights of a tiny GOAE, a random perceptual trunk, and data of 32²: a person with five faces from five views."""
    return tiny_protocol(tmp_path_factory.mktemp("protocol"), tiny_data)


def configured(script: str, output: Path, overrides: list[str], *more: str) -> ProtocolConfig:
    return composed_as(ProtocolConfig, *overrides, f"output={output}", *more, name=script)


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def input_view(tmp_path_factory: pytest.TempPathFactory, overrides: list[str]) -> Path:
    return run_protocol(configured("eval_celebahq", tmp_path_factory.mktemp("input"), overrides)).parent


def test_the_input_view_writes_every_column(input_view: Path, overrides: list[str], tiny_data: Path) -> None:
    summary = json.loads((input_view / "summary.json").read_text())
    assert set(summary["methods"]) == {"w_avg", "w_plus", "full"}
    for name, found in summary["methods"].items():
        rows = table(input_view / f"{name}.csv")
        assert len(rows) == 12  # the last batch of two is kept
        assert not any(row["failed"] for row in rows)
        assert set(found["groups"]["input"]["metrics"]) == NUMBERS
        assert set(found["table"]) == {"psnr", "ssim", "mse", "lpips", "fid", "id", "geo", "time"}
        for metric, entry in found["groups"]["input"]["metrics"].items():
            assert entry["mean"] == pytest.approx(sum(float(row[metric]) for row in rows) / 12)
            assert entry["interval"][0] <= entry["mean"] <= entry["interval"][1]
        sets = found["groups"]["input"]["sets"]
        assert (sets["num_real"], sets["num_shown"], sets["num_features"]) == (12, 12, 64)
        assert "12 images span at most 11 of 64" in sets["note"]
    parts = {f"time_{part}" for part in ("encode", "refine", "mix", "render")}
    assert parts <= set(summary["methods"]["full"]["seconds"])
    difference = summary["differences"]["full - w_plus"]["input"]["mse"]
    means = [summary["methods"][n]["table"]["mse"] for n in ("full", "w_plus")]
    assert difference["mean"] == pytest.approx(means[0] - means[1])


def test_the_numbers_are_those_of_the_reconstruction(input_view: Path, overrides: list[str]) -> None:
    """A row by hand: invert, reconstruct, compare in [-1, 1]."""
    config = configured("eval_celebahq", input_view, overrides)
    images, _ = open_tasks(config)
    inverter = load_inverter(generator=config.generator_path, encoder=config.encoder_path, refiner=config.refiner_path)
    sample = images[3]
    shown = inverter.reconstruct(inverter.invert(sample["image"][None], sample["c"])).image.clamp(-1, 1)
    row = table(input_view / "full.csv")[3]
    assert row["target"] == row["source"] == sample["name"]
    mse = float((shown[0] - sample["image"]).square().mean())
    assert float(row["mse"]) == pytest.approx(mse, rel=1e-4)
    assert float(row["psnr"]) == pytest.approx(float(psnr(shown, sample["image"][None])), rel=1e-5)
    assert float(row["ssim"]) == pytest.approx(float(ssim(shown, sample["image"][None])), abs=1e-5)


def test_both_protocols_record_what_they_measured(tmp_path: Path, input_view: Path, overrides: list[str]) -> None:
    """The input view from rows that are there; novel views of six inputs; an independent network that is not random."""
    path = tmp_path / "metrics.json"
    path.write_text('{"prior": {"fd": 2.0}}')
    run_protocol(configured("eval_celebahq", input_view, overrides, f"records={path}"))
    more = [f"records={path}", "num_inputs=6", "methods=[w_avg,w_plus]", "metrics.identity_independent=mini"]
    novel = run_protocol(configured("eval_mead", tmp_path / "novel", overrides, *more)).parent
    found = json.loads(path.read_text())
    assert found["prior"] == {"fd": 2.0}
    assert set(found["goae"]["test"]) == {"wplus", "full"} and set(found["goae"]["multiview"]) == {"wplus"}
    names = {"psnr": "psnr", "mse": "mse", "lpips": "lpips", "id": "identity", "depth": "depth_error"}
    summary = json.loads((input_view / "summary.json").read_text())["methods"]["full"]["groups"]["input"]["metrics"]
    full = found["goae"]["test"]["full"]
    for column, name in names.items():
        assert full[name] == summary[column]["mean"] and full[f"{name}_interval"] == summary[column]["interval"]
    assert "identity_independent" not in full and (full["num_inputs"], full["num_shown"]) == (12, 12)
    assert full["made_from"] == json.loads((input_view / "full.settings.json").read_text())
    wplus, rows = found["goae"]["multiview"]["wplus"], table(novel / "w_plus.csv")
    for column, name in (names | {"id_independent": "identity_independent"}).items():
        assert wplus[name] == pytest.approx(sum(float(row[column]) for row in rows) / 24)
        parts = 16 * wplus["yaw_60"][name] + 8 * wplus["yaw_0"][name]
        assert wplus[name] == pytest.approx(parts / 24)
    assert wplus["made_from"]["metrics"]["identity_independent"] == "mini"


def test_records_want_a_method_that_is_recorded(tmp_path: Path, overrides: list[str]) -> None:
    with pytest.raises(ValueError, match="methods has none of w_plus, full"):
        configured("eval_celebahq", tmp_path, overrides, "methods=[w_avg]", "records=metrics.json")


class Counted:
    """A method that counts what it inverts and stops, as a kill would, after some images."""

    def __init__(self, method: Method[Any], stop: int | None) -> None:
        self.method, self.stop, self.inverted = method, stop, 0

    def invert(self, image: Tensor, c: Tensor) -> Any:
        if self.stop is not None and self.inverted >= self.stop:
            raise KeyboardInterrupt
        self.inverted += len(image)
        return self.method.invert(image, c)

    def render(self, inversion: Any, c: Tensor) -> View:
        return self.method.render(inversion, c)  # type: ignore[return-value]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """METHODS has w_plus alone, through `Counted`; set `stop` and read `inverted`."""
    state: dict[str, Any] = {"stop": None, "made": []}

    def make(given: build.Given) -> build.Tested:
        found = build.methods._w_plus(given)
        state["made"].append(Counted(found.method, state["stop"]))
        return build.Tested(state["made"][-1], found.settings)

    monkeypatch.setattr(build.methods, "METHODS", {"w_plus": make})
    yield state


def test_a_killed_run_goes_on_where_it_was(
    tmp_path: Path, input_view: Path, overrides: list[str], counted: dict[str, Any]
) -> None:
    config = configured("eval_celebahq", tmp_path, overrides, "methods=[w_plus]", "timing_images=0")
    counted["stop"] = 5
    with pytest.raises(KeyboardInterrupt):
        run_protocol(config)
    part = tmp_path / "w_plus.part0.csv"
    assert len(part.read_text().splitlines()) == 6  # on disk as soon as the batch was done
    part.write_text(part.read_text() + "5,0,half a li")  # and torn within the next
    counted["stop"] = None
    run_protocol(config)
    assert counted["made"][1].inverted == 7
    assert (tmp_path / "w_plus.csv").read_bytes() == (input_view / "w_plus.csv").read_bytes()
    assert (tmp_path / "w_plus.features").read_bytes() == (input_view / "w_plus.features").read_bytes()
    run_protocol(config)
    assert counted["made"][2].inverted == 0


def test_other_settings_do_not_mix(input_view: Path, overrides: list[str]) -> None:
    with pytest.raises(ValueError, match=r"w_avg.csv was made with other settings \(batch_size: 5 there, 4 now\)"):
        run_protocol(configured("eval_celebahq", input_view, overrides, "batch_size=4"))


def test_other_weights_do_not_mix(tmp_path: Path, input_view: Path, overrides: list[str]) -> None:
    config = configured("eval_celebahq", input_view, overrides)
    goae = load_inverter(generator=config.generator_path, encoder=config.encoder_path, refiner=config.refiner_path).goae
    with torch.no_grad():
        next(goae.encoder.parameters()).add_(1e-3)
    save_encoder(goae.encoder, tmp_path / "encoder.safetensors")
    changed = f"encoder_path={tmp_path / 'encoder.safetensors'}"
    with pytest.raises(ValueError, match=r"w_plus\.csv was made with other settings \(encoder: "):
        run_protocol(configured("eval_celebahq", input_view, [*overrides, changed]))


def test_one_process_and_two_give_the_same_files(tmp_path: Path, overrides: list[str]) -> None:
    """The novel-view protocol, by its script."""
    folders = [tmp_path / str(num) for num in (1, 2)]
    given = [
        [*overrides, f"output={folder}", f"num_devices={num}", "num_inputs=6", "methods=[full]"]
        for num, folder in enumerate(folders, start=1)
    ]
    assert run_script("eval_mead", *given[0]) == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launch, str(ROOT / "scripts/eval_mead.py"), *given[1]]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    one, two = (
        {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.endswith(".cost.json")} for folder in folders
    )
    assert one == two
    assert set(one) == {"summary.json", "full.sets.json"} | {
        f"{name}.{end}" for name in ("images", "full") for end in ("csv", "features", "settings.json")
    }

    rows = table(folders[0] / "full.csv")
    assert len(rows) == 6 * 4 and {row["yaw"] for row in rows} == {"-60", "0", "60"}
    found = json.loads(one["summary.json"])["methods"]["full"]
    assert {group: entry["num_rows"] for group, entry in found["groups"].items()} == {"60": 16, "0": 8}
    assert set(found["table"]) == {
        f"{name}{group}" for name in ("psnr", "ssim", "mse", "lpips", "fid", "id", "geo") for group in ("60", "0")
    }


def test_what_could_not_be_measured_is_counted(tmp_path: Path, overrides: list[str]) -> None:
    """A folder of pseudo-depth that lacks maps, as a detector that found no face leaves it."""
    config = configured("eval_celebahq", tmp_path / "out", overrides)
    images, _ = open_tasks(config)
    for i in range(9):
        path = tmp_path / "depth" / Path(images.names[i]).with_suffix(".npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, depth=images[i]["depth"][0].numpy())
    more = [f"pseudo_depth.input_view={tmp_path / 'depth'}", "metrics.geometry=folder", "methods=[w_avg]"]
    summary = json.loads(run_protocol(configured("eval_celebahq", tmp_path / "out", overrides, *more)).read_text())
    entry = summary["methods"]["w_avg"]["groups"]["input"]["metrics"]["geo"]
    assert (entry["num"], entry["failed"]) == (9, 3)
    rows = table(tmp_path / "out" / "w_avg.csv")
    assert [row["failed"] for row in rows] == [""] * 9 + ["geo"] * 3 and len(rows) == 12


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("methods=[full,hfgi]", "methods has 'hfgi'; expected some of w_avg, w_plus, full, no_mix, psp"),
        ("methods=[e4e]", "methods has e4e, but rivals.e4e is empty"),
        ("methods=[pose_opt] baselines.regressor=absent/camera.safetensors", "absent/camera.safetensors"),
        ("metrics.geometry=folder", "pseudo_depth names none"),
        ("metrics.geometry=stereo", "expected true, folder, mini or none"),
        ("metrics.features=vgg11", "distribution.features is 'vgg11'"),
    ],
)
def test_wrong_choices_are_named(override: str, named: str, tmp_path: Path, overrides: list[str]) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=named):
        run_protocol(configured("eval_celebahq", tmp_path, overrides, *override.split()))


def test_single_views_are_no_data_for_novel_views(tmp_path: Path, overrides: list[str]) -> None:
    config = configured("eval_mead", tmp_path, overrides)
    config.images.novel_view = config.images.input_view
    with pytest.raises(ValueError, match=r"person \d+, frame -1 has views \[-1\]; expected 0 to 4"):
        open_tasks(config)
