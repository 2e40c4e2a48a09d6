"""Train a generator for the mini world."""

from functools import partial
from pathlib import Path

import torch
from eg3d import checkpoint
from eg3d.generator import TriPlaneGenerator
from lightning_fabric import Fabric
from torch import Tensor, nn

from goae import build
from goae.config import PriorConfig, claim_run, to_plain
from goae.evaluation.image_metrics import mse, psnr
from goae.runs.setup import launch, open_batches, open_images, stack
from goae.training.loop import fit, split_slots
from goae.training.prior import WarmStartStage, codes, depth_error
from goae.training.tracking import Tracker

PREVIEW_COLUMNS = 4
NUM_PREVIEWS = 8


def train_prior(config: PriorConfig) -> Path:
    """Warm-start a generator on data with known factors; returns `<run folder>/warm_start.safetensors`."""
    fabric = launch(config)
    if fabric.is_global_zero:
        claim_run(config)
    fabric.barrier()
    generator = start(config).to(fabric.device)
    perception = build.build_perception(config.perception, fabric.device)
    stage = WarmStartStage(generator, perception.lpips, config.warm_start)
    cfg = config.warm_start.fit
    images, held_out = open_images(config, config.data.train), open_images(config, config.data.validation)
    samples = [held_out[i] for i in range(min(config.validation.num_images, len(held_out)))]
    tracker = Tracker(
        config.run_dir,
        config.logging,
        active=fabric.is_global_zero,
        columns=PREVIEW_COLUMNS,
        settings=to_plain(config),
    )
    slots = split_slots(cfg, fabric.global_rank, fabric.world_size)
    with open_batches(images, config.data, cfg, config.seed, slots) as batches:
        fit(
            stage,
            batches.fetch,
            cfg,
            config.run_dir,
            fabric=fabric,
            seed=config.seed,
            preview=stack(samples[:NUM_PREVIEWS]),
            evaluate=partial(validate, samples=samples, batch_size=config.validation.batch_size, fabric=fabric),
            tracker=tracker,
            export=export,
        )
    tracker.close()
    return config.run_dir / f"{stage.name}.safetensors"


def start(config: PriorConfig) -> TriPlaneGenerator:
    """New weights, or those of `paths.generator` under this configuration's rendering, e.g. with more samples."""
    torch.manual_seed(config.seed)
    generator = TriPlaneGenerator(config.generator)
    if config.paths.generator:
        generator.load_state_dict(build.build_generator(config).state_dict())
    return generator


def export(module: nn.Module, path: Path) -> None:
    """Write a generator in eg3d's own format."""
    assert isinstance(module, TriPlaneGenerator)
    checkpoint.save(module, path)


@torch.no_grad()
def validate(
    generator: nn.Module, *, samples: list[dict[str, Tensor]], batch_size: int, fabric: Fabric
) -> dict[str, float]:
    """Image error and depth error on unseen heads of known factors."""
    assert isinstance(generator, TriPlaneGenerator)
    generator.eval()
    sums = {"mse": 0.0, "psnr": 0.0, "depth": 0.0}
    for start in range(0, len(samples), batch_size):
        batch = {n: v.to(fabric.device) for n, v in stack(samples[start : start + batch_size]).items()}
        view = generator.synthesis(codes(generator, batch["factors"]), batch["c"])
        image = view.image.clamp(-1, 1)
        sums["mse"] += float(mse(image, batch["image"]).sum())
        sums["psnr"] += float(psnr(image, batch["image"]).sum())
        sums["depth"] += float(depth_error(view.image_depth, batch["depth"], batch["parts"])) * len(image)
    return {name: value / len(samples) for name, value in sums.items()}
