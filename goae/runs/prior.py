"""Train a generator: EG3D's adversarial recipe, in the mini world after a supervised warm start."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from eg3d import checkpoint
from eg3d.cameras import mirror_label
from eg3d.generator import TriPlaneGenerator
from torch import Tensor, nn

from goae import build
from goae.config import PriorConfig, claim_run, to_plain
from goae.data.copies import warn_of_mirrored_copies
from goae.data.datasets import PosedImages
from goae.evaluation.distribution import (
    DistributionConfig,
    check_number,
    distances,
    floor,
    generated_features,
    real_features,
)
from goae.evaluation.image_metrics import mse, psnr
from goae.extractors.lpips import LPIPS
from goae.runs.renderers import settle_renderer
from goae.runs.setup import check_splits, launch, open_batches, open_images, stack, unfinished
from goae.training.adversarial import AdversarialStage
from goae.training.exchange import sum_over_ranks
from goae.training.loop import Evaluate, FitConfig, fit, split_slots
from goae.training.nonfinite import Failure
from goae.training.phases import Stage
from goae.training.prior import SupervisedLosses, WarmStartStage, codes, depth_error
from goae.training.tracking import Tracker, check_login

if TYPE_CHECKING:  # it takes seconds to import, and a configuration is checked without it
    from lightning_fabric import Fabric

NUM_PREVIEWS = 8


def train_prior(config: PriorConfig, failure: Failure | None = None) -> Path:
    """Train the configured stages; a run that was stopped goes on, a complete stage is left as it is.

    Args:
        failure: a step that failed, which is run again instead; nothing is written.
    Returns: `<run folder>/<last stage>.safetensors`.
    """
    fabric = launch(config, deterministic=config.deterministic)
    if fabric.is_global_zero and failure is None:
        check_login(config.logging)
        claim_run(config)
    fabric.barrier()
    fits = {"warm_start": config.warm_start.fit, "adversarial": config.adversarial.fit}
    todo = [failure.stage] if failure else unfinished(config, fits)
    check_splits({name: fits[name] for name in todo}, fabric.world_size)
    images, held_out = open_images(config, config.data.train), open_images(config, config.data.validation)
    lpips = build.build_perception(config.perception, fabric.device).lpips
    if config.data.mirror and fabric.is_global_zero:
        warn_of_mirrored_copies(images)
    active = fabric.is_global_zero and failure is None
    tracker = Tracker(config.run_dir, config.logging, active=active, settings=to_plain(config))
    stage: Stage
    for name in todo:
        if name == "warm_start":
            stage, evaluate = warm_start(config, held_out, lpips, fabric)
        else:
            stage, evaluate = adversarial(config, images, held_out, lpips, fabric)
        fit_stage(config, stage, fits[name], images, held_out, evaluate, fabric, tracker, failure)
    tracker.close()
    return config.run_dir / f"{'warm_start' if config.stage == 'warm_start' else 'adversarial'}.safetensors"


def warm_start(
    config: PriorConfig, held_out: PosedImages, lpips: LPIPS | None, fabric: "Fabric"
) -> tuple[WarmStartStage, Evaluate]:
    """A generator that will be fitted to images of known factors, and its error on held-out ones."""
    generator = start(config, config.paths.generator).to(fabric.device)
    settle_renderer(config, generator, config.warm_start.fit.micro, fabric)
    samples = [held_out[i] for i in range(min(config.validation.num_images, len(held_out)))]
    evaluate = partial(validate, samples=samples, batch_size=config.validation.batch_size, device=fabric.device)
    return WarmStartStage(generator, lpips, config.warm_start), evaluate


def adversarial(
    config: PriorConfig, images: PosedImages, held_out: PosedImages, lpips: LPIPS | None, fabric: "Fabric"
) -> tuple[AdversarialStage, Evaluate]:
    """EG3D's recipe from the weights that `adversarial_weights` finds, and distances from the held-out images."""
    generator = start(config, adversarial_weights(config)).to(fabric.device)
    settle_renderer(config, generator, config.adversarial.fit.micro, fabric)
    discriminator = build.build_discriminator(config).to(fabric.device)
    supervised = None
    if config.adversarial.bridge.supervised:
        supervised = SupervisedLosses(generator, lpips, config.warm_start)
    labels = torch.cat([images.labels, mirror_label(images.labels)]) if config.data.mirror else images.labels
    stage = AdversarialStage(generator, discriminator, labels, supervised, config.adversarial)
    return stage, compare(config.distribution, held_out, config.seed, fabric)


def fit_stage(
    config: PriorConfig,
    stage: Stage,
    cfg: FitConfig,
    images: PosedImages,
    held_out: PosedImages,
    evaluate: Evaluate,
    fabric: "Fabric",
    tracker: Tracker,
    failure: Failure | None,
) -> None:
    """Run the loop over the training images, or a step of it that failed; the first held-out ones are shown."""
    slots = split_slots(cfg, fabric.global_rank, fabric.world_size)
    with open_batches(images, config.data, cfg, config.seed, slots, fabric.device) as batches:
        fit(
            stage,
            batches.fetch,
            cfg,
            config.run_dir,
            fabric=fabric,
            seed=config.seed,
            preview=stack([held_out[i] for i in range(min(NUM_PREVIEWS, len(held_out)))]),
            evaluate=evaluate,
            tracker=tracker,
            export=export,
            trace=batches.trace,
            failure=failure,
            deterministic=config.deterministic,
        )


def start(config: PriorConfig, weights: str) -> TriPlaneGenerator:
    """New weights, or those of a file under this configuration's rendering, e.g. with more samples."""
    torch.manual_seed(config.seed)
    generator = TriPlaneGenerator(config.generator, force_fp32=config.force_fp32)
    if weights:
        generator.load_state_dict(build.load_generator(weights, config.generator).state_dict())
    return generator


def adversarial_weights(config: PriorConfig) -> str:
    """The run's own warm start, else `paths.generator`; empty, for new weights, where no bridge is configured.

    Raises: FileNotFoundError if there is a bridge, but nothing that it could start from.
    """
    warm = config.run_dir / "warm_start.safetensors"
    if warm.exists():
        return str(warm)
    if config.adversarial.bridge.supervised and not config.paths.generator:
        raise FileNotFoundError(
            f"{warm} does not exist, and paths.generator is empty: the bridge (adversarial.bridge) starts from a warm "
            f"start. Train it first, with stage=warm_start or stage=all, or give the file of one as paths.generator."
        )
    return config.paths.generator


def export(module: nn.Module, path: Path) -> None:
    """Write a generator in eg3d's own format."""
    assert isinstance(module, TriPlaneGenerator)
    checkpoint.save(module, path)


@torch.no_grad()
def validate(
    generator: nn.Module, *, samples: list[dict[str, Tensor]], batch_size: int, device: torch.device
) -> dict[str, float]:
    """Image error and depth error on unseen heads of known factors."""
    assert isinstance(generator, TriPlaneGenerator)
    generator.eval()
    sums = {"mse": 0.0, "psnr": 0.0, "depth": 0.0}
    for first in range(0, len(samples), batch_size):
        batch = {n: v.to(device) for n, v in stack(samples[first : first + batch_size]).items()}
        view = generator.synthesis(codes(generator, batch["factors"]), batch["c"])
        image = view.image.clamp(-1, 1)
        sums["mse"] += float(mse(image, batch["image"]).sum())
        sums["psnr"] += float(psnr(image, batch["image"]).sum())
        maps = zip(view.image_depth, batch["depth"], batch["parts"], strict=True)
        sums["depth"] += sum(float(depth_error(*(one[None] for one in maps_of_one))) for maps_of_one in maps)
    return {name: value / len(samples) for name, value in sums.items()}


def compare(config: DistributionConfig, held_out: PosedImages, seed: int, fabric: "Fabric") -> Evaluate:
    """A function of a generator: the distances of its images from the held-out ones, and those between real halves."""
    check_number(held_out, least=4)
    features = build.build_features(config, fabric.device)
    real = real_features(held_out, features, batch_size=config.batch_size, device=fabric.device)
    reached = floor(real)

    def measure(generator: nn.Module) -> dict[str, float]:
        assert isinstance(generator, TriPlaneGenerator)
        generated = generated_features(
            generator,
            held_out.labels,
            features,
            num=config.num_samples,
            batch_size=config.batch_size,
            seed=seed,
            rank=fabric.global_rank,
            num_ranks=fabric.world_size,
        )
        sum_over_ranks([generated], fabric)
        return distances(generated, real) | reached

    return measure
