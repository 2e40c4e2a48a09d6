"""scripts/tables.py on tiny runs: measured, written, resumed; what is missing is told with its command."""

import json
from pathlib import Path

import pytest
import torch
from composing import composed_as
from eg3d import checkpoint
from safetensors.torch import load_file, save_file
from tiny import tiny_goae

from goae.config import TablesConfig, TrainConfig, claim_run, find_run, run_file
from goae.data.mini import SplitConfig, write_split
from goae.extractors import lpips
from goae.inversion import Inverter
from goae.loading import save_encoder, save_refiner
from goae.runs import tables
from goae.runs.setup import trained
from goae.runs.tables import check_subset, make_tables


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> list[str]:
    """Two runs of tiny networks, one with each variant of feature alignment."""
    folder = tmp_path_factory.mktemp("tables")
    for run, variant in (("tiny-seed0", "paper"), ("tiny-conv-seed0", "conv")):
        goae = tiny_goae(variant=variant)
        checkpoint.save(goae.generator, folder / "generator.safetensors")
        given = [f"paths.runs={folder}", f"paths.generator={folder / 'generator.safetensors'}", f"run={run}"]
        config = composed_as(TrainConfig, "experiment=tiny", f"afa.variant={variant}", *given)
        claim_run(config)
        for stage in config.own_stages:
            last = {"step": getattr(config.stages, stage).fit.steps}
            (config.run_dir / f"{stage}.jsonl").write_text(json.dumps(last) + "\n")
        save_encoder(goae.encoder, folder / run / "encoder.safetensors")
        save_refiner(goae.afa, goae.config, folder / run / "refiner.safetensors")
    torch.manual_seed(0)
    trunk = {n: t.contiguous() for n, t in lpips.build("alex").state_dict().items() if n.startswith("net.")}
    save_file(trunk, folder / "trunk.safetensors")
    meter = {"auc": 0.6, "auc_interval": [0.5, 0.7], "informative": False}
    good = {"auc": 0.9, "auc_interval": [0.8, 1.0], "informative": True}
    meters = {"lpips": meter, "identity": good, "fd_mini": good}
    (folder / "metrics.json").write_text(json.dumps({"meters": meters}))
    return [
        f"runs={folder}",
        f"records={folder / 'metrics.json'}",
        f"metrics.lpips_path={folder / 'trunk.safetensors'}",
        "metrics.identity_independent=none",
        "metrics.features=mini",
        "metrics.features_beside=none",
        f"images.input_view={tiny_data}",
        "rows.full=[tiny-seed0]",
        "rows.afa=[tiny-seed0]",
        "rows.conv=[tiny-conv-seed0]",
        "rows.optimization=[tiny-seed0]",
        "resolution=32",
        "metric_resolution=32",
        "metrics.grid=16",
        "num_inputs=6",
        "batch_size=5",
        "resamples=50",
        "timing_images=1",
        "warm_up=0",
        "device=cpu",
    ]


def find_override(overrides: list[str], name: str) -> str:
    return next(text.removeprefix(f"{name}=") for text in overrides if text.startswith(f"{name}="))


def configured(overrides: list[str], output: Path, *more: str) -> TablesConfig:
    return composed_as(TablesConfig, *overrides, f"output={output}", *more, name="tables")


def test_a_table_is_measured_written_and_resumed(
    tmp_path: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(overrides, tmp_path, "table=3", "claims=true")
    written = make_tables(config)
    names = [f"table3.{end}" for end in ("json", "md", "csv", "html")]
    assert [path.name for path in written] == [*names, "claims.md"]
    whole = json.loads((tmp_path / "table3.json").read_text())
    assert [row["method"] for row in whole["rows"]] == ["w/ conv", "w/ AFA"]
    for row, run in zip(whole["rows"], ("tiny-conv-seed0", "tiny-seed0"), strict=True):
        assert row["runs"] == [run] and row["num_inputs"] == {"input_view": 6}
        assert all(cell["ours"] is not None for cell in row["values"].values())
    values = [row["values"]["MSE"]["ours"] for row in whole["rows"]]
    assert values[0] != values[1]
    assert whole["protocol"]["uninformative"] == ["LPIPS"]
    page = (tmp_path / "table3.md").read_text()
    assert "uninformative on these images" in page and "w/ conv: a plain CNN" in page
    told = json.loads((tmp_path / "measured" / "tiny-seed0" / "training.json").read_text())
    assert whole["rows"][1]["training"] == {stage: [facts] for stage, facts in told.items()}
    assert told.keys() == {"encoder", "refiner"}
    first, second = (told[stage]["steps"] for stage in ("encoder", "refiner"))
    assert f"w/ AFA: trained for {first} steps (encoder) + {second} steps (refiner)." in page
    assert "## R77: " in (tmp_path / "claims.md").read_text()

    def refuse(*args: object) -> None:
        raise AssertionError("all rows are there")

    monkeypatch.setattr(Inverter, "invert", refuse)
    make_tables(config)
    assert json.loads((tmp_path / "table3.json").read_text()) == whole


def forget_features(folder: Path) -> None:
    """Delete what is not kept in git."""
    for path in {*folder.glob("*.features"), *folder.glob("images.*")}:
        path.unlink()


def test_what_was_measured_needs_no_weights(tmp_path: Path, overrides: list[str]) -> None:
    make_tables(configured(overrides, tmp_path, "table=3"))
    whole = json.loads((tmp_path / "table3.json").read_text())
    folder = tmp_path / "measured" / "tiny-seed0" / "input_view"
    forget_features(folder)
    elsewhere = configured(overrides, tmp_path, "table=3", "runs=nowhere")
    make_tables(elsewhere)
    assert json.loads((tmp_path / "table3.json").read_text()) == whole
    rows = folder / "full.csv"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:-1]))  # the last of six
    with pytest.raises(ValueError, match=r"Table 3 lacks w/ AFA: no nowhere/tiny-seed0/config\.yaml"):
        make_tables(elsewhere)


def test_what_is_all_there_may_come_from_another_device_and_not_from_other_weights(
    tmp_path: Path, overrides: list[str]
) -> None:
    make_tables(configured(overrides, tmp_path, "table=3"))
    whole = json.loads((tmp_path / "table3.json").read_text())
    folder = tmp_path / "measured" / "tiny-seed0" / "input_view"
    forget_features(folder)
    path = folder / "full.settings.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"device": "cuda"}))
    make_tables(configured(overrides, tmp_path, "table=3", "images.input_view=nowhere.zip"))
    found = json.loads((tmp_path / "table3.json").read_text())
    assert found["protocol"]["input_view"].pop("devices") == ["cpu", "cuda"]
    assert whole["protocol"]["input_view"].pop("devices") == ["cpu"] and found == whole
    assert not list(folder.glob("*.features"))  # nothing was measured
    with pytest.raises(ValueError, match=r"with other settings \(metric_resolution: 32 there, 16 now; metrics: "):
        make_tables(configured(overrides, tmp_path, "table=3", "metric_resolution=16", "metrics.grid=8"))
    path.write_text(json.dumps(settings | {"refiner": "of another run"}))
    with pytest.raises(ValueError, match=r"full\.csv was made with other settings \(refiner: 'of another run' there"):
        make_tables(configured(overrides, tmp_path, "table=3"))


def test_other_images_and_networks_are_refused_where_they_are_there(tmp_path: Path, overrides: list[str]) -> None:
    make_tables(configured(overrides, tmp_path, "table=3"))
    whole = (tmp_path / "table3.json").read_bytes()
    write_split(SplitConfig("test", 6, 1, 32), tmp_path / "other.zip", workers=1, progress=lambda done: None)
    trunk = load_file(find_override(overrides, "metrics.lpips_path"))
    save_file({name: tensor + 1 for name, tensor in trunk.items()}, tmp_path / "trunk.safetensors")
    for given, told in (
        (f"images.input_view={tmp_path / 'other.zip'}", r"\(images: "),
        (f"metrics.lpips_path={tmp_path / 'trunk.safetensors'}", r"\(metrics: .*lpips_sha256"),
    ):
        with pytest.raises(ValueError, match=told):
            make_tables(configured(overrides, tmp_path, "table=3", given))
    make_tables(configured(overrides, tmp_path, "table=3", f"metrics.lpips_path={tmp_path / 'nowhere.safetensors'}"))
    assert (tmp_path / "table3.json").read_bytes() == whole


def test_the_first_stage_of_a_shipped_run_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("goae.config.training.SHIPPED_RUNS", str(tmp_path / "shipped"))
    wanted = "runs/mini_ablation-table2-seed0/encoder.safetensors"
    assert run_file(wanted) == Path(wanted)
    shipped = tmp_path / "shipped" / "mini_ablation-table2-seed0" / "encoder.safetensors"
    shipped.parent.mkdir(parents=True)
    shipped.touch()
    assert run_file(wanted) == shipped
    config = composed_as(TrainConfig, "experiment=mini", "stage=refiner", f"paths.encoder={wanted}")
    assert trained(config, "encoder") == shipped


def test_shipped_runs_stand_in(tmp_path: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("goae.config.training.SHIPPED_RUNS", overrides[0].removeprefix("runs="))
    (tmp_path / "runs" / "tiny-seed0" / "input_view").mkdir(parents=True)  # of scripts/eval_celebahq.py
    assert find_run(str(tmp_path / "runs"), "tiny-seed0") == Path(overrides[0].removeprefix("runs=")) / "tiny-seed0"
    make_tables(configured(overrides, tmp_path, "table=3", "runs=nowhere"))
    assert json.loads((tmp_path / "table3.json").read_text())["rows"][1]["runs"] == ["tiny-seed0"]


@pytest.mark.usefixtures("nothing_shipped")
def test_a_missing_row_is_an_error_that_lists_commands(tmp_path: Path, overrides: list[str]) -> None:
    more = ["table=3", "rows.conv=[mini-conv-seed2]"]
    command = r"`python scripts/train\.py experiment=mini afa\.variant=conv seed=2 run=mini-conv-seed2`"
    with pytest.raises(
        ValueError, match=rf"Table 3 lacks w/ conv: no .*refiner\.safetensors: {command}\. .*partial=true"
    ):
        make_tables(configured(overrides, tmp_path, *more))
    assert not list(tmp_path.iterdir())
    make_tables(configured(overrides, tmp_path, *more, "partial=true"))
    whole = json.loads((tmp_path / "table3.json").read_text())
    conv, ours = whole["rows"]
    assert conv["status"] == "not run" and "afa.variant=conv seed=2" in conv["missing"]
    assert all(cell["ours"] is None and cell["paper"] for cell in conv["values"].values())
    assert ours["status"] == "measured" and not whole["differences"]
    assert "w/ conv was not run" in (tmp_path / "table3.md").read_text()


@pytest.mark.usefixtures("nothing_shipped")
def test_every_row_of_table_1_names_its_command(tmp_path: Path, overrides: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        make_tables(configured(overrides, tmp_path, "table=1", "baselines.regressor=none.safetensors"))
    told = str(error.value)
    rivals = ("experiment=mini_long method=psp run=mini_long-psp-seed0", "method=ide3d")
    for part in (*rivals, "train_camera.py experiment=mini_camera"):
        assert part in told
    assert "PTI" not in told and "Ours" not in told.replace("Ours-w+", "Ours")  # their weights are there


def test_meters_are_checked_first(tmp_path: Path, overrides: list[str]) -> None:
    config = configured(overrides, tmp_path, "table=3", "records=none.json")
    with pytest.raises(ValueError, match=r"meters: none\.json does not exist: `python scripts/check_meters\.py`"):
        make_tables(config)


def test_claims_need_a_table(tmp_path: Path, overrides: list[str]) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no table1\.json"):
        make_tables(configured(overrides, tmp_path, "claims=true"))


@pytest.mark.parametrize("world", ["mini", "full"])
def test_every_row_has_runs_in_every_world(world: str) -> None:
    config = composed_as(TablesConfig, f"world={world}", "table=1", name="tables")
    assert config.folder == Path("docs/results") / world
    assert config.baselines.pti.pivot.steps == 450
    for sources in tables.SOURCES.values():
        assert all(tables.runs_of(config, source) for source in sources.values())


@pytest.mark.parametrize(("override", "named"), [("table=4", "table is 4"), ("table=0", "give table=1, 2 or 3")])
def test_wrong_choices_are_named(override: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        composed_as(TablesConfig, override, name="tables")


def test_distances_of_another_subset_are_missed() -> None:
    cells = {"MSE": {"ours": 1.0}, "FID60": {"ours": None}, "Time": {"ours": None}}
    with pytest.raises(ValueError, match=r"Ours has no FID60 of the inputs that all methods share: .*subset\."):
        check_subset({"subset_rows": [{"method": "Ours", "values": cells}]})
    check_subset({"subset_rows": [{"method": "Ours", "values": cells | {"FID60": {"ours": 2.0}}}]})
