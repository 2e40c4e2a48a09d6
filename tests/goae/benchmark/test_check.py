"""The check of a GPU, on a CPU and the smallest networks: what it writes, and what a failure leaves of the rest."""

import json
from pathlib import Path

import pytest
import torch
from composing import composed_as
from eg3d.ops import first_use
from measuring import sleeping

from goae.benchmark import check, recipe
from goae.benchmark.child import Setting, TimeUpError, run_apart
from goae.benchmark.recipe import measure_stage, rates
from goae.benchmark.report import tell_check
from goae.config import CheckGPUConfig, TrainConfig

CPU = torch.device("cpu")
TINY = ("experiment=tiny", "stages.encoder.adversary.r1_every=2", "stages.encoder.fit.steps=3600")


def checked(folder: Path, **given: object) -> tuple[check.Check, list[str]]:
    config = CheckGPUConfig(device="cpu", output=str(folder / "gpu.json"), **given)  # type: ignore[arg-type]
    made = check.Check(config, composed_as(TrainConfig, *TINY), CPU, folder / "gpu.json")
    return made, [made.run(name) for name in config.sections]


@pytest.mark.parametrize("name", recipe.STAGES)
def test_a_stage_is_timed_as_the_loop_trains_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Both stages whole, with ArcFace and the parser of the paper's recipe in the second case."""
    overrides = [*TINY, "perception.identity=arcface"] if name == "refiner" else TINY
    reports: list[int] = []
    found = measure_stage(
        composed_as(TrainConfig, *overrides), name, CPU, steps=6, batches=[1], report=lambda: reports.append(1)
    )
    assert len(found["steps_s"]) == 6 and len(reports) == 6 + recipe.WARM_UP + 2
    assert found["images_per_s"] == pytest.approx(found["batch_size"] / found["step_s"])
    assert found["validation_bytes"] > 0 and set(found["batches"]) == {"1"}
    tell_check({"check": {name: found | {"seconds": 1.0}}})
    assert "the schedule takes" in capsys.readouterr().out


def test_rates_count_whole_periods_after_the_warm_up() -> None:
    seconds = [9.0, 9.0, 9.0, 1.0, 2.0, 3.0, 2.0, 3.0]
    assert rates(seconds, 4, period=2) == {"step_s": 2.5, "images_per_s": 1.6}
    assert rates(seconds, 4, period=50)["step_s"] == pytest.approx(2.2)
    assert rates([9.0], 3, period=1)["step_s"] == 9.0


def test_a_size_that_is_too_large_ends_the_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    time_steps = recipe.time_steps

    def small(config: TrainConfig, trial: recipe.Trial, size: int, *rest: object) -> tuple[list[float], int]:
        if size > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried 1 GiB.\nmore")
        return time_steps(config, trial, size, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(recipe, "time_steps", small)
    found = measure_stage(composed_as(TrainConfig, *TINY), "refiner", CPU, steps=2, batches=[1, 2, 4], report=bool)
    assert found["failed"] == found["batches"]["2"]["failed"] == "out of memory: CUDA out of memory. Tried 1 GiB."
    assert list(found["batches"]) == ["1", "2"] and "step_s" in found["batches"]["1"]


def test_sections_are_written_one_by_one(tmp_path: Path) -> None:
    sections, files = ["environment", "tests", "build"], ["tests/missing.py"]
    _, words = checked(tmp_path, sections=sections, tests=files)
    written = json.loads((tmp_path / "gpu.json").read_text())["check"]
    assert words == ["measured", "failed", "measured"] and list(written) == sections
    assert written["tests"]["failed"] == "no test was run"
    assert written["environment"]["torch"] == torch.__version__
    assert set(written["build"]["as_defined"]) == set(first_use.CASES)


def test_without_time_nothing_is_begun(tmp_path: Path) -> None:
    made, words = checked(tmp_path, sections=["machine", "parts"], minutes=0.01)
    assert words == ["skipped", "skipped"] and "give more minutes" in made.sections["machine"]["skipped"]


def test_what_takes_too_long_is_ended() -> None:
    with pytest.raises(TimeUpError, match="ended after 1 s"):
        run_apart(sleeping, Setting(CPU, 1, 1), seconds=1)


def test_failures_of_tests_are_named(tmp_path: Path) -> None:
    report = tmp_path / "tests.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="ops" name="a"/><testcase classname="ops" name="b"><failure '
        'message="3e-2 above 1e-6"/></testcase><testcase classname="ops" name="c"><skipped/></testcase></testsuite>'
        "</testsuites>"
    )
    found = check.read_tests(report)
    assert (found["passed"], found["left_out"], found["failed"]) == (1, 1, "1 tests failed")
    assert found["failures"] == {"ops::b": "3e-2 above 1e-6"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="PyTorch finds no GPU"):
        check.check_gpu(CheckGPUConfig(output=str(tmp_path / "gpu.json")), composed_as(TrainConfig, *TINY))
    assert not any(tmp_path.iterdir())
