"""Figure 3 on a tiny generator: numbers, picture, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from composing import composed_as
from eg3d import checkpoint
from PIL import Image
from tiny import tiny_generator

from goae.config import FiguresConfig
from goae.evaluation.conditions import CONDITIONS, Measured
from goae.runs.figures import condition_record, draw_figure, measure_conditions


@pytest.fixture(scope="module")
def generator_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("figures") / "generator.safetensors"
    checkpoint.save(tiny_generator(), path)
    return path


def figures(generator_path: Path, folder: Path, *more: str) -> FiguresConfig:
    given = [f"generator_path={generator_path}", f"output={folder}", f"metrics={folder / 'metrics.json'}"]
    # the tiny generator's random scenes reach from 2.61 ... 2.66 to 2.69 ... 2.84: this depth parts each of them
    small = ["device=cpu", "conditions.num_z=5", "conditions.batch_size=2", "conditions.erode=0"]
    rule = ["networks.background=depth", "networks.background_depth=2.68"]
    return composed_as(FiguresConfig, *given, *small, *rule, *more, name="figures")


def test_figure_3_is_measured_and_drawn(generator_path: Path, tmp_path: Path) -> None:
    config = figures(generator_path, tmp_path, "figure=3")
    (tmp_path / "metrics.json").write_text('{"canonical": {"left": {"old": 1}}, "prior": {"fd": 2.0}}')
    path = draw_figure(config)
    assert path == tmp_path / "figure-3.png" and Image.open(path).width > Image.open(path).height
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["prior"] == {"fd": 2.0} and set(found["canonical"]) == {*CONDITIONS, "made_from"}
    measured = measure_conditions(config, checkpoint.load(generator_path))
    for name in CONDITIONS:
        record, gaps = found["canonical"][name], measured[name].depth_gap
        gaps = gaps[~gaps.isnan()]
        assert record["depth_gap"] == pytest.approx(float(gaps.mean())) and record["depth_gap"] > 0
        assert record["identity"] == pytest.approx(float(measured[name].identity.mean()), rel=1e-5)
        assert record["depth_gap_interval"][0] <= record["depth_gap"] <= record["depth_gap_interval"][1]
        assert (record["num_z"], record["num_undefined"]) == (5, 5 - len(gaps))
    assert found["canonical"]["left"]["identity"] != found["canonical"]["front"]["identity"]


def test_batches_do_not_matter(generator_path: Path, tmp_path: Path) -> None:
    generator = checkpoint.load(generator_path)
    one, other = (
        measure_conditions(figures(generator_path, tmp_path, f"conditions.batch_size={size}"), generator)
        for size in (5, 3)
    )
    for name in CONDITIONS:
        torch.testing.assert_close(one[name].identity, other[name].identity, rtol=1e-3, atol=1e-4)


def test_the_front_is_compared_z_by_z_where_both_have_a_gap() -> None:
    nan = float("nan")
    front = Measured(torch.tensor([0.5, 0.6, nan, 0.8]), torch.tensor([0.9, 0.9, 0.9, 0.9]))
    left = Measured(torch.tensor([0.4, nan, 0.3, 0.5]), torch.tensor([0.7, 0.8, 0.9, 1.0]))
    record = condition_record(left, front, "left")
    assert record["depth_gap"] == pytest.approx(0.4) and record["num_undefined"] == 1 and record["num_z"] == 4
    assert record["depth_gap_front_above"] == pytest.approx(0.2)
    assert record["identity_front_above"] == pytest.approx(0.05)
    assert "identity_front_above" not in condition_record(front, front, "front")
    empty = Measured(torch.tensor([nan, nan, nan, 0.1]), left.identity)
    with pytest.raises(ValueError, match=r"only 1 of 4 heads under the condition left have a depth_gap"):
        condition_record(empty, front, "left")


def test_a_figure_that_is_not_there_names_those_that_are(generator_path: Path, tmp_path: Path) -> None:
    for number in (0, 20):
        with pytest.raises(ValueError, match=rf"figure is {number}; expected one of those that are there: .*3, "):
            draw_figure(figures(generator_path, tmp_path, f"figure={number}"))
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="shown is 5"):
        figures(generator_path, tmp_path, "shown=5")
    with pytest.raises(ValueError, match=r"networks\.identity is none"):
        draw_figure(figures(generator_path, tmp_path, "figure=3", "networks.identity=none"))


def test_a_trial_records_nothing(generator_path: Path, tmp_path: Path) -> None:
    draw_figure(figures(generator_path, tmp_path, "figure=3", "metrics=", "shown=2", "conditions.num_z=3"))
    assert [p.name for p in tmp_path.iterdir()] == ["figure-3.png"]
