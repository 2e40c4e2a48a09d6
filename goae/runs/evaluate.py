"""Measure a trained run on the input views of its test images."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eg3d.limits import read_json
from torch import Tensor

from goae import build
from goae.baselines.encoder_only import EncoderOnly
from goae.baselines.floors import AverageCode
from goae.config import RANDOM, EvaluateConfig, TrainConfig, load_run
from goae.data.datasets import PosedImages
from goae.data.mini import drawn_split
from goae.evaluation.image_metrics import image_metrics
from goae.evaluation.results import file_hash, images_hash
from goae.evaluation.runner import (
    Method,
    evaluate_input_view,
    hardware,
    summarize,
    write_json,
    write_rows,
)
from goae.evaluation.timing import inversion_seconds
from goae.inversion import Inverter
from goae.loading import load_inverter
from goae.losses.reconstruction import pooled
from goae.runs.renderers import wanted_renderer
from goae.runs.setup import device_of, finished_stages, open_images, run_encoder, run_inverter, trained
from goae.weights import find

Metrics = Callable[[Tensor, Tensor], dict[str, Tensor]]


def evaluate(config: EvaluateConfig) -> Path:
    """Write `evaluation/<method>.csv`, one row per image, and `evaluation/summary.json`; returns the latter's path."""
    run = load_run(config.run_dir, TrainConfig)
    run.impl, run.renderer = config.impl, config.renderer
    folder, made_from = config.folder / "evaluation", sources(config, run)
    if is_measured(folder / "summary.json", made_from):
        print(f"{config.run_dir}: evaluation is complete")
        return folder / "summary.json"
    methods = read_methods(run) | shipped_methods(config, run)
    samples = read_samples(run, config.num_images)
    metrics = build_metrics(config, run)
    identity = config.identity or run.perception.identity
    summary: dict[str, Any] = {"identity": identity, "made_from": made_from, "methods": {}}
    for name, method in methods.items():
        rows = evaluate_input_view(method, samples, metrics, batch_size=config.batch_size, label=name)
        write_rows(rows, folder / f"{name}.csv")
        times = inversion_seconds(method, samples[: config.timing_images], warm_up=1, device=device_of(run))
        summary["methods"][name] = summarize(rows) | {"seconds": times["time"]}
    summary |= hardware([str(device_of(run))])
    write_json(summary, folder / "summary.json")
    return folder / "summary.json"


def read_methods(run: TrainConfig) -> dict[str, Method[Any]]:
    """What is measured of a run, the floor first: an encoder alone, or GOAE without and with its second stage."""
    if "refiner" not in finished_stages(run):
        encoder = run_encoder(run)
        name = "w_plus" if run.method == "goae" else run.method
        return {"w_avg": AverageCode(encoder.goae.generator), name: encoder}
    inverter = run_inverter(run)
    return {"w_avg": AverageCode(inverter.goae.generator), "w_plus": EncoderOnly(inverter.goae), "full": inverter}


def shipped_methods(config: EvaluateConfig, run: TrainConfig) -> dict[str, Method[Any]]:
    """W+ and full inversion by the weights in the folder `shipped`, on the run's generator; none where it is empty."""
    if not config.shipped:
        return {}
    inverter = shipped_inverter(config, run)
    return {"shipped_w_plus": EncoderOnly(inverter.goae), "shipped_full": inverter}


def shipped_inverter(config: EvaluateConfig, run: TrainConfig) -> Inverter:
    """The weights in the folder `shipped` on the run's generator."""
    files = shipped_weights(config)
    return load_inverter(
        generator=run.paths.generator,
        encoder=files["encoder"],
        refiner=files["refiner"],
        device=device_of(run),
        force_fp32=run.force_fp32,
    )


def shipped_weights(config: EvaluateConfig) -> dict[str, Path]:
    """Encoder and refiner in the folder `shipped`; none where it is empty.

    Raises: FileNotFoundError if one of them is not there.
    """
    if not config.shipped:
        return {}
    paths = {name: Path(config.shipped) / f"{name}.safetensors" for name in ("encoder", "refiner")}
    for path in paths.values():
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: shipped={config.shipped} has to hold both stages' weights")
    return paths


def sources(config: EvaluateConfig, run: TrainConfig) -> dict[str, Any]:
    """What an evaluation depends on: the weights, the images and the settings."""
    files = {name: trained(run, name) for name in finished_stages(run)}
    files |= {f"shipped_{name}": path for name, path in shipped_weights(config).items()}
    if run.paths.generator != RANDOM:
        files["generator"] = find(run.paths.generator)
    hashes = {name: file_hash(path) for name, path in files.items()}
    images = test_images(run)
    forced = {"force_fp32": True} if run.force_fp32 else {}
    asked = {key: value for key, value in dataclasses.asdict(config).items() if key not in ("impl", "renderer")}
    if wanted_renderer(run) == "half":
        asked["renderer"] = "half"
    named = drawn_split(images.source) or images_hash(images)
    return hashes | {"images": named} | asked | forced


def is_measured(path: Path, made_from: dict[str, Any]) -> bool:
    """Whether the summary at `path` was made from the very same things."""
    return path.exists() and read_json(path).get("made_from") == made_from


def test_images(run: TrainConfig) -> PosedImages:
    """Those of the run's test set, or of its validation set where it names none."""
    return open_images(run, run.data.test or run.data.validation)


def read_samples(run: TrainConfig, num_images: int) -> list[dict[str, Any]]:
    """The first of the run's test images; 0: all."""
    images = test_images(run)
    return [images[i] for i in range(min(num_images or len(images), len(images)))]


def build_metrics(config: EvaluateConfig, run: TrainConfig) -> Metrics:
    """Image metrics at the run's loss resolution, with its perceptual network and the identity network asked for.

    Raises: ValueError if the run has no perceptual network.
    """
    device = device_of(run)
    perception = build.build_perception(run.perception, device)
    identity = perception.embed
    if config.identity:
        named = config.identity != "none"
        identity = build.build_identity(config.identity, config.identity_path, device) if named else None
    lpips = perception.lpips
    if lpips is None:
        raise ValueError("Evaluation needs a perceptual network, but the run has perception.lpips=none")

    def measure(image: Tensor, target: Tensor) -> dict[str, Tensor]:
        image, target = (pooled(x.to(device).clamp(-1, 1), run.data.loss_resolution) for x in (image, target))
        return image_metrics(image, target, lpips=lpips, embed=identity)

    return measure
