"""Training a generator on tiny runs: both stages, exact resume, any number of processes, a start from nothing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from composing import composed_as
from eg3d import checkpoint as eg3d_checkpoint
from PIL import Image

from goae.config import PriorConfig, PriorMetricsConfig
from goae.data.datasets import PosedImages
from goae.data.mini import SplitConfig, write_split
from goae.runs.prior import train_prior
from goae.runs.prior_metrics import images_seen, prior_metrics
from goae.training import checkpoint
from goae.training.tracking import read_metrics

ROOT = Path(__file__).parents[3]


def overrides(folder: Path, data: Path, *more: str) -> list[str]:
    paths = [f"paths.runs={folder}", f"data.train={data}", f"data.validation={data}"]
    return ["experiment=tiny_prior", *paths, *more]


def train(folder: Path, data: Path, *more: str) -> Path:
    return train_prior(composed_as(PriorConfig, *overrides(folder, data, *more), name="train_prior"))


def state(run: Path) -> dict[str, torch.Tensor]:
    """All tensors of the last checkpoint of the adversarial stage."""
    path = checkpoint.newest(run / "checkpoints" / "adversarial")
    assert path is not None
    return flatten(checkpoint.load(path, torch.device("cpu")))


def flatten(value: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return {prefix: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return {name: tensor for key, inner in items for name, tensor in flatten(inner, f"{prefix}/{key}").items()}


def logged(run: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_metrics(run, "adversarial")]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """The run folder of both stages, trained without a stop."""
    return train(tmp_path_factory.mktemp("prior"), tiny_data, "run=whole").parent


def test_both_stages_leave_weights_metrics_and_pictures(whole: Path) -> None:
    rows = logged(whole)
    terms = {name for row in rows for name in row}
    assert terms >= {"g/adv", "g/l2", "density/density", "d/real", "d/fake", "r1/r1", "val/fd", "val/kid"}
    assert [row["step"] for row in rows if "g/l2" in row] == [1, 2, 3, 4]  # released at step 5
    assert [row["step"] for row in rows if "g/adv" in row] == [2, 3, 4, 5]
    for name in ("warm_start", "adversarial", "adversarial-best"):
        assert eg3d_checkpoint.load(whole / f"{name}.safetensors").config.z_dim == 64
    picture = Image.open(whole / "images" / "adversarial-000000006.png")
    assert picture.size == (6 * 34 - 2, 8 * 34 - 2)


def test_stop_and_resume_equals_uninterrupted(whole: Path, tiny_data: Path, tmp_path: Path) -> None:
    train(tmp_path, tiny_data, "run=parts", "stage=warm_start")
    for steps in (1, 3, 6):
        train(tmp_path, tiny_data, "run=parts", f"adversarial.fit.steps={steps}")
    assert same(state(whole), state(tmp_path / "parts"))
    kept = [row for row in logged(tmp_path / "parts") if row["step"] != 1]  # a last step is also measured
    assert kept == [row for row in logged(whole) if row["step"] != 1]


def test_two_processes_equal_one(whole: Path, tiny_data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(ROOT / "scripts/train_prior.py"), *overrides(tmp_path, tiny_data, "run=two", "num_devices=2")]
    command += ["stage=adversarial", f"paths.generator={whole / 'warm_start.safetensors'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    # two micro-batches: sums of two numbers do not depend on their order
    assert same(state(whole), state(tmp_path / "two"))
    assert logged(whole) == logged(tmp_path / "two")


def test_a_bridge_wants_a_warm_start(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"warm_start\.safetensors does not exist.*stage=warm_start"):
        train(tmp_path, tiny_data, "stage=adversarial")


def test_images_without_factors_are_trained_from_scratch(tiny_data: Path, tmp_path: Path) -> None:
    """A folder of pictures and labels alone."""
    images, folder = PosedImages(tiny_data, 32), tmp_path / "photos"
    folder.mkdir()
    for i, name in enumerate(("a.png", "b.png", "c.png", "d.png")):
        pixels = ((images[i]["image"] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / name)
    labels = [[f"{name}.png", images.labels[i].tolist()] for i, name in enumerate("abcd")]
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    bridge = [f"adversarial.bridge.{name}_steps=0" for name in ("discriminator", "fade", "release")]
    fit = ["stage=adversarial", "data.extras=[]", "adversarial.fit.steps=2", "run=scratch"]
    assert train(tmp_path, folder, *bridge, *fit).exists()
    first = logged(tmp_path / "scratch")[1]
    assert {name for name in first if name.startswith("g/")} == {"g/adv", "g/gradient"}


def compared(weights: Path, images: Path, *more: str) -> Path:
    given = [f"weights={weights}", f"images={images}", "distribution.num_samples=10", "distribution.batch_size=3"]
    return prior_metrics(composed_as(PriorMetricsConfig, *given, *more, name="prior_metrics"))


def test_a_generator_is_compared_with_images(whole: Path, tiny_data: Path) -> None:
    path = compared(whole / "adversarial.safetensors", tiny_data)
    assert path == whole / "adversarial-metrics.json"
    found, last = json.loads(path.read_text()), logged(whole)[-1]
    for name in ("fd", "kid", "fd_floor", "kid_floor"):  # of the same seed, so those of the training's last step
        assert found[name] == pytest.approx(last[f"val/{name}"], rel=1e-9)
    assert (found["num_generated"], found["num_real"], found["num_floor"]) == (10, 12, [6, 6])
    assert found["images_seen"] == 6 * 8
    assert found["note"].startswith("6 images span at most 5 of 64 feature directions")


@pytest.mark.parametrize("num", [1, 3])
def test_too_few_images_are_told_before_any_is_made(
    num: int, whole: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = tmp_path / "few.zip"
    write_split(SplitConfig("val", num, 0, 32), few, workers=1, progress=lambda done: None)
    for part in ("generated_features", "real_features"):
        monkeypatch.setattr(f"goae.runs.prior_metrics.{part}", lambda *given, **more: pytest.fail("made"))
    told = rf"few\.zip has {num} images; distances need at least 4"
    with pytest.raises(ValueError, match=told):
        compared(whole / "adversarial.safetensors", few)
    with pytest.raises(ValueError, match=told):
        warm = f"paths.generator={whole / 'warm_start.safetensors'}"
        train(tmp_path, tiny_data, "stage=adversarial", warm, f"data.validation={few}")


def test_the_numbers_of_the_shipped_generator_are_recorded(whole: Path, tiny_data: Path, tmp_path: Path) -> None:
    """Beside a generator of before, and against real images of another split; what is not given is taken out."""
    weights, warm, records = tmp_path / "generator.safetensors", whole / "warm_start.safetensors", tmp_path / "all.json"
    for end in (".safetensors", ".json"):
        shutil.copy(whole / f"adversarial{end}", weights.with_suffix(end))
    records.write_text('{"prior": {"wplus_psnr": 20.0, "fd_previous": 9.0}, "goae": {}}')
    others = tmp_path / "others.zip"
    write_split(SplitConfig("val", 14, 0, 32), others, workers=1, progress=lambda done: None)
    more = [f"warm_start={warm}", f"floor_images={others}", "images_seen=48", f"metrics={records}"]
    compared(weights, tiny_data, *more)
    prior = json.loads(records.read_text())["prior"]
    measured = {f"{distance}{kind}" for distance in ("fd", "kid") for kind in ("", "_floor", "_warm_start")}
    assert set(prior) == {"wplus_psnr", "images_seen", "compared"} | measured
    alone = json.loads(compared(warm, tiny_data, f"output={tmp_path / 'warm.json'}").read_text())
    first = json.loads(compared(weights, tiny_data, f"output={tmp_path / 'one.json'}").read_text())
    assert (prior["fd_warm_start"], prior["kid_warm_start"]) == (alone["fd"], alone["kid"])
    assert prior["fd"] == first["fd"] != prior["fd_warm_start"] and prior["images_seen"] == 48
    assert (
        prior["compared"] | {"features": "mini", "num_generated": 10, "num_real": 12, "num_floor": [10, 12]}
        == (prior["compared"])
    )
    assert prior["compared"]["warm_start_sha256"] == alone["sha256"]
    assert alone["images_seen"] == 3 * 4 and "images_seen" not in first  # no run folder tells


def test_heads_of_known_factors_are_rendered(whole: Path, tiny_data: Path, tmp_path: Path) -> None:
    """As the warm start's validation does; a generator of before beside it."""
    warm, last = whole / "warm_start.safetensors", read_metrics(whole, "warm_start")[-1]
    more = ["heads=4", f"warm_start={warm}", f"output={tmp_path / 'found.json'}", f"metrics={tmp_path / 'all.json'}"]
    found = json.loads(compared(whole / "adversarial.safetensors", tiny_data, *more).read_text())
    assert found["num_heads"] == 4
    assert found["factors_psnr_warm_start"] == pytest.approx(last["val/psnr"], rel=1e-5)
    assert found["factors_depth_error_warm_start"] == pytest.approx(last["val/depth"], rel=1e-5)
    assert found["factors_psnr"] != found["factors_psnr_warm_start"]
    prior = json.loads((tmp_path / "all.json").read_text())["prior"]
    assert prior["factors_psnr"] == found["factors_psnr"]


def test_images_seen_are_those_of_the_step_that_wrote_the_weights(whole: Path, tmp_path: Path) -> None:
    rows = [row for row in logged(whole) if "val/fd" in row]
    best = min(rows, key=lambda row: row["val/fd"])["step"]
    assert [images_seen(whole / f"adversarial{end}.safetensors") for end in ("", "-best")] == [48, 8 * best]
    shutil.copy(whole / "config.yaml", tmp_path)
    (tmp_path / "adversarial.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:-1]))
    with pytest.raises(ValueError, match=r"adversarial\.jsonl has no val/fd of the step .*images_seen=N"):
        images_seen(tmp_path / "adversarial.safetensors")  # as if it was to go on


def test_metrics_want_both_files() -> None:
    with pytest.raises(ValueError, match="weights and images must be given"):
        composed_as(PriorMetricsConfig, name="prior_metrics")
