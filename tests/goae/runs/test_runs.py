"""Whole jobs on tiny runs: train, be killed, resume, evaluate, report, invert; and the messages when they cannot."""

import json
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from composing import composed_as
from eg3d.cameras import canonical_label
from eg3d.integrity import SUMS, verify
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import tiny_generator

from goae import build
from goae.camera.level import level_label
from goae.config import EvaluateConfig, InvertConfig, PriorConfig, TrainConfig, load_run
from goae.data.datasets import PosedImages
from goae.data.labels import read_cameras
from goae.editing.directions import EditConfig
from goae.evaluation.table_notes import trained_note
from goae.evaluation.validation import Validation
from goae.extractors import lpips
from goae.inversion import Inversion
from goae.runs.canonical import canonical_stats
from goae.runs.evaluate import build_metrics, evaluate
from goae.runs.invert import find_images, invert, open_inverter
from goae.runs.prior import train_prior
from goae.runs.report import report
from goae.runs.setup import check_cuda, check_splits, device_of, launch, run_encoder, run_inverter
from goae.runs.setup import trained as trained_file
from goae.runs.ship_run import ship_run
from goae.runs.sources import claim_sources
from goae.runs.train import build_parts, train
from goae.runs.training_facts import training_of
from goae.training import checkpoint
from goae.training.encoder_stage import EncoderStage
from goae.training.loop import FitConfig
from goae.training.nonfinite import NonFiniteLossError
from goae.training.phases import Batch, Draw
from goae.training.tracking import read_metrics
from goae.viz.grid import to_uint8
from scripts import run_script

ROOT = Path(__file__).parents[3]
ONE_PROCESS = {"is_global_zero": True, "barrier": lambda: None}  # what starting a run asks of Fabric


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> dict[str, str]:
    """A folder with a tiny warm-started generator, its statistics, and a random perceptual trunk."""
    folder = tmp_path_factory.mktemp("world")
    torch.manual_seed(0)
    trunk = {n: t for n, t in lpips.build("alex").state_dict().items() if n.startswith("net.")}
    save_file({n: t.contiguous() for n, t in trunk.items()}, folder / "trunk.safetensors")
    prior = composed_as(
        PriorConfig,
        "experiment=tiny_prior",
        "run=prior",
        "stage=warm_start",
        f"paths.runs={folder}",
        f"data.train={tiny_data}",
        f"data.validation={tiny_data}",
        name="train_prior",
    )
    generator = train_prior(prior)
    world = {
        "folder": str(folder),
        "generator": str(generator),
        "data": str(tiny_data),
        "trunk": str(folder / "trunk.safetensors"),
    }
    canonical_stats(tiny(world))
    return world


def tiny(world: dict[str, str], *overrides: str) -> TrainConfig:
    return composed_as(
        TrainConfig,
        "experiment=tiny",
        "generator.z_dim=64",
        f"paths.runs={world['folder']}",
        f"paths.generator={world['generator']}",
        f"data.train={world['data']}",
        f"data.validation={world['data']}",
        f"data.test={world['data']}",
        *overrides,
    )


def numbers(config: TrainConfig) -> dict[str, dict[str, torch.Tensor]]:
    return {name: load_file(config.run_dir / f"{name}.safetensors") for name in ("encoder", "refiner")}


def equal(a: dict[str, dict[str, torch.Tensor]], b: dict[str, dict[str, torch.Tensor]]) -> bool:
    return all(torch.equal(a[part][n], b[part][n]) for part in a for n in a[part])


@pytest.fixture(scope="session")
def trained(world: dict[str, str]) -> TrainConfig:
    config = tiny(world, "run=whole")
    train(config)
    return config


def test_training_leaves_weights_metrics_and_pictures(trained: TrainConfig) -> None:
    for stage, term in (("encoder", "e/l2"), ("refiner", "afa/l2")):
        rows = read_metrics(trained.run_dir, stage)
        assert any(term in row for row in rows) and any("val/mse" in row for row in rows)
        assert (trained.run_dir / f"{stage}.safetensors").exists()
        assert (trained.run_dir / f"{stage}-best.safetensors").exists()
        assert (trained.run_dir / "images" / f"{stage}-000000004.png").exists()
    noted = {s: set(json.loads((trained.run_dir / f"{s}.sources.json").read_text())) for s in ("encoder", "refiner")}
    assert noted["encoder"] == {"generator", "canonical statistics"}
    assert noted["refiner"] == {"generator", "encoder", "canonical statistics"}


def test_validation_of_stage_one_is_at_the_level_that_is_trained(
    world: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """The curve is that of the base code alone; there is no best encoder and a warning until all rows are trained."""
    given = ["run=levels", "stage=encoder", "stages.encoder.stage_steps=[5,6,7]"]
    short = tiny(world, *given, "stages.encoder.fit.steps=2")
    train(short)
    assert "ends at step 2 with 1 of 8 rows of ws trained" in caplog.text
    assert not (short.run_dir / "encoder-best.safetensors").exists()
    inverter = run_encoder(short).goae
    images = PosedImages(world["data"], 32)
    samples = [images[i] for i in range(short.validation.num_images)]
    validation = Validation(inverter, samples, None, resolution=32, batch_size=2, refine=False)
    logged = read_metrics(short.run_dir, "encoder")[-1]["val/mse"]
    assert logged == pytest.approx(validation(inverter.encoder, level=0)["mse"], rel=1e-5)
    assert logged != pytest.approx(validation(inverter.encoder)["mse"], rel=1e-3)
    caplog.clear()
    train(tiny(world, *given, "stages.encoder.fit.steps=9"))
    assert "rows of ws trained" not in caplog.text and (short.run_dir / "encoder-best.safetensors").exists()


def test_renders_are_clamped_before_they_are_averaged(world: dict[str, str]) -> None:
    """As in the protocols: of the pixels 3, -1, -1, -1 the first is shown as 1, so that their mean is -0.5, not 0."""
    trunk = ("perception.lpips=alex", f"perception.lpips_path={world['trunk']}")
    measure = build_metrics(EvaluateConfig("whole", world["folder"]), tiny(world, *trunk))
    image = -torch.ones(1, 3, 64, 64)
    image[..., ::2, ::2] = 3.0
    assert float(measure(image, torch.zeros(1, 3, 64, 64))["mse"]) == pytest.approx(0.25)


def test_a_complete_run_says_so(trained: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    before = (trained.run_dir / "refiner.safetensors").stat().st_mtime_ns
    train(trained)
    assert "training is complete" in capsys.readouterr().out
    assert (trained.run_dir / "refiner.safetensors").stat().st_mtime_ns == before


def test_killed_at_any_time_the_same_command_ends_with_the_same_weights(
    world: dict[str, str], trained: TrainConfig
) -> None:
    """Ctrl-C when a stage's first checkpoint appears, SIGKILL a little later, then left alone."""
    command = [sys.executable, str(ROOT / "scripts/train.py"), "experiment=tiny", "generator.z_dim=64", "run=killed"]
    command += [f"paths.runs={world['folder']}", f"paths.generator={world['generator']}"]
    command += [f"data.{split}={world['data']}" for split in ("train", "validation", "test")]
    folder = Path(world["folder"]) / "killed" / "checkpoints"
    for awaited, how in (("encoder/step-000000002.pt", signal.SIGINT), ("refiner/step-000000002.pt", signal.SIGKILL)):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 200
        while not (folder / awaited).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(how)
        told = process.communicate()[1]
        assert (folder / awaited).exists()
        if how == signal.SIGINT and process.returncode:  # it had not come to its end before
            assert process.returncode == 130 and told.startswith(f"stopped: {folder} keeps step "), told
            assert told.endswith("; the same command goes on from there.\n") and told.count("\n") == 1
    assert run_script("train", *command[2:]) == 0
    assert equal(numbers(tiny(world, "run=killed")), numbers(trained))


def test_a_run_whose_last_checkpoint_is_damaged_is_not_finished(
    world: dict[str, str], trained: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    """It goes on from the checkpoint before it, to the very same weights."""
    shutil.copytree(trained.run_dir, Path(world["folder"]) / "rotten")
    config = tiny(world, "run=rotten")
    for stage in ("encoder", "refiner"):
        last = sorted((config.run_dir / "checkpoints" / stage).iterdir())[-1]
        last.write_bytes(last.read_bytes()[:-1000])
        assert checkpoint.step_of(last) == getattr(config.stages, stage).fit.steps
    train(config)
    assert "training is complete" not in capsys.readouterr().out and equal(numbers(config), numbers(trained))
    train(config)
    assert "training is complete" in capsys.readouterr().out


def test_stages_can_be_run_one_after_the_other(world: dict[str, str], trained: TrainConfig) -> None:
    with pytest.raises(FileNotFoundError, match="stage `encoder` of this run has not finished"):
        train(tiny(world, "run=apart", "stage=refiner"))
    train(tiny(world, "run=apart", "stage=encoder"))
    train(tiny(world, "run=apart", "stage=refiner"))
    assert equal(numbers(tiny(world, "run=apart")), numbers(trained))


def test_a_run_that_met_a_nan_goes_on_with_a_lower_rate_and_its_tables_say_so(
    world: dict[str, str], trained: TrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Up to the checkpoint before it, it is the uninterrupted run; the record is run again in between."""
    losses, rate = EncoderStage._encoder_losses, trained.stages.encoder.optimizer.lr

    def poisoned(stage: EncoderStage, batch: Batch, draw: Draw) -> dict[str, torch.Tensor]:
        terms = losses(stage, batch, draw)
        bad = draw.step == 3 and stage.config.optimizer.lr == rate
        return terms | {"l2": terms["l2"] * (float("nan") if bad else 1.0)}

    monkeypatch.setattr(EncoderStage, "_encoder_losses", poisoned)
    with pytest.raises(NonFiniteLossError, match="'l2' of phase 'e' is nan at step 3"):
        train(tiny(world, "run=met"))
    folder = Path(world["folder"]) / "met"
    record = folder / "failures/encoder-step-000000003"
    assert run_script("replay", record) == 0
    told = capsys.readouterr().out
    assert "recorded: The term 'l2' of phase 'e' is nan at step 3; trained from step 2" in told and ".png" in told

    config = tiny(world, "run=met", f"stages.encoder.optimizer.lr={rate / 2}", "stages.encoder.fit.skip_nonfinite=3")
    train(config)
    for name, same in (("step-000000002.pt", True), ("step-000000004.pt", False)):
        states = [torch.load(run / "checkpoints/encoder" / name)["modules"] for run in (folder, trained.run_dir)]
        assert equal(*states) is same
    assert run_script("replay", record) == 0  # by the rate of then
    found = training_of(folder, Path(world["folder"]) / "met.json")
    changes = [{key: change[key] for key in ("key", "step", "after")} for change in found["encoder"]["changes"]]
    assert changes == [
        {"key": "stages.encoder.fit.skip_nonfinite", "step": 2, "after": 3},
        {"key": "stages.encoder.optimizer.lr", "step": 2, "after": rate / 2},
    ]
    assert "changes" not in found["refiner"]  # it began with them
    assert f"stages.encoder.optimizer.lr from {rate} to {rate / 2} at step 2" in trained_note(
        "encoder", [found["encoder"]]
    )


def test_bf16_trains(world: dict[str, str]) -> None:
    config = tiny(world, "run=bf16", "precision=bf16-mixed", "stages.encoder.fit.steps=2", "stage=encoder")
    train(config)
    assert all(torch.isfinite(t.float()).all() for t in load_file(config.run_dir / "encoder.safetensors").values())


def perceptive(trained: TrainConfig, world: dict[str, str]) -> None:
    """Give the trained run a perceptual network for its metrics."""
    path = trained.run_dir / "config.yaml"
    text = (
        path.read_text()
        .replace("lpips: none", "lpips: alex")
        .replace("lpips_path: ''", f"lpips_path: {world['trunk']}")
    )
    path.write_text(text)


def test_evaluation_report_and_inversion(
    world: dict[str, str], trained: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from goae import build

    original = (trained.run_dir / "config.yaml").read_text()
    perceptive(trained, world)
    monkeypatch.setattr(
        build, "build_identity", lambda name, path, device: lambda x: torch.nn.functional.normalize(x.flatten(1), dim=1)
    )
    config = EvaluateConfig(run="whole", runs=world["folder"], batch_size=5, timing_images=2, identity="mini")
    summary = json.loads(evaluate(config).read_text())
    rows = (trained.run_dir / "evaluation" / "full.csv").read_text().splitlines()
    assert len(rows) == 13  # 12 images, nothing lost to the batch size of 5
    for values in summary["methods"].values():
        assert values["num_images"] == 12 and values["seconds"] > 0
        mean = np.mean([10 * np.log10(4 / values["mse"])])
        assert values["psnr"] >= mean - 1e-6  # Jensen
    before = (trained.run_dir / "evaluation" / "summary.json").stat().st_mtime_ns
    assert evaluate(config).stat().st_mtime_ns == before  # nothing changed, so nothing is measured again
    config.shipped = str(trained.run_dir)  # its own weights again, so that their numbers are known
    beside = json.loads(evaluate(config).read_text())["methods"]
    for name in ("w_plus", "full"):
        assert {**beside[f"shipped_{name}"], "seconds": 0} == {**beside[name], "seconds": 0}
    page = report(config).read_text()
    assert (
        "full, shipped weights" in page
        and page.count("data:image/png;base64,") == 5
        and "http" not in page.replace("http-equiv", "")
    )
    (trained.run_dir / "config.yaml").write_text(original)

    photos = trained.run_dir / "photos"
    photos.mkdir()
    images = PosedImages(world["data"], 32)
    labels = []
    for i in range(2):
        pixels = ((images[i]["image"] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(photos / f"{i}.png")
        labels.append([f"{i}.png", images[i]["c"].tolist()])
    (photos / "dataset.json").write_text(json.dumps({"labels": labels}))
    np.save(photos / "n.npy", np.ones(32, np.float32))
    out = invert(
        InvertConfig(
            input=str(photos),
            camera=str(photos / "dataset.json"),
            output=str(trained.run_dir / "out"),
            run="whole",
            runs=world["folder"],
            edits=[EditConfig("Other", str(photos / "n.npy"), 2.0)],
        )
    )
    for i in range(2):
        assert {p.name for p in (out / str(i)).iterdir()} == {
            "reconstruction.png",
            "views.png",
            "depth.png",
            "edit-Other.png",
            "inversion.safetensors",
            "made_from.json",
        }
    inverter = run_inverter(trained)
    loaded = Inversion.load(out / "0" / "inversion.safetensors", inverter)
    pixels = np.array(Image.open(out / "0" / "reconstruction.png"))
    shown = ((inverter.reconstruct(loaded).image[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(pixels, shown)
    edited = inverter.edit(loaded, 2 * torch.ones(8, 32))
    first = np.array(Image.open(out / "0" / "edit-Other.png"))[:32, :32]
    assert np.array_equal(first, to_uint8(inverter.reconstruct(edited).image[0])) and not np.array_equal(first, pixels)


def test_a_run_is_measured_and_read_where_it_lies(
    world: dict[str, str], trained: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "elsewhere" / "moved"
    shutil.copytree(trained.run_dir, moved)
    halved = {n: t / 2 for n, t in load_file(moved / "refiner.safetensors").items()}
    save_file(halved, moved / "refiner.safetensors")
    run = load_run(moved, TrainConfig)
    assert run.run_dir == moved and trained_file(run, "refiner") == moved / "refiner.safetensors"
    monkeypatch.setattr("goae.config.training.SHIPPED_RUNS", str(tmp_path / "elsewhere"))
    config = EvaluateConfig(run="moved", runs=str(tmp_path / "runs"))
    assert config.run_dir == moved and config.folder == tmp_path / "runs" / "moved"


def test_the_device_and_the_preset_are_those_asked_for(world: dict[str, str], trained: TrainConfig) -> None:
    given = {"input": "photo.png", "camera": "labels.json", "run": "whole", "runs": world["folder"], "device": "cpu"}
    own, other = (open_inverter(InvertConfig(**given, preset_name=name)) for name in ("", "official"))
    assert own.goae.config == run_inverter(trained).goae.config != other.goae.config
    assert other.goae.config.mix.planes == "xy"


def test_missing_shipped_weights_are_named(world: dict[str, str], trained: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"encoder\.safetensors does not exist: shipped="):
        evaluate(EvaluateConfig(run="whole", runs=world["folder"], shipped=str(tmp_path)))


def test_a_shipped_run_is_a_run_of_half_the_size(world: dict[str, str], trained: TrainConfig, tmp_path: Path) -> None:
    files = ship_run(trained.run_dir, tmp_path / "small")
    names = {
        "config.yaml",
        SUMS,
        *(f"{stage}.{end}" for stage in ("encoder", "refiner") for end in ("safetensors", "jsonl")),
    }
    assert {path.name for path in files} == names
    for stage in ("encoder", "refiner"):
        sizes = [(folder / f"{stage}.safetensors").stat().st_size for folder in (tmp_path / "small", trained.run_dir)]
        assert sizes[0] < 0.7 * sizes[1]
        assert verify(tmp_path / "small" / f"{stage}.safetensors") and verify(tmp_path / "small" / f"{stage}.json")
    small = load_run(tmp_path / "small", TrainConfig)
    assert small.run_dir == tmp_path / "small"
    images = PosedImages(world["data"], 32)
    image, c = images[0]["image"][None], images[0]["c"][None]
    own, other = (run_inverter(config).invert(image, c) for config in (trained, small))
    torch.testing.assert_close(other.ws, own.ws, atol=2e-2, rtol=2e-2)
    assert not torch.equal(other.ws, own.ws)
    with pytest.raises(FileExistsError, match=r"config\.yaml exists"):
        ship_run(trained.run_dir, tmp_path / "small")
    ship_run(trained.run_dir, tmp_path / "small", force=True)
    with pytest.raises(FileNotFoundError, match="is no run folder"):
        ship_run(tmp_path / "none", tmp_path / "other")


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """stderr of a training that must fail with one paragraph and exit code 1."""
    capsys.readouterr()
    assert run_script("train", *arguments) == 1
    return capsys.readouterr().err


def test_messages_are_one_paragraph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = failing(capsys, "experiment=tiny", f"paths.runs={tmp_path}", "paths.generator=missing.pkl")
    assert text.startswith("error: ") and "Traceback" not in text and "missing.pkl" in text
    text = failing(capsys, "experiment=tiny", f"paths.runs={tmp_path}", "stages.encoder.fit.stepz=3")
    assert "stepz" in text and "Traceback" not in text


@pytest.mark.parametrize("method", ["goae", "ide3d"])
def test_all_missing_files_are_named_before_any_is_read(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("goae.runs.train.launch", lambda *_, **__: pytest.fail("launched"))
    given = f"method={method}", f"paths.runs={tmp_path}", "data.train=none"
    config = composed_as(TrainConfig, "experiment=ffhq", *given)
    with pytest.raises(FileNotFoundError) as caught:
        train(config)
    told = ["data.train: none", "ffhqrebalanced512-128 --accept-licence", "perception.lpips", "perception.identity"]
    told += {"goae": ["swin --accept-licence", "canonical_stats.py experiment=ffhq"], "ide3d": ["rival.parts"]}[method]
    assert all(text in str(caught.value) for text in told)
    assert not list(tmp_path.iterdir())


def test_processes_that_take_themselves_for_the_only_one_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = composed_as(TrainConfig, "experiment=tiny", "device=cpu")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"2 processes were started.* num_devices is 1; give num_devices=2"):
        launch(config)


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = composed_as(TrainConfig, "experiment=tiny", "device=cuda")
    for start in (launch, device_of):
        with pytest.raises(ValueError, match="finds no GPU"):
            start(config)


@pytest.mark.parametrize(
    ("device", "num_devices", "told"),
    [
        ("cuda:2", 1, r"device is cuda:2 .* finds 2 GPUs, cuda:0 to cuda:1"),
        ("cuda:1", 2, r"device is cuda:1 and num_devices 2.*CUDA_VISIBLE_DEVICES"),
        *(("cuda", 3, "num_devices is 3, but PyTorch finds 2 GPUs"), ("auto", 3, "give num_devices=2, or device=cpu")),
        *(("cuda:1", 1, ""), ("cuda", 2, ""), ("cpu", 3, ""), ("auto", 2, "")),
    ],
)
def test_a_gpu_that_is_not_there_is_named(
    device: str, num_devices: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=told) if told else nullcontext():
        check_cuda(device, num_devices)


@pytest.mark.parametrize("device", ["foo", "cuda:", "cuda:x", "CPU", "cuda:-1"])
def test_a_device_of_no_such_name_is_refused_while_composing(device: str) -> None:
    for schema, name, given in ((TrainConfig, "train", []), (InvertConfig, "invert", ["input=a", "camera=b", "run=c"])):
        with pytest.raises(ValueError, match=r"expected one of auto, cpu, cuda, or cuda:N"):
            composed_as(schema, f"device={device}", *given, name=name)


def test_wandb_without_a_login_stops_before_anything_is_built(
    world: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("goae.runs.train.build_parts", lambda *given: pytest.fail("built"))
    monkeypatch.setattr("wandb.login", lambda: False)  # as where no key is given
    config = tiny(world, "run=told", "logging.wandb=online")
    with pytest.raises(ValueError, match=r"wandb cannot be started .*run `wandb login` once"):
        train(config)
    assert not config.run_dir.exists()


def test_batches_that_processes_cannot_share_are_named_before_training() -> None:
    fits = {"encoder": FitConfig(batch_size=12, micro_batch=3), "refiner": FitConfig(batch_size=2)}
    check_splits(fits, 1)
    with pytest.raises(ValueError, match=r"stage `refiner`: 1 micro-batches.*4 processes"):
        check_splits(fits, 4)


def test_a_stage_goes_on_from_what_it_was_begun_on(tmp_path: Path) -> None:
    claim_sources(tmp_path, "refiner", {"generator": "a" * 64, "encoder": "b" * 64})
    claim_sources(tmp_path, "refiner", {"generator": "a" * 64, "encoder": "c" * 64})  # nothing was trained
    (tmp_path / "checkpoints" / "refiner").mkdir(parents=True)
    (tmp_path / "checkpoints" / "refiner" / "step-000000002.pt").touch()
    claim_sources(tmp_path, "refiner", {"generator": "a" * 64, "encoder": "c" * 64})
    with pytest.raises(ValueError, match=r"begun on other weights \(encoder: c{12} then, b{12} now\)\. .* run=NAME"):
        claim_sources(tmp_path, "refiner", {"generator": "a" * 64, "encoder": "b" * 64})
    known = {"generator": "a" * 64, "encoder": "c" * 64}
    claim_sources(tmp_path, "refiner", known | {"canonical statistics": "d" * 64})  # was not noted then
    with pytest.raises(ValueError, match=r"encoder: c{12} then, none now"):
        claim_sources(tmp_path, "refiner", {"generator": "a" * 64})


def test_stage_1_is_not_trained_further_below_a_stage_2(world: dict[str, str], trained: TrainConfig) -> None:
    longer = tiny(world, "run=whole", f"stages.encoder.fit.steps={trained.stages.encoder.fit.steps + 1}")
    with pytest.raises(ValueError, match=r"stage 1 of .* is to be trained further, .* delete checkpoints/refiner"):
        train(longer)


def test_a_stage_to_come_is_checked_before_the_first(
    world: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(world, f"paths.runs={tmp_path}", "stages.refiner.fit.micro_batch=4")
    monkeypatch.setattr("goae.runs.train.launch", lambda *_, **__: SimpleNamespace(world_size=2, **ONE_PROCESS))
    with pytest.raises(ValueError, match="stage `refiner`: 1 micro-batches"):
        train(config)


def test_an_unwritable_run_folder_is_named(world: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        train(tiny(world, f"paths.runs={tmp_path / 'file'}"))


def test_a_generator_of_other_sizes_is_refused(world: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not the generator that the configuration describes.*plane_resolution 32"):
        train(tiny(world, f"paths.runs={tmp_path}", "generator=mini", "run=other"))


def test_images_of_another_size_than_the_generators_are_refused(world: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"data.resolution is 64, but the generator renders 32x32: give data.reso"):
        build_parts(tiny(world, "data.resolution=64"), ["encoder"], torch.device("cpu"))


def test_statistics_of_another_generator_are_refused(world: dict[str, str], tmp_path: Path) -> None:
    stats = Path(world["generator"]).with_name("warm_start-canonical.safetensors")
    with pytest.raises(ValueError, match="were made for a generator with hash"):
        train(tiny(world, f"paths.runs={tmp_path}", "paths.generator=random", f"paths.canonical_stats={stats}"))


def test_other_statistics_are_not_written_over(world: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny(world)
    path = build.stats_path(config)
    before = path.read_bytes()
    assert canonical_stats(config) == path and "is complete" in capsys.readouterr().out
    config.canonical.num_samples += 1
    with pytest.raises(ValueError, match=r"is there already, over 6 samples, not 7\. Name another file"):
        canonical_stats(config)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("camera", "error", "named"),
    [
        ("1,2,3", ValueError, "25"),
        ("nowhere.json", FileNotFoundError, "neither a file nor 25 numbers"),
        (",".join(["0"] * 25), ValueError, "radius|rotation|row"),
    ],
)
def test_wrong_cameras_are_named(camera: str, error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        read_cameras(camera, ["a.png"])


@pytest.mark.parametrize("content", [b'{"labels": null}', b"[1, 2]", b"no JSON", b"\x89PNG"])
def test_a_file_that_holds_no_labels_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"dataset\.json (has no list|cannot be read as JSON).*NAME"):
        read_cameras(str(path), ["a.png"])


def test_numbers_of_any_length_are_a_camera() -> None:
    """Written out in full they are longer than a file name may be."""
    c = level_label(tiny_generator(), 7.123456789, canonical_label())[0]
    text = ",".join(f"{number:.20f}" for number in c.tolist())
    assert len(text) > 255 and torch.equal(read_cameras(text, ["a.png"])[0], c)


def test_numbers_may_be_a_list_or_a_quoted_text() -> None:
    c = level_label(tiny_generator(), 14.0, canonical_label())[0]
    text = ",".join(map(str, c.tolist()))
    for given in (f"camera=[{text}]", f'camera="{text}"'):
        made = composed_as(InvertConfig, "input=a.png", "run=any", given, name="invert")
        assert torch.equal(read_cameras(made.camera, ["a.png"])[0], c)


def test_images_of_data_sets_are_found_with_their_cameras(tmp_path: Path, tiny_data: Path) -> None:
    images = PosedImages(tiny_data, 32)
    with zipfile.ZipFile(tiny_data) as archive:
        archive.extractall(tmp_path)
    for path in (tiny_data, tmp_path):
        pictures = find_images(path)
        assert [picture.name for picture in pictures] == images.names
        assert pictures[0].open().size == (32, 32)
        assert torch.equal(torch.stack(read_cameras(str(path), images.names)), images.labels)
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no dataset\.json in"):
        read_cameras(str(tmp_path), images.names)
    with pytest.raises(FileNotFoundError, match="neither an image nor a folder or zip"):
        find_images(tmp_path / "none")


def test_labels_of_other_folders_are_not_mixed_up(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    first, second = (level_label(tiny_generator(), yaw, canonical_label()).flatten().tolist() for yaw in (0.0, 28.0))
    path.write_text(json.dumps({"labels": [["front/1.png", first], ["left/1.jpg", second]]}))
    found = read_cameras(str(path), ["left/1.jpg", "front/1.png"])
    assert torch.equal(torch.stack(found), torch.tensor([second, first]))
    with pytest.raises(ValueError, match=r"several labels of files that are called as 1\.png, left/1\.png"):
        read_cameras(str(path), ["1.png", "left/1.png", "front/1.png"])
    path.write_text(json.dumps({"labels": [["front/1.png", first]]}))
    assert torch.equal(read_cameras(str(path), ["1.jpg"])[0], torch.tensor(first))


def test_labels_are_matched_by_name(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"labels": [["b.png", [0.0] * 24]]}))
    with pytest.raises(ValueError, match=r"a\.png has no label .* e\.g\. b\.png"):
        read_cameras(str(path), ["a.png"])
    with pytest.raises(ValueError, match=r"label of b\.png .* has 24 numbers"):
        read_cameras(str(path), ["b.png"])
