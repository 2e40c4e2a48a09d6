"""What every job on a run needs: processes, images, the run's weights."""

from goae.errors import ends_with_this_process

import logging
import os
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from eg3d.ops.build import describe
from eg3d.ops.choice import choose, chosen_renderer, configured
from torch import Tensor

from goae import build
from goae.baselines.encoder_only import EncoderOnly, load_rival
from goae.config import (
    EditsConfig,
    FiguresConfig,
    InvertConfig,
    RunConfig,
    StagedConfig,
    TrainConfig,
    find_run,
    load_run,
    run_file,
)
from goae.data.batches import Batches, DataConfig
from goae.data.datasets import PosedImages
from goae.inversion import Inverter
from goae.loading import load_encoder, load_inverter
from goae.models.latent_inverter import LatentInverter
from goae.precision import choose_algorithms, forbid_tf32
from goae.runs.renderers import wanted_renderer
from goae.training import checkpoint
from goae.training.loop import FitConfig, split_slots
from goae.weights import find

if TYPE_CHECKING:  # it takes seconds to import, and a configuration is checked without it
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)


class OnDevice(Protocol):
    """A configuration of a job that computes."""

    @property
    def device(self) -> str:
        """auto, cpu, cuda or cuda:N."""

    @property
    def impl(self) -> str:
        """Name of the operators' implementation, see `eg3d.ops.choice`."""

    @property
    def renderer(self) -> str:
        """fused, plain, half or auto."""


class Launched(OnDevice, Protocol):
    """A configuration of a job that runs in one process or several."""

    @property
    def num_devices(self) -> int:
        """Processes."""

    @property
    def precision(self) -> str:
        """Fabric's name of it."""


def launch(config: Launched, *, deterministic: bool = True) -> "Fabric":
    """Lightning Fabric on the configured device; under torchrun, one process of several.

    Args:
        deterministic: see `choose_algorithms`.
    Raises: ValueError if torchrun has started another number of processes; as `check_cuda`.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy

    started = int(os.environ.get("WORLD_SIZE", config.num_devices))
    if started != config.num_devices:  # each would take itself for the only one, and write over the others' files
        raise ValueError(
            f"{started} processes were started, by torchrun or the like, but num_devices is {config.num_devices}; "
            f"give num_devices={started}, or start one process, which starts the others itself"
        )
    check_cuda(config.device, config.num_devices)
    forbid_tf32()
    choose_algorithms(deterministic=deterministic)
    # others wait for the first process longer than PyTorch's half an hour while it takes the times of optimisers
    strategy = DDPStrategy(timeout=timedelta(days=1)) if config.num_devices > 1 else "auto"
    kind, _, index = config.device.partition(":")
    fabric = Fabric(
        accelerator=kind,
        devices=[int(index)] if index else config.num_devices,
        precision=config.precision,  # type: ignore[arg-type]
        strategy=strategy,
    )
    ends_with_this_process(getattr(fabric.strategy.launcher, "procs", []))
    fabric.launch()
    settle_operators(config, fabric.device)
    return fabric


def open_images(config: RunConfig, path: str) -> PosedImages:
    """A data set in the configured resolution, its cameras checked."""
    data = config.data
    return PosedImages(path, data.resolution, extras=tuple(data.extras), radius=data.radius or None)


def open_batches(
    images: PosedImages, data: DataConfig, fit: FitConfig, seed: int, slots: list[int], device: torch.device
) -> Batches:
    """The training batches of one process, which computes on `device`."""
    num_slots, pin = fit.batch_size // fit.micro, device.type == "cuda"
    return Batches(images, data, seed=seed, micro=fit.micro, num_slots=num_slots, slots=slots, pin=pin)


def stack(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Samples to a batch of their tensors."""
    return {name: torch.stack([s[name] for s in samples]) for name, v in samples[0].items() if isinstance(v, Tensor)}


def unfinished(config: StagedConfig, fits: dict[str, FitConfig]) -> list[str]:
    """Of the stages asked for, those that have not been trained to their number of steps."""

    def finished(name: str, steps: int) -> bool:
        newest = checkpoint.newest(config.run_dir / "checkpoints" / name)
        reached = newest is not None and checkpoint.step_of(newest) >= steps
        return reached and (config.run_dir / f"{name}.safetensors").exists()

    return [name for name, fit in fits.items() if config.stage in ("all", name) and not finished(name, fit.steps)]


def check_splits(fits: dict[str, FitConfig], num_processes: int) -> None:
    """Check that the processes can share the micro-batches of every stage, before the first of them is trained.

    Raises: ValueError naming the stage.
    """
    for name, fit in fits.items():
        try:
            split_slots(fit, 0, num_processes)
        except ValueError as error:
            raise ValueError(f"stage `{name}`: {error}") from None


def check_order(config: TrainConfig, todo: list[str]) -> None:
    """Raises: ValueError if stage 1 would go on although stage 2 was begun on what it had become.

    It may be trained again to where it was, which gives the same weights, if its last checkpoint or its file was lost.
    """
    first, second = (checkpoint.reached(config.run_dir / "checkpoints" / name) for name in ("encoder", "refiner"))
    if "encoder" in todo and second is not None and (first is None or first < config.stages.encoder.fit.steps):
        raise ValueError(
            f"stage 1 of {config.run_dir} is to be trained further, but its stage 2 was begun on the encoder as it is. "
            f"Give the longer training another name with run=NAME, or delete checkpoints/refiner and refiner* there"
        )


def trained(config: TrainConfig, name: str) -> Path:
    """The weights that stage `name` left in the run folder; those of `paths.encoder` where the run starts from them.

    Raises: FileNotFoundError if the stage has not finished.
    """
    if name == "encoder" and config.paths.encoder:
        path = run_file(str(find(config.paths.encoder)))
        if not path.exists():
            raise FileNotFoundError(
                f"paths.encoder {path} does not exist: the run {config.run_dir} starts from stage 1 of another run. "
                f"Train that first (of a sweep: sweep=table2), or give its encoder.safetensors with paths.encoder=FILE."
            )
        return path
    path = config.run_dir / f"{name}.safetensors"
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist: stage `{name}` of this run has not finished. Train it first, with stage={name} or "
            f"stage=all."
        )
    return path


def finished_stages(config: TrainConfig) -> tuple[str, ...]:
    """The stages that a trained run consists of: stage 1 alone where no more was asked for and none is there."""
    if config.stage == "encoder" and not (config.run_dir / "refiner.safetensors").exists():
        return ("encoder",)
    return config.stage_names


def open_run(config: EditsConfig | FiguresConfig | InvertConfig, name: str) -> TrainConfig:
    """The configuration of a run by its name, on the device asked for; FileNotFoundError if there is none."""
    run = load_run(find_run(config.runs, name), TrainConfig)
    run.device, run.impl, run.renderer = config.device, config.impl, config.renderer
    return run


def device_of(config: OnDevice) -> torch.device:
    """Return the device of jobs that use one, which compute without TF32 and with the operators asked for.

    Raises: as `check_cuda` and `settle_operators`.
    """
    device = named_device(config.device)
    settle_operators(config, device)
    return device


def named_device(name: str) -> torch.device:
    """Return the device of a name, which computes without TF32. Raises: as `check_cuda`."""
    check_cuda(name)
    forbid_tf32()
    choose_algorithms(deterministic=True)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.index is not None:
        torch.cuda.set_device(device)  # kernels are started on the current one
    return device


def settle_operators(config: OnDevice, device: torch.device) -> None:
    """Take the configured operators in this process, build and compare their kernels, and log what is used.

    Raises: ValueError if the implementation that was named is one of another device, or cannot be had.
    """
    impl = configured(config.impl)
    if impl not in ("auto", "ref", device.type):
        raise ValueError(f"impl is {impl!r}, but the device is {device.type}: give impl=auto, or another device")
    choose(impl, wanted_renderer(config))
    try:
        _log_operators(describe(impl, device), chosen_renderer())
    except RuntimeError as error:
        raise ValueError(str(error)) from error


@cache
def _log_operators(operators: str, renderer: str) -> None:
    log.info("operators: %s; renderer: %s", operators, renderer)


def check_cuda(name: str, num_devices: int = 1) -> None:
    """Check that the GPUs asked for are there.

    Args:
        num_devices: processes, each with a GPU of its own.
    Raises: ValueError.
    """
    kind, _, index = name.partition(":")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and not found:
        raise ValueError(
            f"device is {name}, but PyTorch finds no GPU: install a build of it for CUDA, or give device=cpu or auto"
        )
    if index and (int(index) >= found or num_devices > 1):
        raise ValueError(
            f"device is {name} and num_devices {num_devices}, where PyTorch finds {found} GPUs, cuda:0 to "
            f"cuda:{found - 1}; give one of those and num_devices=1, or device=cuda, and choose several by "
            f"CUDA_VISIBLE_DEVICES"
        )
    if found and kind != "cpu" and num_devices > found:
        raise ValueError(
            f"num_devices is {num_devices}, but PyTorch finds {found} GPUs; give num_devices={found}, or device=cpu"
        )


def run_encoder(config: TrainConfig) -> EncoderOnly:
    """Inversion by the trained encoder of a run alone, whatever its method and whether or not it has a stage 2."""
    if config.method == "goae" and "refiner" in finished_stages(config):
        return EncoderOnly(run_inverter(config).goae)
    if config.method == "goae":
        device, generator = device_of(config), build.build_generator(config)
        inverter = LatentInverter(generator, load_encoder(trained(config, "encoder"), generator))
        return EncoderOnly(inverter.to(device))
    device = device_of(config)
    parser = build.build_parser(config, device) if config.method == "ide3d" else None
    encoder = trained(config, "encoder")
    return load_rival(generator=build.build_generator(config), encoder=encoder, parser=parser, device=device)


def run_inverter(config: TrainConfig, *, preset: str | None = None) -> Inverter:
    """The trained inverter of a run, both stages; `preset` None: what the second was trained with.

    Raises: ValueError if its method has no second stage.
    """
    if config.method != "goae":
        raise ValueError(
            f"The run {config.run_dir} is one of {config.method}, which has no second stage and is measured by "
            f"scripts/evaluate.py; give a run of method=goae."
        )
    return load_inverter(
        generator=config.paths.generator,
        encoder=trained(config, "encoder"),
        refiner=trained(config, "refiner"),
        preset=preset,
        device=device_of(config),
        force_fp32=config.force_fp32,
    )
