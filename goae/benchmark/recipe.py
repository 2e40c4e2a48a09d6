"""Steps of the paper's recipe at full size, whole: losses, phases and optimisers, on random images and networks.

Times and memory do not depend on what the weights are, so no file has to be fetched. Frozen networks take the way of
the users' files all the same: they are written, and read by the readers of such files.
"""

import copy
import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from eg3d.checkpoint import generator_hash
from eg3d.generator import TriPlaneGenerator
from safetensors.torch import save_file

from goae import build
from goae.benchmark.measure import synchronize
from goae.benchmark.networks import front_cameras
from goae.config import PerceptionConfig, TrainConfig
from goae.evaluation.validation import Validation
from goae.extractors import lpips
from goae.extractors.arcface import IRSE50
from goae.extractors.bisenet import BiSeNet
from goae.models.goae import GOAE
from goae.runs.plan import peak, period_of
from goae.runs.setup import launch
from goae.runs.train import fit_config, trained_level
from goae.training.canonical import CanonicalStats, samples_per_ray
from goae.training.encoder_stage import EncoderStage
from goae.training.loop import FitConfig, train_step
from goae.training.nonfinite import Watch
from goae.training.phases import Batch, Stage

Values = dict[str, Any]
WARM_UP = 3  # steps that are not counted
D_AVG = 2.9  # scene units, for L_BG
STAGES = ("encoder", "refiner")


@dataclass(frozen=True)
class Trial:
    """A stage that is ready to train, with the networks around it."""

    stage: Stage
    goae: GOAE
    perception: build.Perception


def measure_stage(
    config: TrainConfig,
    name: str,
    device: torch.device,
    *,
    steps: int,
    batches: Sequence[int],
    report: Callable[[], None],
) -> Values:
    """Train `steps` steps of a stage at its own batch size, validate once beside it, then try other sizes.

    Args:
        batches: other sizes, rising, of which a few steps are made until one is too large.
        report: called after every step.
    Returns: of its own size `batch_size`, `steps_s` of each step, `step_s` and `images_per_s` by the mean over whole
        periods of what is due rarely, `bytes` at most, `hours` of the stage's schedule, `validation_bytes`; `batches`:
        by size the same of the others. A size that is too large has `failed` in their place.
    """
    cfg, period = fit_config(config, name), period_of(config, name)
    with tempfile.TemporaryDirectory() as folder:
        trial = make_trial(config, name, device, Path(folder))
    values = attempt(config, trial, cfg.batch_size, device, range(steps), period, report)
    if "failed" not in values:
        values["hours"] = cfg.steps * values["step_s"] / 3600
        values["validation_bytes"] = validate(config, trial, device)
    values["batches"] = {}
    for size in batches:
        found = attempt(config, trial, size, device, range(1, WARM_UP + 3), 1, report)
        values["batches"][str(size)] = found
        if "failed" in found:
            break
    return values


def attempt(
    config: TrainConfig,
    trial: Trial,
    size: int,
    device: torch.device,
    steps: range,
    period: int,
    report: Callable[[], None],
) -> Values:
    """Measure steps of one batch size, or say that it is too large for the memory."""
    try:
        seconds, most = time_steps(config, trial, size, device, steps, report)
    except torch.cuda.OutOfMemoryError as error:
        return {"batch_size": size, "failed": f"out of memory: {str(error).splitlines()[0]}"}
    return {"batch_size": size, **rates(seconds, size, period), "bytes": most, "steps_s": seconds}


def make_trial(config: TrainConfig, name: str, device: torch.device, folder: Path) -> Trial:
    """Make a stage with all rows of ws unlocked, and what it needs; files of random networks go to `folder`."""
    config = copy.deepcopy(config)
    generator = build.for_training(config, build.build_generator(config)).to(device)
    goae = build.build_goae(config, generator).to(device)
    perception = random_perception(config.perception, device, folder)
    path = folder / "canonical.safetensors"
    random_stats(generator, build.mask_of(config)).save(path)
    config.paths.canonical_stats = str(path)
    make = build.build_encoder_stage if name == "encoder" else build.build_refiner_stage
    stage = make(config, goae, perception, device)
    if isinstance(stage, EncoderStage):
        stage.schedule = lambda step: goae.encoder.last_stage
    return Trial(stage, goae, perception)


def time_steps(
    config: TrainConfig, trial: Trial, size: int, device: torch.device, steps: range, report: Callable[[], None]
) -> tuple[list[float], int]:
    """Train as the loop does. Returns: seconds of each step, and the most memory, as `peak` counts it."""
    fabric = launch(replace(config, device=device.type, num_devices=1), deterministic=config.deterministic)
    fit: FitConfig = replace(fit_config(config, trial.stage.name), batch_size=size, micro_batch=0)
    free_memory(device)
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch(
            trial.stage,
            None,
            Path(folder),
            most=0,
            seed=config.seed,
            num_slots=1,
            trace=None,
            on_first=lambda keep: None,
        )
        for step in steps:
            began = time.perf_counter()
            trial.stage.begin(step)
            batch = random_images(config, size, device, seed=step)
            train_step(trial.stage, None, watch, [batch], [0], step, fit, fabric)
            watch.settle()
            synchronize(device)
            seconds.append(time.perf_counter() - began)
            report()
    most = peak(device)
    for phase in trial.stage.phases:
        phase.optimizer.zero_grad(set_to_none=True)
    return seconds, most


def rates(seconds: Sequence[float], size: int, period: int) -> Values:
    """Average the last whole periods of the steps behind the warm-up; of all of them where there is no whole one."""
    counted = seconds[WARM_UP:] or seconds
    counted = counted[-(len(counted) // period * period) :]
    step = sum(counted) / len(counted)
    return {"step_s": step, "images_per_s": size / step}


def validate(config: TrainConfig, trial: Trial, device: torch.device) -> int:
    """Validate one batch beside a stage whose optimisers have their memory. Returns: the most memory."""
    size, side = config.validation.batch_size, config.generator.image_resolution
    batch = random_images(config, size, torch.device("cpu"), seed=0)
    samples = [{name: value[i] for name, value in batch.items()} for i in range(size)]
    refine, resolution = trial.stage.name == "refiner", min(config.data.loss_resolution, side)
    validation = Validation(
        trial.goae, samples, trial.perception.lpips, resolution=resolution, batch_size=size, refine=refine
    )
    free_memory(device)
    validation(trial.stage.modules[trial.stage.main], level=trained_level(trial.stage))
    return peak(device)


def free_memory(device: torch.device) -> None:
    """Give a GPU's unused memory back, and count its peak from here."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def random_images(config: TrainConfig, size: int, device: torch.device, *, seed: int) -> Batch:
    """Draw a batch of noise before the front camera."""
    side, rng = config.generator.image_resolution, torch.Generator().manual_seed(seed)
    image = torch.rand(size, 3, side, side, generator=rng) * 2 - 1
    return {"image": image.to(device), "c": front_cameras(config, size).to(device)}


def random_stats(generator: TriPlaneGenerator, mask: str) -> CanonicalStats:
    """Make statistics of W_c that fit a generator, of no meaning."""
    side = generator.config.neural_rendering_resolution
    numbers = torch.tensor(D_AVG), torch.full((1, 1, side, side), D_AVG), generator.w_avg.cpu()
    return CanonicalStats(*numbers, 1, generator_hash(generator), samples_per_ray(generator), mask)


def random_perception(config: PerceptionConfig, device: torch.device, folder: Path) -> build.Perception:
    """Build the configured networks: LPIPS' trunk, ArcFace and the face parser with random weights, by way of files."""
    paths = {name: folder / file for name, file in FILES.items()}
    if config.lpips != "none":
        trunk = {n: t.contiguous() for n, t in lpips.build(config.lpips).state_dict().items() if n.startswith("net.")}
        save_file(trunk, paths["lpips_path"])
        config = replace(config, lpips_path=str(paths["lpips_path"]))
    if config.identity == "arcface":
        torch.save(IRSE50().state_dict(), paths["identity_path"])
        config = replace(config, identity_path=str(paths["identity_path"]))
    if config.background == "parser":
        torch.save(BiSeNet().state_dict(), paths["background_path"])
        config = replace(config, background_path=str(paths["background_path"]))
    return build.build_perception(config, device)


FILES = {"lpips_path": "trunk.safetensors", "identity_path": "arcface.pth", "background_path": "parser.pth"}
