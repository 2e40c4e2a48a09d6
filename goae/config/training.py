"""Schemas of the scripts that train: a run of GOAE or a rival, of a generator, of a camera regressor."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from eg3d.generator import GeneratorConfig
from eg3d.ops.choice import RENDERERS, checked, configured

from goae.camera.regressor import RegressorConfig
from goae.data.batches import DataConfig
from goae.evaluation.distribution import DistributionConfig
from goae.models.afa import AFAConfig
from goae.models.discriminator import LatentDiscriminatorConfig
from goae.models.encoder import EncoderConfig
from goae.models.goae import GOAEConfig
from goae.models.pyramid_encoder import RivalConfig
from goae.paths import path, shipped
from goae.training.adversarial import AdversarialConfig
from goae.training.camera_stage import CameraStageConfig
from goae.training.encoder_stage import EncoderStageConfig
from goae.training.prior import WarmStartConfig
from goae.training.refiner_stage import RefinerStageConfig
from goae.training.tracking import LoggingConfig

STAGES = ("all", "encoder", "refiner")
METHODS = ("goae", "psp", "e4e", "ide3d")
PRIOR_STAGES = ("all", "warm_start", "adversarial")
PRECISIONS = ("32-true", "bf16-mixed")
DEVICES = ("auto", "cpu", "cuda")
RANDOM = "random"  # as paths.generator or paths.backbone: weights drawn by the seed
PUBLISHED = "published"  # as paths.backbone: the file that the catalogue has for the method
SHIPPED_RUNS = "goae/assets/mini/runs"  # of scripts/ship_run.py


@dataclass
class PathsConfig:
    """Where files lie; relative paths start from the current folder."""

    runs: str = path("runs")
    generator: str = path()  # .pkl as published, or .safetensors; random: new weights of these sizes, for a trial
    encoder: str = path()  # stage 1's weights, of another run; empty: this run's own
    backbone: str = path()  # of stage 1: published (Swin: ImageNet; rivals: IR-SE50), FILE, random; empty: none fit
    canonical_stats: str = path()  # made by scripts/canonical_stats.py; empty: beside the generator


@dataclass
class PerceptionConfig:
    """The frozen networks behind losses and metrics; an empty path means the cache that fetch_weights.py fills."""

    lpips: str = "alex"  # alex | vgg | none
    lpips_path: str = path()
    identity: str = "arcface"  # arcface | face_resnet | facenet | mini | none; of the loss
    identity_path: str = path()
    background: str = "parser"  # parser | segmenter | mini | depth; which pixels of a front view are background
    background_path: str = path()
    background_depth: float = 3.0  # rule `depth`: background lies beyond this distance along the ray; for tests, since
    # what lies before it is never pulled back
    background_subject: str = "cat"  # of `segmenter`, what is not background: cat | animal, any animal it knows


@dataclass
class StagesConfig:
    """Both training stages."""

    encoder: EncoderStageConfig = field(default_factory=EncoderStageConfig)
    refiner: RefinerStageConfig = field(default_factory=RefinerStageConfig)


@dataclass
class ValidationConfig:
    """The validation curve while training."""

    num_images: int = 100
    batch_size: int = 10


@dataclass
class CanonicalConfig:
    """scripts/canonical_stats.py: how W_c is sampled (paper, Sec. 4.1: 0.1 million front views)."""

    num_samples: int = 100_000
    batch_size: int = 8
    seed: int = 0
    erode: int = 1  # pixels of the depth map by which the background is shrunk


@dataclass(kw_only=True)
class Operators:
    """Choose how the networks of a job are computed; see docs/performance.md.

    What changes is rounding, except for renderer=half.
    """

    impl: str = "auto"  # auto | ref, plain PyTorch | cpu, cuda, its kernels or none; EG3D_IMPL goes over it
    renderer: str = "fused"  # fused | plain | half, planes in half precision | auto, on CUDA the fastest when training

    def __post_init__(self) -> None:
        configured(self.impl)
        checked(self.renderer, "renderer", RENDERERS)


class InRunFolder:
    """A job that leaves everything in one folder."""

    paths: PathsConfig
    run: str

    @property
    def run_dir(self) -> Path:
        """The folder of this run."""
        return Path(self.paths.runs) / self.run


@dataclass
class TrainConfig(Operators, InRunFolder):
    """Everything that scripts/train.py needs; each key is overridden as KEY=VALUE."""

    experiment_name: str = ""  # set by experiment=...; the default run name starts with it
    variant: str = ""  # which of a sweep's cells this is, set by sweep=...; part of the default run name
    run: str = ""  # empty: <experiment>-seed<seed>; the same name resumes
    method: str = "goae"  # goae | psp | e4e | ide3d: the encoders of the paper's Table 1; of rivals stage 1 alone
    stage: str = "all"  # all | encoder | refiner
    plan: bool = False  # print what the run will need and whether it is there, and start nothing
    seed: int = 0
    device: str = "auto"  # auto | cpu | cuda | cuda:N, of several GPUs one
    num_devices: int = 1  # processes on this machine; torchrun has to start as many
    precision: str = "32-true"  # 32-true | bf16-mixed
    force_fp32: bool = False  # also where the generator has half precision on CUDA: its super-resolution
    deterministic: bool = (
        True  # False: faster on GPUs and between processes, equal to rounding alone; docs/performance.md
    )
    training_samples: int = 0  # coarse and fine samples per ray while training; 0: the generator's own numbers
    renderer_checkpointing: bool = False  # plain renderer: find samples again in the backward pass, as the fused does
    paths: PathsConfig = field(default_factory=PathsConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    latent_discriminator: LatentDiscriminatorConfig = field(default_factory=LatentDiscriminatorConfig)
    afa: AFAConfig = field(default_factory=AFAConfig)
    goae: GOAEConfig = field(default_factory=GOAEConfig)
    rival: RivalConfig = field(default_factory=RivalConfig)  # the encoder of a method other than goae
    perception: PerceptionConfig = field(default_factory=PerceptionConfig)
    data: DataConfig = field(default_factory=DataConfig)
    stages: StagesConfig = field(default_factory=StagesConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    canonical: CanonicalConfig = field(default_factory=CanonicalConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stage not in STAGES:
            raise ValueError(f"stage is {self.stage!r}; expected one of {', '.join(STAGES)}")
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}; expected one of {', '.join(METHODS)}")
        if self.method != "goae" and self.stage == "refiner":
            raise ValueError(f"stage is 'refiner', but {self.method} has stage 1 alone; use stage=all or stage=encoder")
        if self.paths.encoder and (self.method != "goae" or self.stage == "encoder"):
            raise ValueError(
                f"paths.encoder is {self.paths.encoder!r}, stage 1 of another run, but method={self.method} and "
                f"stage={self.stage} train it here; leave it empty, or set method=goae and stage=refiner"
            )
        self.run = run_name(self)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The stages that the method has, in order."""
        return ("encoder", "refiner") if self.method == "goae" else ("encoder",)

    @property
    def own_stages(self) -> tuple[str, ...]:
        """Those that this run trains itself, in order: without stage 1 where it comes from `paths.encoder`."""
        return self.stage_names[1:] if self.paths.encoder else self.stage_names


@dataclass
class PriorConfig(Operators, InRunFolder):
    """scripts/train_prior.py: a generator, by EG3D's recipe, in the mini world after a supervised warm start."""

    experiment_name: str = ""
    run: str = ""
    stage: str = "all"  # all | warm_start | adversarial
    seed: int = 0
    device: str = "auto"
    num_devices: int = 1
    precision: str = "32-true"
    force_fp32: bool = False
    deterministic: bool = True
    paths: PathsConfig = field(default_factory=PathsConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    perception: PerceptionConfig = field(default_factory=PerceptionConfig)
    data: DataConfig = field(default_factory=DataConfig)
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)  # of the warm start
    distribution: DistributionConfig = field(default_factory=DistributionConfig)  # of the adversarial stage
    logging: LoggingConfig = field(default_factory=LoggingConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stage not in PRIOR_STAGES:
            raise ValueError(f"stage is {self.stage!r}; expected one of {', '.join(PRIOR_STAGES)}")
        missing = sorted(self._needed_extras() - set(self.data.extras))
        if missing:
            raise ValueError(
                f"data.extras is {list(self.data.extras)}; the supervised losses or their validation also need "
                f"{', '.join(missing)}, which only data of known factors have: add them, or use experiment=prior"
            )
        self.run = run_name(self)

    def _needed_extras(self) -> set[str]:
        """What the stages that are trained read beside images and labels."""
        if self.stage != "adversarial":
            return {"factors", "depth", "parts"}  # the validation has the depth of heads
        if not self.adversarial.bridge.supervised:
            return set()
        terms = {"parts": self.warm_start.parts or self.warm_start.depth, "depth": self.warm_start.depth}
        return {"factors", *(name for name, used in terms.items() if used)}


@dataclass
class CameraConfig(Operators, InRunFolder):
    """scripts/train_camera.py: a camera regressor, trained on a generator's renders."""

    experiment_name: str = ""
    run: str = ""
    seed: int = 0
    device: str = "auto"
    num_devices: int = 1
    precision: str = "32-true"
    force_fp32: bool = False
    deterministic: bool = True
    paths: PathsConfig = field(default_factory=PathsConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    regressor: RegressorConfig = field(default_factory=RegressorConfig)
    data: DataConfig = field(default_factory=DataConfig)  # poses: labels of `train`; also measured on `validation`
    camera: CameraStageConfig = field(default_factory=CameraStageConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.run = run_name(self)


StagedConfig = TrainConfig | PriorConfig  # of jobs with several stages
RunConfig = StagedConfig | CameraConfig


def find_run(runs: str, name: str) -> Path:
    """The folder of a run by its name: below `runs`, else of the shipped run of that name.

    A folder without a configuration is none: results of a shipped run may lie below `runs`.
    """
    own, beside = Path(runs) / name, Path(shipped(f"{SHIPPED_RUNS}/{name}"))
    return beside if beside.is_dir() and not (own / "config.yaml").is_file() else own


def run_file(path: str) -> Path:
    """A file of a run by its path, or of the shipped run of that name where it is not there."""
    own = Path(path)
    beside = Path(shipped(f"{SHIPPED_RUNS}/{own.parent.name}/{own.name}"))
    return beside if beside.is_file() and not own.is_file() else own


def run_name(config: RunConfig) -> str:
    """The run's name, by default from experiment and seed; checks the keys that all runs share."""
    if config.precision not in PRECISIONS:
        raise ValueError(f"precision is {config.precision!r}; expected one of {', '.join(PRECISIONS)}")
    check_device(config.device)
    rival = f"-{config.method}" if isinstance(config, TrainConfig) and config.method != "goae" else ""
    variant = f"-{config.variant}" if isinstance(config, TrainConfig) and config.variant else ""
    name = config.run or f"{config.experiment_name or 'custom'}{rival}{variant}-seed{config.seed}"
    if Path(name).name != name:
        raise ValueError(f"run is {name!r}; expected a plain folder name below paths.runs ({config.paths.runs})")
    return name


def check_device(device: str) -> None:
    """Raises: ValueError if there is no device of this name."""
    if device not in DEVICES and not re.fullmatch(r"cuda:\d+", device):
        raise ValueError(f"device is {device!r}; expected one of {', '.join(DEVICES)}, or cuda:N for the GPU number N")
