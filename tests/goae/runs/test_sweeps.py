"""Every sweep composes and names its runs; a sweep trains each cell, goes on where it was, and hands on its weights."""

import csv
import json
from itertools import product
from pathlib import Path

import pytest
import yaml
from composing import CONFIGS, composed_as
from eg3d import checkpoint
from hydra import compose, initialize_config_dir
from tiny import tiny_generator

from goae import build
from goae.config import PLUGINS, SweepReportConfig, TablesConfig, TrainConfig, has_plugin, load_run, require_plugins
from goae.evaluation.paper_tables import TABLES
from goae.evaluation.tables import SOURCES
from goae.runs.sweep_report import sweep_report
from goae.runs.tables import missing_weights, sweep_command
from goae.runs.train import objective
from scripts import run_script

ROOT = Path(__file__).parents[3]
SWEEPS = sorted(p.stem for p in (CONFIGS / "sweep").glob("*.yaml"))
GRIDS = [name for name in SWEEPS if name != "search"]
needs_plugins = pytest.mark.skipif(
    not all(has_plugin(name) for name in PLUGINS.values()), reason="needs the extra `sweep`"
)


def cells(sweep: str, experiment: str = "mini") -> list[TrainConfig]:
    """The runs of a grid with the last of its seeds."""
    params = yaml.safe_load((CONFIGS / "sweep" / f"{sweep}.yaml").read_text())["hydra"]["sweeper"]["params"]
    assert params.pop("seed") == "0,1,2"
    values = [[f"{key}={value}" for value in yaml.safe_load(f"[{text}]")] for key, text in params.items()]
    given = f"experiment={experiment}", f"sweep={sweep}", "seed=2"
    return [composed_as(TrainConfig, *given, *cell) for cell in product(*values)]


@pytest.mark.parametrize("sweep", GRIDS)
def test_every_cell_composes_with_a_name_of_its_own(sweep: str) -> None:
    made = cells(sweep)
    assert len({config.run for config in made}) == len(made) > 1
    for config in made:
        assert config.variant.startswith(f"{sweep}-") and config.run == f"mini-{config.variant}-seed2"
        if config.stage == "refiner":  # stage 1 is the full encoder of table 2, with the same seed
            assert config.paths.encoder == "runs/mini-table2-adv0.05-bg5.0-seed2/encoder.safetensors"
        else:
            assert (config.stage, config.paths.encoder) == ("encoder", "")
    if sweep in ("afa_resolution", "backbone"):
        generator = checkpoint.load(ROOT / "goae/assets/mini/generator.safetensors")
        sizes = {sum(p.numel() for p in build.build_goae(config, generator).encoder.parameters()) for config in made}
        assert len(sizes) == (len(made) if sweep == "backbone" else 1)
    if sweep == "table2":
        full = composed_as(TrainConfig, "experiment=mini").stages.encoder
        weights = {(c.stages.encoder.adv, c.stages.encoder.bg) for c in made}
        assert len(made) == 4 and weights == set(product((0.0, full.adv), (0.0, full.bg)))
    if sweep == "table3":
        assert len(made) == 4
        assert {(c.afa.variant, c.goae.mix.planes) for c in made} == set(product(("paper", "conv"), ("xyz", "none")))


@pytest.mark.parametrize(
    ("world", "experiment", "seeds"), [("mini", "mini_ablation", (0, 1, 2)), ("full", "ffhq", (0,))]
)
def test_tables_read_the_runs_that_sweeps_leave(world: str, experiment: str, seeds: tuple[int, ...]) -> None:
    def names(made: list[TrainConfig]) -> list[list[str]]:
        return [[f"{config.run.removesuffix('2')}{seed}" for seed in seeds] for config in made]

    rows = composed_as(TablesConfig, f"world={world}", "table=2", name="tables").rows
    made = cells("table2", experiment)
    terms = {
        (c.stages.encoder.adv > 0, c.stages.encoder.bg > 0): runs for c, runs in zip(made, names(made), strict=True)
    }
    assert terms == {
        (False, False): rows.no_adv_no_bg,
        (False, True): rows.no_adv,
        (True, False): rows.no_bg,
        (True, True): rows.adv_bg,
    }
    mixed = [config for config in cells("table3", experiment) if config.goae.mix.planes == "xyz"]
    variants = dict(zip([config.afa.variant for config in mixed], names(mixed), strict=True))
    assert variants == {"paper": rows.afa, "conv": rows.conv} and rows.no_mix == rows.afa


@pytest.mark.usefixtures("nothing_shipped")
def test_a_missing_row_of_a_sweep_names_the_sweep(tmp_path: Path) -> None:
    config = composed_as(TablesConfig, "table=2", f"runs={tmp_path}", f"output={tmp_path}", name="tables")
    for name, source in SOURCES[2].items():
        sweep = "table2" if source.method == "w_plus" else "table3 'hydra.sweeper.params={goae.mix.planes: \"xyz\"}'"
        told = missing_weights(config, TABLES[2], source)
        assert told.endswith(f": `python scripts/train.py -m experiment=mini_ablation sweep={sweep}`"), name
        assert told.count("config.yaml") == 3 and told.count("`") == 2  # of three seeds, with one command


@pytest.mark.usefixtures("nothing_shipped")
def test_commands_train_no_more_than_the_rows_name(tmp_path: Path) -> None:
    config = composed_as(TablesConfig, "world=full", "table=2", f"runs={tmp_path}", name="tables")
    assert sweep_command(config, "ffhq", "table2").endswith(" sweep=table2 'hydra.sweeper.params={seed: \"0\"}'")
    grid = 'hydra.sweeper.params={goae.mix.planes: "xyz", seed: "0"}'
    assert sweep_command(config, "ffhq", "table3").endswith(f" sweep=table3 '{grid}'")
    with initialize_config_dir(str(CONFIGS), version_base=None):
        made = compose("train", ["experiment=ffhq", "sweep=table3", grid], return_hydra_config=True)
    params = {"afa.variant": "paper,conv", "goae.mix.planes": "xyz", "seed": "0"}
    assert made.hydra.sweeper.params == params
    (tmp_path / "ffhq-table3-paper-mix_xyz-seed0").mkdir()
    (tmp_path / "ffhq-table3-paper-mix_xyz-seed0" / "config.yaml").touch()
    (tmp_path / "ffhq-table3-paper-mix_xyz-seed0" / "refiner.safetensors").touch()
    grid = 'hydra.sweeper.params={afa.variant: "conv", goae.mix.planes: "xyz", seed: "0"}'
    assert sweep_command(config, "ffhq", "table3").endswith(f" sweep=table3 '{grid}'")


@pytest.mark.parametrize(("side", "ratio"), [(8, 8), (16, 4), (32, 2)])
def test_the_full_world_cuts_at_every_resolution_with_tokens_of_64(side: int, ratio: int) -> None:
    grid = f"hydra.sweeper.params={{afa.feature_resolution: {side}}}"
    with initialize_config_dir(str(CONFIGS), version_base=None):
        made = compose("train", ["experiment=ffhq", "sweep=afa_resolution", grid], return_hydra_config=True)
    assert made.hydra.sweeper.params == {"afa.feature_resolution": str(side), "seed": "0,1,2"}
    given = "experiment=ffhq", "sweep=afa_resolution", f"afa.feature_resolution={side}"
    afa = composed_as(TrainConfig, *given, f"afa.token_ratio={ratio}").afa
    assert afa.token_ratio * afa.feature_resolution == 64
    with pytest.raises(ValueError, match=r"afa\.image_resolution=512 must be"):
        composed_as(TrainConfig, *given, f"afa.token_ratio={ratio // 2}")


def test_a_stage_of_another_run_is_not_trained_again() -> None:
    for wrong in (["stage=encoder"], ["method=psp"]):
        with pytest.raises(ValueError, match=r"paths\.encoder is 'a'"):
            composed_as(TrainConfig, "experiment=tiny", "paths.encoder=a", *wrong)
    assert composed_as(TrainConfig, "experiment=tiny", "paths.encoder=a").own_stages == ("refiner",)


def test_a_missing_plugin_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("goae.config.composing.find_spec", lambda name: None)
    require_plugins(["sweep=table2", "seed=1"])
    for argument in PLUGINS:
        with pytest.raises(ValueError, match=r"pip install -e '\.\[sweep\]'"):
            require_plugins(["experiment=mini", argument])
    assert run_script("train", "experiment=tiny", "sweep=table2", "launch=joblib") == 1
    assert capsys.readouterr().err.startswith("error: launch=joblib needs the Hydra plugin hydra_joblib_launcher")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> list[str]:
    """Overrides of tiny runs with seeds 0 and 1 in a folder of their own."""
    folder = tmp_path_factory.mktemp("sweep")
    checkpoint.save(tiny_generator(), folder / "generator.safetensors")
    data = [f"data.{split}={tiny_data}" for split in ("train", "validation", "test")]
    paths = [f"paths.runs={folder / 'runs'}", f"paths.generator={folder / 'generator.safetensors'}"]
    stats = run_script("canonical_stats", "experiment=tiny", *paths, *data)
    assert stats == 0
    short = [f"stages.{stage}.fit={{steps: 2, save_every: 2, image_every: 0}}" for stage in ("encoder", "refiner")]
    return ["experiment=tiny", *paths, *data, *short, "validation.num_images=2"]


SEED = "hydra.sweeper.params.seed=0"


def runs_of(given: list[str], pattern: str) -> list[Path]:
    return sorted(Path(given[1].removeprefix("paths.runs=")).glob(pattern))


def test_a_sweep_trains_every_cell_goes_on_and_hands_on_its_encoders(
    given: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_script("train", *given, "sweep=table3", SEED) == 1
    assert "paths.encoder" in (told := capfd.readouterr().err) and "sweep=table2" in told  # no encoder yet
    assert run_script("train", "-m", *given, "sweep=table2", SEED) == 0
    runs = runs_of(given, "tiny-table2-*")
    assert len(runs) == 4 and all((run / "encoder.safetensors").exists() for run in runs)
    weights = {run: (run / "encoder.safetensors").stat().st_mtime_ns for run in runs}
    (runs[0] / "encoder.safetensors").unlink()  # as if it had not ended
    capfd.readouterr()
    assert run_script("train", *given, "sweep=table2", SEED) == 0  # without -m
    assert capfd.readouterr().out.count("training is complete") == 3
    assert (runs[0] / "encoder.safetensors").exists()
    assert all((run / "encoder.safetensors").stat().st_mtime_ns == weights[run] for run in runs[1:])
    assert run_script("train", *given, "sweep=table3", SEED) == 0
    refined = runs_of(given, "tiny-table3-*-seed0/refiner.safetensors")
    assert len(refined) == 4
    for path in refined:
        assert not (path.parent / "encoder.jsonl").exists()
        config = load_run(path.parent, TrainConfig)
        assert Path(config.paths.encoder).parent.name == "tiny-table2-adv0.05-bg5.0-seed0"
    rows = vars(composed_as(TablesConfig, "table=2", name="tables").rows)
    tiny = {
        key: [name.replace("mini_ablation", "tiny") for name in rows[key] if name.endswith("-seed0")]
        for key in rows
        if "table" in str(rows[key])
    }
    overrides = [f"rows.{key}={names}" for key, names in tiny.items()]
    tables = composed_as(TablesConfig, "table=2", f"runs={runs[0].parent}", *overrides, name="tables")
    told = [missing_weights(tables, TABLES[n], source) for n in (2, 3) for source in SOURCES[n].values()]
    assert told == [""] * 8


def test_the_page_has_means_and_spreads_over_seeds(
    given: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two cells of stage 1 with two seeds; perceptual and identity networks are random."""
    runs = Path(given[1].removeprefix("paths.runs="))
    for bg, seed in product((0.0, 5.0), (0, 1)):
        more = [f"stages.encoder.bg={bg}", f"seed={seed}", f"variant=page-bg{bg}", "stage=encoder"]
        assert run_script("train", *given, *more) == 0
    perception = build.Perception(lambda a, b: (a - b).abs().mean((1, 2, 3)), lambda x: x.flatten(1), lambda i, d: d)
    monkeypatch.setattr(build, "build_perception", lambda config, device: perception)
    config = composed_as(
        SweepReportConfig,
        *("name=page", "experiment_name=tiny", f"runs={runs}", f"output={tmp_path / 'page.html'}"),
        "timing_images=1",
        name="sweep_report",
    )
    page = sweep_report(config)
    rows = {(row["cell"], row["method"]): row for row in csv.DictReader((tmp_path / "page.csv").open())}
    assert set(rows) == {(f"tiny-page-bg{bg}", method) for bg in (0.0, 5.0) for method in ("w_avg", "w_plus")}
    for cell in ("tiny-page-bg0.0", "tiny-page-bg5.0"):
        found = [json.loads((runs / f"{cell}-seed{s}/evaluation/summary.json").read_text()) for s in (0, 1)]
        a, b = (summary["methods"]["w_plus"]["mse"] for summary in found)
        row = rows[cell, "w_plus"]
        assert a != b and float(row["mse"]) == pytest.approx((a + b) / 2) and row["seeds"] == "2"
        assert float(row["mse_std"]) == pytest.approx(abs(a - b) / 2**0.5)
        assert float(rows[cell, "w_avg"]["mse_std"]) == pytest.approx(0, abs=1e-9)  # does not depend on training
    text = page.read_text()
    assert "tiny-page-bg5.0" in text and "±" in text and text.count("data:image/png") == 1  # stage 1 alone
    (runs / "tiny-page-bg0.0-seed1/encoder.safetensors").unlink()
    with pytest.raises(ValueError, match=r"tiny-page-bg0\.0-seed1: encoder has not ended"):
        sweep_report(config)
    with pytest.raises(FileNotFoundError, match=r"no run matches .*set experiment_name to"):
        sweep_report(composed_as(SweepReportConfig, "name=page", f"runs={tmp_path}", name="sweep_report"))


@needs_plugins
@pytest.mark.parametrize("launch", ["joblib", "slurm_dry"])
def test_a_sweep_runs_by_every_launcher(given: list[str], launch: str) -> None:
    assert run_script("train", "-m", *given, f"launch={launch}", "stage=encoder", f"variant={launch}", "seed=0,1") == 0
    runs = runs_of(given, f"tiny-{launch}-seed[01]")
    assert len(runs) == 2 and all((run / "encoder.safetensors").exists() for run in runs)


@needs_plugins
def test_a_search_tries_values_and_answers_with_the_validation_error(
    given: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    search = ["sweep=search", "hydra.sweeper.n_trials=2"]
    assert run_script("train", *given, *search) == 0
    runs = runs_of(given, "tiny-search-*")
    assert len(runs) == 2
    best = yaml.safe_load((runs[0].parent / "optimization_results.yaml").read_text())
    errors = [objective(load_run(run, TrainConfig)) for run in runs]
    assert best["best_value"] == pytest.approx(min(errors))
    capfd.readouterr()
    assert run_script("train", *given, *search) == 0
    assert capfd.readouterr().out.count("training is complete") == 2


@needs_plugins
def test_the_slurm_launcher_composes() -> None:
    with initialize_config_dir(str(CONFIGS), version_base=None):
        made = compose("train", overrides=["launch=slurm", "sweep=table2"], return_hydra_config=True)
    assert made.hydra.launcher._target_.endswith("SlurmLauncher") and made.hydra.launcher.gpus_per_node == 1
