"""What is shipped of the mini world stays: files byte for byte, the mask, and what its stored configurations mean."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from composing import composed_as
from eg3d.cameras import canonical_label, join_label, pose_from_angles, split_label
from PIL import Image

from goae import load_inverter
from goae.config import TrainConfig, claim_run, flatten, load_run, to_plain
from goae.inversion import Inverter

ROOT = Path(__file__).parents[3]
DATA = Path(__file__).parents[2] / "data" / "mini"
MINI = ROOT / "goae/assets/mini"
LONG, TABLE_2, TABLE_3 = "mini_long", "mini_ablation-table2", "mini_ablation-table3"
COMMANDS = {  # shipped run -> overrides of train.py that made it
    f"{LONG}-seed0": "experiment=mini_long",
    **{f"{LONG}-{rival}-seed0": f"experiment=mini_long method={rival}" for rival in ("psp", "e4e", "ide3d")},
    **{
        f"{TABLE_2}-adv{adv}-bg{bg}-seed0": f"stages.encoder.adv={adv} stages.encoder.bg={bg} "
        "experiment=mini_ablation sweep=table2"
        for adv in ("0.0", "0.05")
        for bg in ("0.0", "5.0")
    },
    **{
        f"{TABLE_3}-{variant}-mix_xyz-seed0": f"afa.variant={variant} goae.mix.planes=xyz "
        "experiment=mini_ablation sweep=table3"
        for variant in ("paper", "conv")
    },
}
# What a stored configuration means that lacks one of these: what was done before there was a choice. Presets and
# experiments may choose otherwise; where a default has to change, files that lack the key must keep this meaning.
MASK = {
    **{"planes": "xyz", "close": "morph", "sigma": 1.5, "threshold": 0.35, "kernel": None, "oob": "drop"},
    **{"depth_density": 2.0, "depth_resolution": None, "depth_from": "F*", "input_view": "mix"},
}
LOSS = {
    **{"background.loss": "mse", "background.davg": "scalar", "background.erode": 1, "background.every": 1},
    **{"weights.l2": 1.0, "weights.lpips": 0.8, "weights.id": 0.25, "bg": 5.0, "neural_resolution": 0},
    **{"optimizer.gradient_centralization": True, "optimizer.betas": [], "optimizer.weight_decay": 0.0},
    **{"fit.micro_batch": 0, "fit.clip_grad_norm": 0.0, "fit.ema": 0.0, "fit.ema_kimg": 0.0, "fit.ema_ramp": 0.0},
}
MEANT = {
    **{"method": "goae", "precision": "32-true", "training_samples": 0, "renderer_checkpointing": False},
    **{"perception.background": "parser", "perception.background_depth": 3.0, "perception.lpips": "alex"},
    **{"afa.variant": "paper", "afa.residual": "auto", "afa.bn_eval": False, "canonical.erode": 1},
    **{"goae.edit_late_rows": "edited", "goae.edit_glass_comp": 0.0},
    **{f"goae.mix.{key}": value for key, value in MASK.items()},
    **{f"stages.{stage}.{key}": value for stage in ("encoder", "refiner") for key, value in LOSS.items()},
    **{"stages.encoder.adv": 0.05, "stages.encoder.dw": 0.001, "stages.encoder.dw_norm": "norm"},
    **{"stages.encoder.adversary.real_pose": "canonical", "stages.encoder.adversary.rows": "all_active"},
    **{"stages.refiner.df": 0.0001, "stages.refiner.df_norm": "norm"},
}
FLIPS = 1e-3  # share of texels; none was seen to differ with 1 and 2 threads, MKL-DNN on and off


def test_shipped_files_are_byte_for_byte_the_same() -> None:
    """`sha256sum -c tests/data/mini/shipped.sha256` says the same; what comes beside them is free."""
    lines = (DATA / "shipped.sha256").read_text().splitlines()
    wanted = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert sum(name.endswith(".safetensors") for name in wanted) == 15
    found = {name: hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in wanted}
    assert [name for name in wanted if found[name] != wanted[name]] == []


@pytest.mark.parametrize("run", COMMANDS)
def test_a_shipped_run_goes_on_under_its_command(tmp_path: Path, run: str) -> None:
    """Its stored configuration lacks what came later, and is the one that the command gives today."""
    shutil.copytree(MINI / "runs" / run, tmp_path / run)
    config = composed_as(TrainConfig, *COMMANDS[run].split(), f"paths.runs={tmp_path}")
    assert config.run == run
    claim_run(config)
    stored = flatten(yaml.safe_load((MINI / "runs" / run / "config.yaml").read_text()))
    loaded = flatten(to_plain(load_run(MINI / "runs" / run, TrainConfig)))
    assert {key: loaded[key] for key in stored} == stored | {"paths.runs": str(MINI / "runs")}


def test_a_missing_setting_means_what_was_done_before(tmp_path: Path) -> None:
    stored = flatten(yaml.safe_load((MINI / f"runs/{LONG}-seed0/config.yaml").read_text()))
    kept = nested({key: value for key, value in stored.items() if key not in MEANT})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(kept))
    loaded = flatten(to_plain(load_run(tmp_path, TrainConfig)))
    assert {key: loaded[key] for key in MEANT} == MEANT


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        *groups, name = key.split(".")
        place = found
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = value
    return found


def inverter(refiner: Path) -> Inverter:
    encoder = MINI / f"runs/{LONG}-seed0/encoder.safetensors"
    return load_inverter(generator=MINI / "generator.safetensors", encoder=encoder, refiner=refiner)


def test_weights_without_settings_of_the_mask_have_those_of_then(tmp_path: Path) -> None:
    for name in ("refiner.safetensors", "refiner.json"):
        shutil.copy(MINI / f"runs/{LONG}-seed0" / name, tmp_path)
    content = json.loads((tmp_path / "refiner.json").read_text())
    content["goae"] = {"mix": {"depth_density": 0.5}}
    (tmp_path / "refiner.json").write_text(json.dumps(content))
    config = inverter(tmp_path / "refiner.safetensors").goae.config
    assert {key: getattr(config.mix, key) for key in MASK} == MASK | {"depth_density": 0.5}
    assert (config.edit_late_rows, config.edit_glass_comp) == ("edited", 0.0)


def test_the_mini_world_keeps_its_mask() -> None:
    """Visibility of two of its own heads, from the left and from the right; a row of three planes for each."""
    shipped = inverter(MINI / f"runs/{LONG}-seed0/refiner.safetensors")
    generator, (_, intrinsics) = shipped.goae.generator, split_label(canonical_label())
    c = join_label(pose_from_angles(torch.tensor([-0.6, 0.3]), 0.1), intrinsics)
    z = torch.randn(2, generator.config.z_dim, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        image = generator.synthesis(generator.mapping(z, c), c).image.clamp(-1, 1)
    visibility = shipped.invert(image, c).visibility[:, :, 0]
    found = np.vstack([np.hstack(list(planes)) for planes in visibility.numpy()])
    kept = np.asarray(Image.open(DATA / "mask.png")).astype(float)
    assert found.shape == kept.shape and set(np.unique(found)) == {0, 1}
    assert (found != kept).mean() <= FLIPS
