"""One key chooses the operators of every job, and one environment variable goes over it."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from composing import CONFIGS, composed_as, composed_by_hydra
from eg3d.generator import TriPlaneGenerator
from eg3d.ops import build as kernels
from eg3d.ops import choice
from eg3d.rendering import timing
from hydra.errors import HydraException
from tiny import tiny_generator
from torch import nn

from goae import build
from goae.benchmark.child import Setting
from goae.config import (
    PriorConfig,
    TrainConfig,
    claim_run,
    compare_run,
)
from goae.config.composing import SCHEMAS
from goae.data.mini import SplitConfig, write_split
from goae.loading import load_inverter
from goae.models.afa import AFA, AFAConfig
from goae.models.pyramid_encoder import PSPEncoder, RivalConfig
from goae.models.sampling import with_samples
from goae.runs import renderers, setup
from goae.runs.canonical import canonical_stats
from goae.runs.eval_edits import eval_edits
from goae.runs.evaluate import evaluate
from goae.runs.figures import draw_figure
from goae.runs.invert import invert
from goae.runs.invert_heads import invert_heads
from goae.runs.prior import train_prior
from goae.runs.prior_metrics import prior_metrics
from goae.runs.protocol import run_protocol
from goae.runs.renderers import settle_renderer, stored_renderer, wanted_renderer
from goae.runs.setup import device_of, launch
from goae.runs.tables import make_tables
from goae.runs.train import train
from goae.runs.train_camera import train_camera
from goae.runs.train_directions import train_directions

ROOT = Path(__file__).parents[3]
MINI = "goae/assets/mini"
RUN = "mini_long-seed0"
SCRIPTS = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
NEEDED = {  # what some scripts cannot be composed without
    "invert": ["input=a.png", "camera=a.json", "run=any"],
    "prior_metrics": ["weights=a.safetensors", "images=a.zip"],
    "sweep_report": ["name=any"],
    "tables": ["table=1"],
    **{script: ["run=any"] for script in ("evaluate", "eval_celebahq", "eval_mead")},
}


class BuiltError(Exception):
    """A generator was about to be built."""


@pytest.fixture(autouse=True)
def nobody_has_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_process", {"impl": "auto", "renderer": "auto"})
    monkeypatch.delenv(choice.VARIABLE, raising=False)


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four procedural heads of the mini world's size."""
    path = tmp_path_factory.mktemp("heads") / "test.zip"
    write_split(SplitConfig("test", 4, 0, 64), path, workers=1, progress=lambda done: None)
    return path


@pytest.fixture
def world(tmp_path: Path, tiny_data: Path, heads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the shipped files and small data sets, in which the first generator that is built ends a job."""
    (tmp_path / "goae").symlink_to(ROOT / "goae")
    (tmp_path / "data" / "mini").mkdir(parents=True)
    for name, data in (("train", tiny_data), ("val", tiny_data), ("test", heads)):
        (tmp_path / "data" / "mini" / f"{name}.zip").symlink_to(data)
    monkeypatch.chdir(tmp_path)

    make = TriPlaneGenerator.__init__

    def init(self: Any, config: Any, impl: str = "auto", *, renderer: str = "auto", **options: Any) -> None:
        if impl != "ref":  # by name, to look at the shapes of its tensors
            raise BuiltError(choice.chosen(impl), choice.chosen_renderer(renderer))
        make(self, config, impl, renderer=renderer, **options)

    monkeypatch.setattr(TriPlaneGenerator, "__init__", init)


def impls(module: nn.Module) -> set[str]:
    """Collect what the modules with operators say that they use."""
    return {m.impl for m in module.modules() if isinstance(getattr(m, "impl", None), str)}


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_has_the_key_and_refuses_a_wrong_value(script: str) -> None:
    schema, needed = schema_of(script), NEEDED.get(script, [])
    config = composed_as(schema, *needed, name=script)
    assert (config.impl, config.renderer) == ("auto", "fused")
    for wrong in ("impl=gpu", "renderer=quick"):
        with pytest.raises((ValueError, HydraException), match=f"{wrong.split('=')[0]} is '{wrong.split('=')[1]}'"):
            composed_as(schema, *needed, wrong, name=script)


def schema_of(script: str) -> type[Any]:
    """The schema that its YAML is checked by."""
    made = composed_by_hydra(*NEEDED.get(script, []), name=script)
    return next(schema for schema in SCHEMAS if made._metadata.object_type is schema)


GENERATOR, SHIPPED = f"{MINI}/generator.safetensors", f"{MINI}/runs/{RUN}"
DATA = ["data.train=data/mini/train.zip", "data.validation=data/mini/val.zip", f"paths.generator={GENERATOR}"]
METERS = ["metrics.features=mini", "metrics.features_beside=none", "metrics.identity_independent=none"]
REAL = [f"weights={GENERATOR}", "images=data/mini/test.zip", "images_seen=1"]
PHOTOS = ["input=data/mini/test.zip", "camera=data/mini/test.zip"]
# job -> its script's YAML, its function, and what it is asked for
JOBS: dict[str, tuple[str, Callable[[Any], Any], list[str]]] = {
    "train": ("train", train, ["experiment=tiny", *DATA, "perception.lpips=none", "perception.identity=none"]),
    "canonical_stats": ("train", canonical_stats, ["experiment=tiny", *DATA]),
    "train_prior": ("train_prior", train_prior, ["experiment=tiny_prior", *DATA, "stage=warm_start"]),
    "train_camera": ("train_camera", train_camera, ["experiment=tiny_camera", *DATA]),
    "invert a run": ("invert", invert, [*PHOTOS, f"run={RUN}"]),
    "invert by files": (
        "invert",
        invert,
        [
            *PHOTOS,
            f"generator_path={GENERATOR}",
            f"encoder_path={SHIPPED}/encoder.safetensors",
            f"refiner_path={SHIPPED}/refiner.safetensors",
        ],
    ),
    "evaluate": ("evaluate", evaluate, [f"run={RUN}"]),
    "evaluate a rival": ("evaluate", evaluate, ["run=mini_long-e4e-seed0"]),
    "edits": ("eval_edits", eval_edits, []),
    "figure 3": ("figures", draw_figure, ["figure=3"]),
    "figure 7": ("figures", draw_figure, ["figure=7"]),
    "figure 8": ("figures", draw_figure, ["figure=8"]),
    "figure 15": ("figures", draw_figure, ["figure=15"]),
    "directions": ("train_directions", train_directions, []),
    "heads": ("invert_heads", invert_heads, []),
    "distances": (
        "prior_metrics",
        prior_metrics,
        [f"weights={GENERATOR}", "images=data/mini/test.zip", "images_seen=1"],
    ),
    "input view": ("eval_celebahq", run_protocol, [f"run={RUN}", *METERS]),
    "a table": ("tables", make_tables, ["table=3", f"rows.afa=[{RUN}]", f"rows.conv=[{RUN}]", *METERS]),
}


@pytest.mark.parametrize("job", JOBS)
def test_the_key_reaches_what_every_job_builds(job: str, world: None) -> None:
    script, start, overrides = JOBS[job]
    keys = ["impl=cpu", "renderer=half", *(() if script == "evaluate" else ("device=cpu",))]
    with pytest.raises(BuiltError) as built:
        start(composed_as(schema_of(script), *overrides, *keys, name=script))
    assert built.value.args == ("cpu", "half")


def test_the_key_reaches_every_network_with_operators() -> None:
    choice.choose("ref", "plain")
    config = composed_as(PriorConfig, "experiment=tiny_prior", name="train_prior")
    generator = with_samples(tiny_generator(), 4)
    made = [generator, build.build_discriminator(config), PSPEncoder(RivalConfig(image_resolution=64), 14, 32)]
    made += [AFA(AFAConfig(variant)) for variant in ("paper", "official", "conv")]
    for module in made:
        assert impls(module) == {"ref"}
    assert generator.renderer.mode == "plain"
    generator.renderer.mode = "half"
    assert with_samples(generator, 4).renderer.mode == "half"


def test_the_loader_has_it_too() -> None:
    files = {name: ROOT / SHIPPED / f"{name}.safetensors" for name in ("encoder", "refiner")}
    for impl, expected in (("ref", "ref"), ("auto", "cpu")):
        choice.choose("cpu")
        inverter = load_inverter(generator=ROOT / GENERATOR, **files, impl=impl)
        assert impls(inverter.goae) == {expected}
    with pytest.raises(ValueError, match="impl is 'none'"):
        load_inverter(generator=ROOT / GENERATOR, **files, impl="none")


def test_a_measuring_process_takes_it() -> None:
    Setting(torch.device("cpu"), 0, 1, "ref", "plain").apply()
    assert impls(tiny_generator()) == {"ref"}


@pytest.mark.parametrize("start", [launch, device_of])
def test_what_cannot_be_had_is_told_before_anything_is_built(
    start: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed_as(TrainConfig, "experiment=tiny", "device=cpu", "impl=cuda")
    with pytest.raises(ValueError, match="impl is 'cuda', but the device is cpu: give impl=auto, or another device"):
        start(config)
    config.impl = "auto"
    monkeypatch.setenv(choice.VARIABLE, "cuda")
    with pytest.raises(ValueError, match="impl is 'cuda', but the device is cpu"):
        start(config)
    monkeypatch.setenv(choice.VARIABLE, "fastest")
    with pytest.raises(ValueError, match="variable EG3D_IMPL is 'fastest', expected one of auto, ref, cpu, cuda"):
        composed_as(TrainConfig, "experiment=tiny")
    monkeypatch.setenv(choice.VARIABLE, "cpu")
    monkeypatch.setattr(kernels, "_failures", {"cpu": "c++: error: a broken compiler"})
    with pytest.raises(ValueError, match=r"impl='cpu' cannot be built(.|\n)*a broken compiler"):
        start(config)


def test_the_log_says_what_is_used(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO)
    setup._log_operators.cache_clear()
    config = composed_as(TrainConfig, "experiment=tiny", "device=cpu", "impl=cpu")
    device_of(config), device_of(config)
    monkeypatch.setenv(choice.VARIABLE, "ref")
    device_of(config)
    told = [record.message for record in caplog.records if record.message.startswith("operators")]
    assert told == ["operators: cpu kernels; renderer: fused", "operators: plain PyTorch; renderer: fused"]


def test_a_run_goes_on_with_other_operators_and_notes_it(tmp_path: Path) -> None:
    config = composed_as(TrainConfig, "experiment=tiny", f"paths.runs={tmp_path}", "run=on")
    claim_run(config)
    (config.run_dir / "checkpoints" / "encoder").mkdir(parents=True)
    (config.run_dir / "checkpoints" / "encoder" / "step-000000002.pt").touch()
    config.impl, config.renderer = "ref", "plain"
    assert compare_run(config) == {"impl": ("auto", "ref"), "renderer": ("fused", "plain")}


def test_a_timing_chooses_once_for_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two real renderers on a CPU, which by itself offers no choice."""
    config = composed_as(TrainConfig, "experiment=tiny", f"paths.runs={tmp_path}", "run=timed", "renderer=auto")
    config.device = "cpu"
    config.run_dir.mkdir()
    fabric, generator = launch(config), tiny_generator()
    settle_renderer(config, generator, 1, fabric)
    assert generator.renderer.mode == "fused" and not list(config.run_dir.iterdir())
    monkeypatch.setattr(renderers, "offered", lambda *_: timing.MODES[:2])
    settle_renderer(config, generator, 1, fabric, write=False)
    assert not list(config.run_dir.iterdir())
    settle_renderer(config, generator, 1, fabric)
    stored = json.loads((config.run_dir / renderers.FILE).read_text())
    assert stored["renderer"] == generator.renderer.mode and set(stored["seconds"]) == {"fused", "plain"}

    (config.run_dir / renderers.FILE).write_text('{"renderer": "plain"}')
    monkeypatch.setattr(renderers, "fastest", lambda *_: pytest.fail("timed again"))
    assert stored_renderer(config.run_dir) == wanted_renderer(config) == "plain"
    launch(config)
    generator = tiny_generator()  # built after a job has started
    settle_renderer(config, generator, 1, fabric)
    assert generator.renderer.mode == "plain"
    assert wanted_renderer(replace(config, renderer="half")) == "half"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"renderer": "auto"}', '{"renderer": ["plain"]}'])
def test_a_damaged_choice_is_told_with_a_remedy(text: str, tmp_path: Path) -> None:
    (tmp_path / renderers.FILE).write_text(text)
    with pytest.raises(ValueError, match=r"renderer.json does not say.*renderer=fused\|plain\|half, or delete"):
        stored_renderer(tmp_path)
