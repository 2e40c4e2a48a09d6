"""Every method under test by its name, and methods that optimise on a subset of the inputs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from composing import composed_as
from protocols import tiny_protocol, tiny_rivals
from tiny import tiny_images, tiny_labels

from goae import build
from goae.baselines.pti import PTI
from goae.build.methods import METHODS
from goae.config import ProtocolConfig, TrainConfig, claim_run
from goae.evaluation.protocols import Task, draw_subset
from goae.runs.protocol import run_protocol
from goae.runs.protocol_inputs import given_of, weight_files
from goae.runs.times import time_together

OPTIMISING = {"w", "w_plus_opt", "pti", "pose_opt"}


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> list[str]:
    folder = tmp_path_factory.mktemp("registry")
    return [*tiny_protocol(folder, tiny_data), *tiny_rivals(folder), "output=unused"]


@pytest.fixture(scope="module")
def given(overrides: list[str]) -> build.Given:
    config = composed_as(ProtocolConfig, *overrides, "methods=[psp,e4e,ide3d]", name="eval_celebahq")
    return given_of(config, torch.device("cpu"))


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_inverts_renders_and_names_its_weights(name: str, given: build.Given) -> None:
    tested = build.build_method(name, given)
    with torch.no_grad():
        view = tested.method.render(tested.method.invert(tiny_images(1), tiny_labels(1)), tiny_labels(1))
    assert view.image.shape == (1, 3, 32, 32) and bool(torch.isfinite(view.image).all())
    assert tested.settings["generator"] == given.generator_hash
    assert tested.optimises == (name in OPTIMISING)
    encoders = {"w_plus", "full", "no_mix", "psp", "e4e", "ide3d", "pose_opt"}
    assert ("encoder" in tested.settings) == (name in encoders)
    assert ("parts_sha256" in tested.settings) == (name == "ide3d")
    if tested.iterations is not None:
        assert set(tested.iterations.values()) == {1}
        assert json.dumps(tested.settings["optimisation"]).count('"steps": 1') == len(tested.iterations)


def test_the_mix_is_what_no_mix_lacks(given: build.Given) -> None:
    full, without = (build.build_method(name, given) for name in ("full", "no_mix"))
    assert full.settings["goae"]["mix"]["planes"] == "xyz" and without.settings["goae"]["mix"]["planes"] == "none"
    assert {k: v for k, v in full.settings.items() if k != "goae"} == {
        k: v for k, v in without.settings.items() if k != "goae"
    }


def test_a_rivals_file_is_that_rivals(given: build.Given) -> None:
    files = given.weights.rivals or {}
    weights = build.Weights(given.weights.generator, rivals={"psp": files["e4e"]})
    swapped = build.Given(weights, given.baselines, lpips="alex", lpips_path="", device=given.device)
    with pytest.raises(ValueError, match="holds a E4EEncoder; expected a PSPEncoder"):
        build.build_method("psp", swapped)
    with pytest.raises(ValueError, match="full and no_mix need GOAE's"):
        build.build_method("full", swapped)


def test_an_encoder_alone_is_the_same_without_its_second_stage(given: build.Given) -> None:
    weights = replace(given.weights, refiner="")
    alone = build.Given(weights, given.baselines, lpips="alex", lpips_path="", device=given.device)
    first, second = (build.build_method("w_plus", g) for g in (given, alone))
    assert first.settings == second.settings
    views = [m.method.render(m.method.invert(tiny_images(1), tiny_labels(1)), tiny_labels(1)) for m in (first, second)]
    assert torch.equal(views[0].image, views[1].image)


def test_a_rivals_run_is_of_that_method_and_generator(tmp_path: Path, overrides: list[str]) -> None:
    config = composed_as(ProtocolConfig, *overrides, "methods=[psp]", name="eval_celebahq")
    generator = tmp_path / "generator.safetensors"
    for method in ("psp", "e4e"):
        run = ["experiment=tiny", f"method={method}", f"paths.runs={tmp_path}", f"paths.generator={generator}"]
        claim_run(composed_as(TrainConfig, *run))
    config.rivals.psp = str(tmp_path / "tiny-e4e-seed0")
    with pytest.raises(ValueError, match=r"rivals\.psp is .*, which is a run of method=e4e"):
        weight_files(config)
    config.rivals.psp = str(tmp_path / "tiny-psp-seed0")
    generator.write_bytes(b"another")
    with pytest.raises(ValueError, match="codes mean nothing to another generator"):
        weight_files(config)
    generator.write_bytes(Path(config.generator_path).read_bytes())
    with pytest.raises(FileNotFoundError, match="stage `encoder` of this run has not finished"):
        weight_files(config)
    encoder = tmp_path / "tiny-psp-seed0" / "encoder.safetensors"
    encoder.write_bytes(b"weights")
    assert weight_files(config).rivals == {"psp": str(encoder)}


def test_a_subset_is_drawn_over_persons_first() -> None:
    tasks = [Task(i, (i,), person=i // 4, group="60" if i % 2 else "0") for i in range(24)]
    drawn = draw_subset(tasks, {"60": 6, "0": 3}, seed=0)
    assert drawn == sorted(drawn) == draw_subset(tasks, {"60": 6, "0": 3}, seed=0)
    side = [tasks[i].person for i in drawn if tasks[i].group == "60"]
    assert sorted(side) == [0, 1, 2, 3, 4, 5]  # each of the six once, before anyone's second
    assert len({tasks[i].person for i in drawn if tasks[i].group == "0"}) == 3
    assert draw_subset(tasks, {"60": 6, "0": 3}, seed=1) != drawn
    assert draw_subset(tasks, {"60": 0, "0": 0}, seed=0) == list(range(24))


def test_others_are_also_reported_on_the_subset(
    tmp_path: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = [f"output={tmp_path}", "methods=[w_plus,psp,pti]", "subset.input_view=3", "subset.timing_images=1"]
    config = composed_as(ProtocolConfig, *overrides, *more, "timing_images=1", name="eval_celebahq")
    summary = json.loads(run_protocol(config).read_text())
    counts = {name: found["groups"]["input"]["num_inputs"] for name, found in summary["methods"].items()}
    assert counts == {"w_plus": 12, "psp": 12, "pti": 3}
    paired = {n: found["groups"]["input"]["metrics"]["mse"] for n, found in summary["subset"]["methods"].items()}
    assert {entry["num"] for entry in paired.values()} == {3}
    difference = summary["differences"]["pti - psp"]["input"]["mse"]
    assert difference["num"] == 3 and summary["differences"]["psp - w_plus"]["input"]["mse"]["num"] == 12
    assert difference["mean"] == pytest.approx(paired["pti"]["mean"] - paired["psp"]["mean"])
    times = json.loads((tmp_path / "pti.time.json").read_text())
    assert times["iterations_at_most"] == {"code": 1, "generator": 1} and times["timing_images"] == 1

    def refuse(*args: object) -> None:
        raise AssertionError("all rows are there")

    monkeypatch.setattr(PTI, "invert", refuse)
    before = (tmp_path / "pti.csv").read_bytes()
    assert json.loads(run_protocol(config).read_text()) == summary
    assert (tmp_path / "pti.csv").read_bytes() == before
    changed = composed_as(
        ProtocolConfig, *overrides, *more, "baselines.pti.tuning.steps=2", "timing_images=1", name="eval_celebahq"
    )
    with pytest.raises(ValueError, match=r"pti\.csv was made with other settings \(optimisation: "):
        run_protocol(changed)


def test_times_of_a_table_come_from_one_pass(tmp_path: Path, overrides: list[str]) -> None:
    more = ["subset.timing_images=1", "timing_images=1", "warm_up=0"]

    def job(folder: str, methods: str) -> ProtocolConfig:
        where = [f"output={tmp_path / folder}", f"methods={methods}"]
        return composed_as(ProtocolConfig, *overrides, *more, *where, name="eval_celebahq")

    jobs = [job("ours", "[w_plus,pti]"), job("rival", "[psp]")]
    files = [tmp_path / "ours" / "w_plus.time.json", tmp_path / "ours" / "pti.time.json"]
    files.append(tmp_path / "rival" / "psp.time.json")

    def passes() -> list[str]:
        time_together(jobs, torch.device("cpu"))
        return [json.loads(path.read_text())["together"] for path in files]

    first = passes()
    assert len(set(first)) == 1 and all(json.loads(path.read_text())["time"] > 0 for path in files)
    before = [path.read_bytes() for path in files]
    assert passes() == first and [path.read_bytes() for path in files] == before
    files[2].write_text(json.dumps(json.loads(before[2]) | {"together": "another time"}))
    assert len(set(passes())) == 1 and b"another time" not in files[2].read_bytes()
    files[1].unlink()
    assert len(set(passes())) == 1
    files[0].write_text(json.dumps(json.loads(files[0].read_text()) | {"settings_sha256": "of other weights"}))
    passes()
    assert files[0].read_text().count("of other weights") == 0
    files[1].unlink()
    untimed = [replace(jobs[0], subset=replace(jobs[0].subset, timing_images=0)), jobs[1]]
    time_together(untimed, torch.device("cpu"))
    assert not files[1].exists() and files[0].exists()
