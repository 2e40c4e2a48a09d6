"""What both protocols need at the smallest sizes."""

from pathlib import Path

import torch
from eg3d import checkpoint
from safetensors.torch import save_file
from tiny import tiny_goae, tiny_rival

from goae.build import build_parts
from goae.camera.regressor import CameraRegressor, RegressorConfig, save_regressor
from goae.data.mini import SplitConfig, write_split
from goae.extractors import lpips
from goae.loading import save_encoder, save_refiner


def tiny_protocol(folder: Path, data: Path) -> list[str]:
    """Overrides: a tiny GOAE, a random perceptual trunk, `data`, and a person with five faces from five views."""
    goae = tiny_goae()
    checkpoint.save(goae.generator, folder / "generator.safetensors")
    save_encoder(goae.encoder, folder / "encoder.safetensors")
    save_refiner(goae.afa, goae.config, folder / "refiner.safetensors")
    torch.manual_seed(0)
    trunk = {n: t for n, t in lpips.build("alex").state_dict().items() if n.startswith("net.")}
    save_file({n: t.contiguous() for n, t in trunk.items()}, folder / "trunk.safetensors")
    multiview = folder / "multiview.zip"
    write_split(SplitConfig("multiview", 25, 0, 32), multiview, workers=1, progress=lambda done: None)
    return [
        *[f"{name}_path={folder / name}.safetensors" for name in ("generator", "encoder", "refiner")],
        f"metrics.lpips_path={folder / 'trunk.safetensors'}",
        "metrics.identity_independent=none",
        "metrics.features=mini",
        "metrics.features_beside=mini",
        f"images.input_view={data}",
        f"images.novel_view={multiview}",
        "resolution=32",
        "metric_resolution=32",
        "metrics.grid=16",
        "batch_size=5",
        "resamples=50",
        "timing_images=2",
        "warm_up=1",
        "device=cpu",
    ]


def tiny_rivals(folder: Path) -> list[str]:
    """Overrides: random rivals, a random camera regressor, and methods that optimise for one step."""
    parser = build_parts("mini", "", torch.device("cpu"))
    for name in ("psp", "e4e", "ide3d"):
        save_encoder(tiny_rival(name, parser=parser).encoder, folder / f"{name}.safetensors")
    torch.manual_seed(0)
    save_regressor(CameraRegressor(RegressorConfig(16, [8], 8)), folder / "camera.safetensors")
    searches = ("w", "w_plus", "pti.pivot", "pti.tuning", "pose_opt.pivot", "pose_opt.tuning")
    return [
        *[f"rivals.{name}={folder / name}.safetensors" for name in ("psp", "e4e", "ide3d")],
        *[f"baselines.{name}.steps=1" for name in searches],
        *[f"baselines.{name}.samples=0" for name in searches],
        *[f"baselines.{name}.lpips_resolution=64" for name in searches],
        f"baselines.regressor={folder / 'camera.safetensors'}",
    ]
