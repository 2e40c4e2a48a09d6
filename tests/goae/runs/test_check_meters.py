"""Meters on a few people: what is written, what flags them, what attributes are split at."""

import json
from pathlib import Path

import pytest
import torch
from composing import composed_as
from safetensors.torch import save_file

from goae import build
from goae.config import CheckMetersConfig
from goae.data.heads import ATTRIBUTES
from goae.data.mini import VIEWS, SplitConfig, write_split
from goae.data.people import drawn_attributes, render_people
from goae.evaluation.meters import METERS, is_informative
from goae.extractors import lpips
from goae.extractors.face_resnet import FaceResNetwork
from goae.extractors.mini import MiniPerception
from goae.runs.check_meters import check_meters, split_at


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Three people in all views, six test heads, and networks with random weights."""
    folder = tmp_path_factory.mktemp("meters")
    for split, num in (("multiview", 3 * VIEWS), ("test", 6)):
        write_split(SplitConfig(split, num, 0, 64), folder / f"{split}.zip", workers=1, progress=lambda done: None)
    torch.manual_seed(0)
    for name in ("alex", "vgg"):
        state = {n: t.contiguous() for n, t in lpips.build(name).state_dict().items() if n.startswith("net.")}
        save_file(state, folder / f"{name}.safetensors")
    save_file(FaceResNetwork().state_dict(), folder / "face_resnet.safetensors")
    return {path.stem: str(path) for path in folder.iterdir()}


def checked(files: dict[str, str], metrics: Path, *more: str) -> CheckMetersConfig:
    given = [f"{name}={files[name]}" for name in ("multiview", "test")]
    given += [f"lpips_path={files['alex']}", f"vgg_path={files['vgg']}", f"face_resnet_path={files['face_resnet']}"]
    small = ["resamples=20", "batch_size=16", "device=cpu", f"metrics={metrics}"]
    return composed_as(CheckMetersConfig, *given, *small, *more, name="check_meters")


def test_every_meter_and_the_network_are_measured(files: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text('{"prior": {"fd": 1.0}, "meters": {"lpips": {"auc": 7.0}}}')
    assert check_meters(checked(files, path)) == path
    found = json.loads(path.read_text())
    assert found["prior"] == {"fd": 1.0} and set(found["meters"]) == set(METERS)
    for record in found["meters"].values():
        assert record["pairs"] == 3 * 5 * 10 and record["people"] == 3
        assert 0 <= record["auc_interval"][0] <= record["auc"] <= record["auc_interval"][1] <= 1
        assert record["informative"] == (record["auc"] >= 0.8)
    assert is_informative(found, "identity")  # the shipped network, also on these three
    seen = found["perception"]
    assert seen["identity_auc"] == found["meters"]["identity"]["auc"]
    assert seen["identity_independent_auc"] == found["meters"]["identity_independent"]["auc"]
    # loose bounds on six heads of what the network's card says of 750 pictures: depth 0.046, background IoU 0.98
    assert seen["mask_iou"] > 0.9 and 0.02 < seen["depth_error"] < 0.09 and seen["num_images"] == 6
    assert seen["attribute_accuracy"] > 0.6 and set(seen["attribute_accuracies"]) == set(ATTRIBUTES)


def test_batches_do_not_matter(files: dict[str, str], tmp_path: Path) -> None:
    one, other = tmp_path / "a.json", tmp_path / "b.json"
    for path, batch_size in ((one, 75), (other, 4)):
        check_meters(checked(files, path, "meters=[identity,lpips]", f"batch_size={batch_size}"))
    first, second = (json.loads(p.read_text()) for p in (one, other))
    assert set(first["meters"]) == {"identity", "lpips"}
    for name in ("mask_iou", "depth_error", "attribute_accuracy"):
        assert first["perception"][name] == pytest.approx(second["perception"][name], rel=1e-5)
    for name, record in first["meters"].items():  # rounding may swap two of 22,500 pairs of distances
        assert record["auc"] == pytest.approx(second["meters"][name]["auc"], abs=1e-3)


def test_attributes_are_split_where_training_standardised_them() -> None:
    drawn = drawn_attributes(2, 2, 5)
    assert torch.equal(drawn, render_people(0, 2, 2, 5).attributes)
    card = MiniPerception().card | {"training": {"people": 2, "views": 2, "seed": 5}}
    split, mean, std = split_at(card)
    assert torch.equal(mean, drawn.mean(0)) and torch.equal(std, drawn.std(0).clamp(min=1e-6))
    for i, name in enumerate(ATTRIBUTES):
        assert float(split[i]) == (0.5 if name in ("glasses", "beard") else float(mean[i]))


def test_wrong_settings_are_named(files: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"meters has colour; expected names out of lpips, identity"):
        checked(files, tmp_path / "m.json", "meters=[colour]")
    with pytest.raises(ValueError, match="device is 'tpu'"):
        checked(files, tmp_path / "m.json", "device=tpu")
    missing = checked(files, tmp_path / "m.json", "meters=[fd_vgg]", "vgg_path=none.safetensors")
    with pytest.raises(FileNotFoundError, match=r"fetch_weights\.py vgg"):
        build.build_between("fd_vgg", missing, torch.zeros(1, 3, 64, 64))
