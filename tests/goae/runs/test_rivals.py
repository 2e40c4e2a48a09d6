"""Jobs on runs of the rival encoders: train, stop and resume, evaluate, report; and what they refuse."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from composing import composed_as
from safetensors.torch import load_file, save_file

from goae.config import EvaluateConfig, TrainConfig
from goae.extractors import lpips
from goae.models.goae import GOAE
from goae.runs.evaluate import evaluate
from goae.runs.report import report, summary_table
from goae.runs.setup import run_encoder, run_inverter
from goae.runs.train import train
from goae.training.tracking import read_metrics

TERMS = {
    "psp": {"e/l2"},
    "e4e": {"d/real", "d/fake", "r1/r1", "e/l2", "e/adv", "e/dw"},
    "ide3d": {"e/l2"},
}


class World(NamedTuple):
    """Where the tiny runs live, their images, and a file of a random perceptual network."""

    folder: Path
    data: Path
    trunk: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> World:
    folder = tmp_path_factory.mktemp("rivals")
    torch.manual_seed(0)
    trunk = {n: t.contiguous() for n, t in lpips.build("alex").state_dict().items() if n.startswith("net.")}
    save_file(trunk, folder / "trunk.safetensors")
    return World(folder, tiny_data, folder / "trunk.safetensors")


def tiny(world: World, method: str, *overrides: str) -> TrainConfig:
    """A perceptual network for the metrics; its weight in the loss stays 0, as the experiment has it."""
    images = [f"data.{split}={world.data}" for split in ("train", "validation", "test")]
    perception = ["perception.lpips=alex", f"perception.lpips_path={world.trunk}"]
    given = [f"method={method}", f"paths.runs={world.folder}", *images, *perception]
    return composed_as(TrainConfig, "experiment=tiny", *given, *overrides)


@pytest.mark.parametrize("method", TERMS)
def test_two_steps_and_two_are_four_and_the_run_is_measured(world: World, method: str) -> None:
    whole, parts = tiny(world, method), tiny(world, method, f"run={method}-parts", "stages.encoder.fit.steps=2")
    assert whole.run == f"tiny-{method}-seed0"
    train(whole)
    train(parts)
    halfway = load_file(parts.run_dir / "encoder.safetensors")
    train(tiny(world, method, f"run={method}-parts"))
    resumed, expected = (load_file(c.run_dir / "encoder.safetensors") for c in (parts, whole))
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    assert any(not torch.equal(resumed[name], halfway[name]) for name in expected)

    logged = {name for row in read_metrics(whole.run_dir, "encoder") for name in row if "/" in name}
    terms = {name for name in logged if not name.startswith("val/") and not name.endswith("/gradient")}
    assert terms == TERMS[method]
    assert not (whole.run_dir / "refiner.safetensors").exists()

    config = EvaluateConfig(run=whole.run, runs=str(world.folder), batch_size=5, timing_images=1, identity="mini")
    summary = json.loads(evaluate(config).read_text())
    assert list(summary["methods"]) == ["w_avg", method]
    assert all(values["num_images"] == 12 and values["mse"] > 0 for values in summary["methods"].values())
    assert summary["methods"]["w_avg"]["mse"] != summary["methods"][method]["mse"]
    page = report(config).read_text()
    assert page.count("data:image/png;base64,") == 2  # one grid, one chart


def test_without_an_identity_network_identity_is_left_out(world: World) -> None:
    whole = tiny(world, "psp", "run=faceless", "stages.encoder.fit.steps=0")
    train(whole)
    config = EvaluateConfig(run=whole.run, runs=str(world.folder), batch_size=12, timing_images=1)
    summary = json.loads(evaluate(config).read_text())
    assert summary["identity"] == "none"
    assert all("id" not in values and values["lpips"] >= 0 for values in summary["methods"].values())
    assert "ID ↑" not in summary_table(summary) and "LPIPS" in summary_table(summary)


def test_a_rival_has_no_second_stage(world: World) -> None:
    with pytest.raises(ValueError, match="psp has stage 1 alone"):
        tiny(world, "psp", "stage=refiner")
    with pytest.raises(ValueError, match=r"is one of e4e, which has no second stage.*method=goae"):
        run_inverter(tiny(world, "e4e"))
    with pytest.raises(FileNotFoundError, match="stage `encoder` of this run has not finished"):
        run_encoder(tiny(world, "psp", "run=untrained"))


def test_a_run_is_of_one_method(world: World) -> None:
    train(tiny(world, "psp", "run=one", "stages.encoder.fit.steps=0"))
    with pytest.raises(ValueError, match="method: 'psp' in the run, 'e4e' now"):
        train(tiny(world, "e4e", "run=one", "stages.encoder.fit.steps=0"))
    assert not isinstance(run_encoder(tiny(world, "psp", "run=one")).goae, GOAE)
