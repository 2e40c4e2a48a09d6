"""The protocols' pairs against the paper's counts, their summaries by hand, and times of parts."""

import math
from collections import Counter
from collections.abc import Generator

import pytest
import torch
from tiny import tiny_goae, tiny_images, tiny_labels

from goae.baselines.encoder_only import EncoderOnly
from goae.evaluation.paper_tables import TABLES
from goae.evaluation.protocols import (
    TABLE,
    People,
    as_row,
    chunks,
    input_view_tasks,
    method_record,
    novel_view_tasks,
    paired_differences,
    summarize_method,
)
from goae.evaluation.sets import image_distances
from goae.evaluation.timing import encoder_steps, goae_steps, inversion_seconds
from goae.inversion import Inverter
from goae.models.latent_inverter import View

YAWS = (-60.0, -30.0, 0.0, 30.0, 60.0)


def mead(persons: int = 43, frames: int = 5, views: int = 5) -> People:
    """The paper's images in another order than sorted."""
    numbers = torch.cartesian_prod(torch.arange(persons), torch.arange(frames), torch.arange(views)).flip(0)
    return People(*numbers.T)


def test_R29_counts() -> None:
    tasks = novel_view_tasks(mead(), YAWS)
    inputs, pairs = Counter(t.group for t in tasks), Counter[str]()
    for task in tasks:
        pairs[task.group] += len(task.targets)
    assert inputs == {"60": 430, "0": 215} and pairs == {"60": 1720, "0": 860}
    assert Counter(t.yaw for t in tasks) == {-60.0: 215, 0.0: 215, 60.0: 215}


def test_targets_are_the_other_views_of_the_same_frame() -> None:
    people = mead(2, 3)
    for task in novel_view_tasks(people, YAWS):
        assert len({*task.targets, task.source}) == 5
        for i in task.targets:
            assert people.person[i] == people.person[task.source] == task.person
            assert people.frame[i] == people.frame[task.source]
        assert YAWS[people.view[task.source]] == task.yaw


def test_missing_and_doubled_views_are_named() -> None:
    people = mead(2, 1)
    with pytest.raises(ValueError, match=r"person 0, frame 0 has views \[1, 2, 3, 4\]"):
        novel_view_tasks(People(*(x[:-1] for x in people)), YAWS)
    with pytest.raises(ValueError, match="twice"):
        novel_view_tasks(People(*(torch.cat([x, x[:1]]) for x in people)), YAWS)
    with pytest.raises(ValueError, match="no view has yaw ±45"):
        novel_view_tasks(people, YAWS, inputs=(45.0,))


def test_input_views_are_their_own_targets() -> None:
    assert [(t.source, t.targets, t.person) for t in input_view_tasks(torch.tensor([7, 7, 9]))] == [
        (0, (0,), 7),
        (1, (1,), 7),
        (2, (2,), 9),
    ]


def test_batches_keep_their_place_and_the_last_is_kept() -> None:
    assert chunks(range(7), 3, set()) == [range(0, 3), range(3, 6), range(6, 7)]
    assert chunks(range(7), 3, {0, 1, 2, 4, 6}) == [range(3, 6)]  # as a whole, since its size decides rounding


def rows(values: list[float], groups: list[str], persons: list[int]) -> list[dict[str, str]]:
    return [
        {"task": str(i), "place": "0", "target": f"{i}.png", "group": g, "person": str(p)}
        | as_row({"mse": v, "lpips": v})
        for i, (v, g, p) in enumerate(zip(values, groups, persons, strict=True))
    ]


def test_a_summary_by_hand() -> None:
    values, groups = [1.0, 3.0, math.nan, 5.0, 9.0], ["60", "60", "60", "0", "0"]
    measured = rows(values, groups, [1, 1, 2, 1, 2])
    assert measured[2]["failed"] == "mse lpips" and measured[2]["mse"] == ""
    features = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    real = {f"{i}.png": features[i] for i in range(5)}
    sets = {"60": image_distances(measured[:3], features[:3], real, [1, 1])}
    sets["0"] = image_distances(measured[3:], features[3:], real, [1, 1])
    found = summarize_method(measured, sets, ["mse", "lpips"], resamples=200)
    side, front = found["groups"]["60"], found["groups"]["0"]
    assert side["metrics"]["mse"] == {"mean": 2.0, "interval": None, "num": 2, "failed": 1}
    assert front["metrics"]["mse"] == {"mean": 7.0, "interval": [5.0, 9.0], "num": 2, "failed": 0}
    assert (side["num_rows"], side["sets"]["num_real"], side["sets"]["num_shown"]) == (3, 3, 2)
    assert front["sets"]["fid"] == pytest.approx(0, abs=1e-6) == front["sets"]["fid_beside"]  # a set and itself
    assert front["sets"]["num_features"] == 1 and front["sets"]["num_distinct"] == 2
    assert found["table"] == {
        "mse60": 2.0,
        "lpips60": 2.0,
        "fid60": side["sets"]["fid"],
        "mse0": 7.0,
        "lpips0": 7.0,
        "fid0": front["sets"]["fid"],
    }


def test_a_record_has_the_mean_of_all_pairs_and_of_each_yaw() -> None:
    values, groups = [1.0, 3.0, math.nan, 5.0, 9.0], ["60", "60", "60", "0", "0"]
    measured = rows(values, groups, [1, 1, 2, 1, 2])
    for row in measured:
        row |= {"ssim": "0.5", "id_independent": row["mse"]}
    found = method_record(measured, ["mse", "lpips", "ssim", "id_independent"], resamples=200)
    side, front = found.pop("yaw_60"), found.pop("yaw_0")
    assert (found["num_inputs"], found["num_shown"], found["num_persons"]) == (5, 5, 2)
    assert found["mse"] == found["identity_independent"] == 4.5 and found["mse_failed"] == 1
    low, high = found["mse_interval"]
    assert low == pytest.approx(3.0) and high == 9.0  # person 1 has 1, 3 and 5; person 2 has 9
    assert front["mse"] == 7.0 and front["mse_interval"] == [5.0, 9.0] and "mse_failed" not in front
    assert side["mse"] == 2.0 and "mse_interval" not in side  # all its numbers are of one person
    named = {"mse", "lpips", "identity_independent"}
    counts = {"num_inputs", "num_shown", "num_persons"}
    assert set(found) == named | counts | {f"{name}_{end}" for name in named for end in ("interval", "failed")}


def test_a_record_has_no_column_that_was_not_measured() -> None:
    found = method_record(rows([math.nan] * 2, [""] * 2, [0, 1]), ["mse", "lpips"], resamples=10)
    assert found == {"num_inputs": 2, "num_shown": 2, "num_persons": 2, "mse_failed": 2, "lpips_failed": 2}


def test_columns_are_those_of_the_papers_tables() -> None:
    printed = {column.name.lower() for table in TABLES.values() for column in table.columns}
    assert {f"{name}{group}" for name in TABLE for group in ("", "60", "0")} - printed == {"time60", "time0"}
    assert printed <= {f"{name}{group}" for name in TABLE for group in ("", "60", "0")}


def test_differences_are_of_the_same_rows() -> None:
    first = rows([1.0, 2.0, 4.0], [""] * 3, [0, 1, 2])
    second = rows([0.5, math.nan, 2.0], [""] * 3, [0, 1, 2])
    found = paired_differences(first, second, ["mse"], resamples=200)["input"]["mse"]
    assert (found["mean"], found["num"], found["failed"]) == (1.25, 2, 1)
    assert found["interval"] == [0.5, 2.0]
    with pytest.raises(ValueError, match="same rows"):
        paired_differences(first, second[1:], ["mse"], resamples=10)


@pytest.mark.parametrize("input_view", ["mix", "F*"])
def test_parts_do_what_the_inverter_does(input_view: str) -> None:
    goae = tiny_goae()
    goae.config.mix.input_view = input_view
    inverter, image, c = Inverter(goae), tiny_images(1), tiny_labels(1)
    names, view = run_steps(goae_steps(goae, image, c))
    assert names == ["encode", "refine", "mix", "render"]
    expected = inverter.reconstruct(inverter.invert(image, c))
    torch.testing.assert_close(view.image, expected.image, rtol=0, atol=1e-6)
    names, view = run_steps(encoder_steps(goae, image, c))
    assert names == ["encode", "render"]
    torch.testing.assert_close(view.image, EncoderOnly(goae).invert(image, c).view.image, rtol=0, atol=1e-6)


@torch.inference_mode()
def run_steps(steps: Generator[str, None, View]) -> tuple[list[str], View]:
    """The names of the parts, and what the last one returns."""
    names = []
    while True:
        try:
            names.append(next(steps))
        except StopIteration as end:
            return names, end.value


class Clock:
    """Answers with a counter instead of a clock, and remembers whom it saw."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("goae.evaluation.timing._now", lambda device: self.now)

    def invert(self, image: torch.Tensor, c: torch.Tensor) -> float:
        self.now += float(image.mean())
        return 0.0

    def render(self, inversion: float, c: torch.Tensor) -> None:
        self.now += 0.5


def test_times_are_medians_without_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    samples = [{"image": torch.full((3, 2, 2), x), "c": torch.zeros(25)} for x in (9.0, 1.0, 2.0)]

    def steps(image: torch.Tensor, c: torch.Tensor):  # type: ignore[no-untyped-def]
        clock.now += 1.0
        yield "encode"
        clock.now += float(image.mean())
        yield "render"
        clock.now += 0.25
        yield "encode"

    found = inversion_seconds(clock, samples, warm_up=2, device=torch.device("cpu"), steps=steps)  # type: ignore[arg-type]
    assert found == {"timed_images": 3, "time": 2.5, "time_encode": 1.25, "time_render": 2.0}


def test_samples_that_diverge_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    invert = clock.invert

    def diverging(image: torch.Tensor, c: torch.Tensor) -> float:
        if float(image.mean()) > 5:
            raise FloatingPointError("not finite")
        return invert(image, c)

    monkeypatch.setattr(clock, "invert", diverging)
    samples = [{"image": torch.full((3, 2, 2), x), "c": torch.zeros(25)} for x in (9.0, 1.0, 8.0)]
    cpu = torch.device("cpu")
    assert inversion_seconds(clock, samples, warm_up=1, device=cpu) == {"timed_images": 1, "time": 1.5}  # type: ignore[arg-type]
    assert inversion_seconds(clock, samples[:1], warm_up=0, device=cpu) == {"timed_images": 0}  # type: ignore[arg-type]
