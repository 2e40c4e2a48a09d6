"""Root schemas of the scripts, their registration with Hydra, and a run's stored configuration."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from eg3d.generator import GeneratorConfig
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from goae.baselines.optimization import SPACES, OptimizationConfig
from goae.baselines.pose_optimization import PoseOptimizationConfig
from goae.baselines.pti import PTIConfig
from goae.camera.regressor import RegressorConfig
from goae.data.batches import DataConfig
from goae.evaluation.conditions import ConditionsConfig
from goae.evaluation.distribution import DistributionConfig
from goae.evaluation.measuring import MetricsConfig
from goae.evaluation.meters import METERS
from goae.evaluation.paper_tables import TABLES
from goae.evaluation.protocols import PROTOCOLS, RECORDED_METHODS
from goae.models.afa import AFAConfig
from goae.models.discriminator import LatentDiscriminatorConfig
from goae.models.encoder import EncoderConfig
from goae.models.goae import GOAEConfig
from goae.models.pyramid_encoder import RivalConfig
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
# What may change between two starts of the same run: how long it goes on, what it reports, and where it runs.
FREE = (
    *("stage", "device", "num_devices", "renderer_checkpointing", "logging", "data.workers"),
    *("validation.batch_size", "distribution.batch_size"),
)
FREE_FIT = ("steps", "log_every", "image_every", "evaluate_every", "save_every")
# What on the command line needs a plugin of the extra `sweep`, by the plugin's module.
PLUGINS = {
    **dict.fromkeys(("launch=joblib", "hydra/launcher=joblib"), "hydra_joblib_launcher"),
    **dict.fromkeys(
        ("launch=slurm", "launch=slurm_dry", "hydra/launcher=submitit_slurm", "hydra/launcher=submitit_local"),
        "hydra_submitit_launcher",
    ),
    **dict.fromkeys(("sweep=search", "hydra/sweeper=optuna"), "hydra_optuna_sweeper"),
}
C = TypeVar("C")


@dataclass
class PathsConfig:
    """Where files lie; relative paths start from the current folder."""

    runs: str = "runs"
    generator: str = ""  # .pkl as published, or .safetensors; empty: random weights of the sizes in `generator`
    encoder: str = ""  # stage 1's weights, of another run; empty: this run's own
    backbone: str = ""  # where the encoder starts: ImageNet weights in timm's naming; rivals: IR-SE50; empty: random
    canonical_stats: str = ""  # made by scripts/canonical_stats.py; empty: beside the generator


@dataclass
class PerceptionConfig:
    """The frozen networks behind losses and metrics; an empty path means the cache that fetch_weights.py fills."""

    lpips: str = "alex"  # alex | vgg | none
    lpips_path: str = ""
    identity: str = "arcface"  # arcface | face_resnet | facenet | mini | none; of the loss
    identity_path: str = ""
    background: str = "parser"  # parser | segmenter | mini | depth; which pixels of a front view are background
    background_path: str = ""
    background_depth: float = 3.0  # rule `depth`: background lies beyond this distance along the ray


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


class InRunFolder:
    """A job that leaves everything in one folder."""

    paths: PathsConfig
    run: str

    @property
    def run_dir(self) -> Path:
        """The folder of this run."""
        return Path(self.paths.runs) / self.run


@dataclass
class TrainConfig(InRunFolder):
    """Everything that scripts/train.py needs; each key is overridden as KEY=VALUE."""

    experiment_name: str = ""  # set by experiment=...; the default run name starts with it
    variant: str = ""  # which of a sweep's cells this is, set by sweep=...; part of the default run name
    run: str = ""  # empty: <experiment>-seed<seed>; the same name resumes
    method: str = "goae"  # goae | psp | e4e | ide3d: the encoders of the paper's Table 1; of rivals stage 1 alone
    stage: str = "all"  # all | encoder | refiner
    seed: int = 0
    device: str = "auto"  # auto | cpu | cuda
    num_devices: int = 1  # processes of one self-launched run; torchrun sets its own
    precision: str = "32-true"  # 32-true | bf16-mixed
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
class PriorConfig(InRunFolder):
    """scripts/train_prior.py: a generator, by EG3D's recipe, in the mini world after a supervised warm start."""

    experiment_name: str = ""
    run: str = ""
    stage: str = "all"  # all | warm_start | adversarial
    seed: int = 0
    device: str = "auto"
    num_devices: int = 1
    precision: str = "32-true"
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
        if self.stage not in PRIOR_STAGES:
            raise ValueError(f"stage is {self.stage!r}; expected one of {', '.join(PRIOR_STAGES)}")
        self.run = run_name(self)


@dataclass
class CameraConfig(InRunFolder):
    """scripts/train_camera.py: a camera regressor, trained on a generator's renders."""

    experiment_name: str = ""
    run: str = ""
    seed: int = 0
    device: str = "auto"
    num_devices: int = 1
    precision: str = "32-true"
    paths: PathsConfig = field(default_factory=PathsConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    regressor: RegressorConfig = field(default_factory=RegressorConfig)
    data: DataConfig = field(default_factory=DataConfig)  # poses: labels of `train`; also measured on `validation`
    camera: CameraStageConfig = field(default_factory=CameraStageConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)

    def __post_init__(self) -> None:
        self.run = run_name(self)


@dataclass
class BaselinesConfig:
    """Settings of the methods that optimise, by the names that `build.build_baseline` takes; configs/baselines/."""

    w: OptimizationConfig = field(default_factory=OptimizationConfig)
    w_plus: OptimizationConfig = field(default_factory=OptimizationConfig)
    pti: PTIConfig = field(default_factory=PTIConfig)
    pose_opt: PoseOptimizationConfig = field(default_factory=PoseOptimizationConfig)
    regressor: str = ""  # weights of the camera regressor, from which pose_opt starts


@dataclass
class EvaluateConfig:
    """scripts/evaluate.py and scripts/report.py: a trained run on its test images."""

    run: str = ""  # the run's name below `runs`
    runs: str = "runs"
    num_images: int = 0  # of the test set; 0: all
    batch_size: int = 10
    timing_images: int = 20  # images over which the time of one inversion is the median
    identity: str = ""  # identity network of the metric; empty: the run's own
    identity_path: str = ""
    shipped: str = ""  # folder of an encoder and a refiner for the same generator, measured beside the run; empty: none

    def __post_init__(self) -> None:
        if not self.run:
            raise ValueError("run is empty; give the name of a trained run, for example run=mini-seed0")
        if self.num_images < 0 or self.batch_size < 1 or self.timing_images < 1:
            raise ValueError("expected num_images >= 0, batch_size >= 1 and timing_images >= 1")

    @property
    def run_dir(self) -> Path:
        """The folder of the run."""
        return Path(self.runs) / self.run


@dataclass
class SweepReportConfig:
    """scripts/sweep_report.py: the runs of a sweep side by side."""

    name: str = ""  # of the sweep, sweep=NAME of scripts/train.py
    experiment_name: str = "mini"
    pattern: str = ""  # glob of run folders below `runs`; empty: <experiment_name>-<name>-*
    runs: str = "runs"
    num_images: int = 0  # of the test set; 0: all
    batch_size: int = 10
    timing_images: int = 20  # images over which the time of one inversion is the median
    identity: str = ""  # identity network of the metric; empty: the runs' own
    identity_path: str = ""
    output: str = ""  # of the page, the CSV beside it; empty: <runs>/<name>.html

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name is empty; give that of a sweep, for example name=table2")
        self.pattern = self.pattern or f"{self.experiment_name}-{self.name}-*"


@dataclass
class InvertConfig:
    """scripts/invert.py: photos to saved inversions."""

    input: str = ""  # an image, or a folder of them
    camera: str = ""  # a file of labels (dataset.json or label.json), or 25 numbers separated by commas
    regressor_path: str = ""  # instead of camera: a regressor of scripts/train_camera.py, which estimates each photo's
    output: str = "output"
    run: str = ""  # a trained run below `runs`; empty: the three files below
    runs: str = "runs"
    generator_path: str = ""  # keys other than the names of folders of configs/, which Hydra takes for groups
    encoder_path: str = ""
    refiner_path: str = ""
    preset_name: str = ""  # paper | official; empty: what the refiner was trained with
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.input or bool(self.camera) == bool(self.regressor_path):
            raise ValueError(
                "input and one of camera and regressor_path must be given, for example input=photo.png "
                "camera=dataset.json, or input=photo.png regressor_path=runs/mini_camera-seed0/camera.safetensors"
            )
        if not self.run and not (self.generator_path and self.encoder_path and self.refiner_path):
            raise ValueError("give run=NAME of a trained run, or generator_path=, encoder_path= and refiner_path=")


@dataclass
class PriorMetricsConfig:
    """scripts/prior_metrics.py: images of a generator against those of a data set."""

    weights: str = ""  # of a generator: .safetensors, or .pkl as published
    images: str = ""  # folder or zip in EG3D's format; its labels are those of the generated images
    floor_images: str = ""  # real ones whose distance from `images` is the floor; empty: between halves of `images`
    warm_start: str = ""  # a second generator, as it was at the end of the warm start, measured alike
    previous: str = ""  # a third, from before
    images_seen: int = 0  # by the generator while training; 0: as the run folder tells that holds the weights
    distribution: DistributionConfig = field(default_factory=DistributionConfig)
    seed: int = 0
    device: str = "auto"  # auto | cpu | cuda
    output: str = ""  # empty: beside the weights, <stem>-metrics.json
    metrics: str = ""  # file of numbers whose section `prior` gets them, for the shipped generator; empty: none

    def __post_init__(self) -> None:
        missing = [name for name in ("weights", "images") if not getattr(self, name)]
        if missing:
            raise ValueError(
                f"{' and '.join(missing)} must be given, for example "
                f"weights=runs/mini_prior-seed0/adversarial.safetensors images=data/mini-prior/val.zip"
            )
        if self.images_seen < 0:
            raise ValueError(f"images_seen is {self.images_seen}; expected at least 0")
        check_device(self.device)


@dataclass
class CheckMetersConfig:
    """scripts/check_meters.py: whether the meters of the tables can tell procedural people apart."""

    multiview: str = "data/mini/multiview.zip"  # unseen people with every expression from every view
    test: str = "data/mini/test.zip"  # unseen people with depth, parts and attributes, for the perception network
    meters: list[str] = field(default_factory=lambda: list(METERS))  # names in goae/evaluation/meters.py
    lpips_path: str = ""  # empty paths: the cache that fetch_weights.py fills, the mini network the shipped file
    face_resnet_path: str = ""
    vgg_path: str = ""
    perception_path: str = ""
    batch_size: int = 50
    resamples: int = 1000  # of people and images, for the intervals
    seed: int = 0
    device: str = "auto"  # auto | cpu | cuda
    metrics: str = "goae/assets/mini/metrics.json"  # sections `meters` and `perception`; another file for a trial

    def __post_init__(self) -> None:
        unknown = [name for name in self.meters if name not in METERS]
        if unknown:
            raise ValueError(f"meters has {', '.join(unknown)}; expected names out of {', '.join(METERS)}")
        if self.batch_size < 1 or self.resamples < 2:
            raise ValueError(f"batch_size {self.batch_size}, resamples {self.resamples}; expected at least 1 and 2")
        check_device(self.device)


@dataclass
class InvertHeadsConfig:
    """scripts/invert_heads.py: inversion of procedural heads by optimisation, and what it has to beat."""

    generator_path: str = "goae/assets/mini/generator.safetensors"
    train: str = "data/mini/train.zip"  # of the mean image and of the nearest
    test: str = "data/mini/test.zip"
    num_images: int = 200  # of the test images, from the first; 0: all
    spaces: list[str] = field(default_factory=lambda: list(SPACES))  # w | w_plus
    batch_size: int = 20  # images whose codes are found together, and lost together if the run is stopped
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)
    lpips_path: str = ""  # empty: the cache
    num_shown: int = 8  # rows of the picture, from the first batch
    device: str = "auto"  # auto | cpu | cuda
    output: str = "runs/invert_heads"
    metrics: str = "goae/assets/mini/metrics.json"  # its section `prior`; empty: only the summary, for a trial

    def __post_init__(self) -> None:
        if not self.spaces or set(self.spaces) - set(SPACES):
            raise ValueError(f"spaces is {self.spaces}; expected some of {', '.join(SPACES)}")
        if self.num_images < 0 or self.batch_size < 1 or self.num_shown < 1:
            raise ValueError("expected num_images >= 0, batch_size >= 1 and num_shown >= 1")
        check_device(self.device)


@dataclass
class FiguresConfig:
    """scripts/figures.py: a figure of the paper, measured and drawn."""

    figure: int = 0  # its number in the paper; 0: list them
    generator_path: str = "goae/assets/mini/generator.safetensors"
    networks: PerceptionConfig = field(default_factory=PerceptionConfig)
    conditions: ConditionsConfig = field(default_factory=ConditionsConfig)  # Fig. 3
    shown: int = 0  # which of the z is drawn
    images: str = "data/mini/test.zip"  # folder or zip in EG3D's format, of the figures with inversions
    subjects: list[int] = field(default_factory=lambda: [0, 1, 2, 3])  # which of them
    yaws: list[float] = field(default_factory=lambda: [-40.0, -20.0, 0.0, 20.0, 40.0])  # degrees; Fig. 14, 15
    novel_yaws: list[float] = field(default_factory=lambda: [-30.0, 30.0])  # degrees; Fig. 6, 12, 13
    runs: str = "runs"  # where the runs lie that the following name
    ours: str = "mini-seed0"
    encoders: dict[str, str] = field(default_factory=dict)  # label -> run; Fig. 7
    refiners: dict[str, str] = field(default_factory=dict)  # label -> run; Fig. 8
    compared: dict[str, str] = field(default_factory=dict)  # label -> run, pti or pose_opt; Fig. 6, 12, 13
    optimisers: BaselinesConfig = field(default_factory=BaselinesConfig)  # of pti and pose_opt
    device: str = "auto"  # auto | cpu | cuda
    output: str = "runs/figures"
    metrics: str = "goae/assets/mini/metrics.json"  # empty: only the picture, for a trial

    def __post_init__(self) -> None:
        if not 0 <= self.shown < self.conditions.num_z:
            raise ValueError(f"shown is {self.shown}; expected a number below conditions.num_z {self.conditions.num_z}")
        check_device(self.device)


@dataclass
class BenchConfig:
    """scripts/bench.py: speed and memory against the plain reference."""

    parts: list[str] = field(default_factory=list)  # names in goae/benchmark/parts.py; empty: all
    repeats: int = 5  # timed runs of each side, in turns
    batch_size: int = 1  # of the parts that are no mini training steps
    output: str = ""  # JSON, the chart beside it; empty: docs/results/bench/, for a choice of parts runs/bench/
    update: bool = False  # replace the measured parts in the record of all, docs/results/bench/, and keep the others
    device: str = "auto"  # auto | cpu | cuda
    num_threads: int = 0  # 0: PyTorch's default
    # What is measured: overrides of configs/train.yaml and configs/train_prior.yaml; no generator: random weights
    full: list[str] = field(default_factory=lambda: ["experiment=ffhq", "preset=official", "paths.generator="])
    mini: list[str] = field(default_factory=lambda: ["experiment=mini"])
    prior: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.repeats < 1 or self.batch_size < 1 or self.num_threads < 0:
            raise ValueError("expected repeats >= 1, batch_size >= 1 and num_threads >= 0")
        check_device(self.device)


@dataclass
class SetsConfig:
    """A path for each protocol."""

    input_view: str = ""
    novel_view: str = ""

    def of(self, protocol: str) -> str:
        """The path of a protocol."""
        return str(getattr(self, protocol))


@dataclass
class RivalsConfig:
    """The rivals' weights: for each the folder of a run, or the encoder.safetensors of one."""

    psp: str = ""
    e4e: str = ""
    ide3d: str = ""
    parts_path: str = ""  # weights of the network of part labels that ide3d was trained with; empty: shipped or cached


@dataclass
class SubsetConfig:
    """How many inversions methods that optimise make, drawn by the seed over as many persons as there are; 0: all."""

    input_view: int = 0
    side: int = 0  # novel views, of each group of inputs that are not frontal
    front: int = 0
    seed: int = 0
    timing_images: int = 3  # in the place of the protocol's, after one uncounted inversion

    def __post_init__(self) -> None:
        if min(self.input_view, self.side, self.front, self.timing_images) < 0:
            raise ValueError("subset has a number below 0; expected at least 0 everywhere")


@dataclass
class ProtocolConfig:
    """scripts/eval_celebahq.py and scripts/eval_mead.py: methods on a test set by one of the paper's protocols."""

    protocol: str = "input_view"  # input_view | novel_view
    world_name: str = ""  # set by world=mini|full
    images: SetsConfig = field(default_factory=SetsConfig)  # folders or zips in EG3D's format
    pseudo_depth: SetsConfig = field(default_factory=SetsConfig)  # metrics.geometry=folder: a folder of depth maps
    resolution: int = 512  # of the images
    metric_resolution: int = 256  # images are averaged down to this size before all metrics
    radius: float = 2.7  # every camera's distance from the origin; 0 switches the check off
    yaws: list[float] = field(default_factory=lambda: [-60.0, -30.0, 0.0, 30.0, 60.0])  # novel_view: of view 0, 1, ...
    inputs: list[float] = field(default_factory=lambda: [60.0, 0.0])  # novel_view: absolute yaws of inverted views
    num_inputs: int = 0  # inversions, the first of the set; 0: all
    methods: list[str] = field(default_factory=lambda: ["w_avg", "w_plus", "full"])  # names in goae/build/methods.py
    run: str = ""  # a trained run below `runs`; the three files below go before it
    runs: str = "runs"
    generator_path: str = ""
    encoder_path: str = ""
    refiner_path: str = ""
    preset_name: str = ""  # paper | official; empty: what the refiner was trained with
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    batch_size: int = 4
    rivals: RivalsConfig = field(default_factory=RivalsConfig)
    baselines: BaselinesConfig = field(default_factory=BaselinesConfig)  # of the methods that optimise
    subset: SubsetConfig = field(default_factory=SubsetConfig)  # the inputs of the methods that optimise
    resamples: int = 1000  # of persons, for the intervals
    timing_images: int = 20  # input_view: images over which the time of one inversion is the median; 0: no timing
    warm_up: int = 3  # uncounted inversions before
    device: str = "auto"  # auto | cpu | cuda
    num_devices: int = 1  # processes; under torchrun as many as it starts
    output: str = ""  # empty: <runs>/<run>/<protocol>
    records: str = ""  # file of numbers whose section `goae` gets those of w_plus and full; empty: none

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol is {self.protocol!r}; expected one of {', '.join(PROTOCOLS)}")
        files = [self.generator_path, self.encoder_path, self.refiner_path]
        if any(files) and not all(files):
            raise ValueError("of generator_path, encoder_path and refiner_path give all, or none and run=NAME")
        if any(files) and not self.output:
            raise ValueError("output is empty; name a folder for the results of these files with output=FOLDER")
        if not any(files) and not self.run:
            raise ValueError("give run=NAME of a trained run, or generator_path=, encoder_path= and refiner_path=")
        if self.resolution % self.metric_resolution:
            raise ValueError(f"metric_resolution {self.metric_resolution} must divide the resolution {self.resolution}")
        if min(self.num_inputs, self.timing_images, self.warm_up) < 0 or min(self.batch_size, self.resamples) < 1:
            raise ValueError("expected num_inputs, timing_images, warm_up >= 0 and batch_size, resamples >= 1")
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods is {self.methods}; expected one or more names, each once")
        if self.records and not set(self.methods) & set(RECORDED_METHODS):
            raise ValueError(f"records is {self.records}, but methods has none of {', '.join(RECORDED_METHODS)}")
        check_device(self.device)

    @property
    def precision(self) -> str:
        """Numbers are measured in single precision."""
        return "32-true"

    @property
    def folder(self) -> Path:
        """Where results go."""
        return Path(self.output) if self.output else Path(self.runs) / self.run / self.protocol


@dataclass
class RowsConfig:
    """Runs below `runs` that the rows of the paper's tables come from; numbers of several are averaged."""

    full: list[str] = field(default_factory=list)  # Table 1: Ours-w+, Ours
    optimization: list[str] = field(default_factory=list)  # whose generator and encoder PTI and Pose Opt. use
    psp: list[str] = field(default_factory=list)
    e4e: list[str] = field(default_factory=list)
    ide3d: list[str] = field(default_factory=list)
    no_adv_no_bg: list[str] = field(default_factory=list)  # Table 2: w/o D_Wc, w/o L_BG
    no_adv: list[str] = field(default_factory=list)  # w/o D_Wc, w/ L_BG
    no_bg: list[str] = field(default_factory=list)  # w/ D_Wc, w/o L_BG
    adv_bg: list[str] = field(default_factory=list)  # w/ D_Wc, w/ L_BG
    no_mix: list[str] = field(default_factory=list)  # shown without the mix, whatever they were trained with
    afa: list[str] = field(default_factory=list)  # Table 2: Ours; Table 3: w/ AFA
    conv: list[str] = field(default_factory=list)  # Table 3: w/ conv
    experiment: str = ""  # of train.py, for the commands that make missing runs
    camera: str = ""  # of train_camera.py


@dataclass
class TablesConfig(ProtocolConfig):
    """scripts/tables.py: a table of the paper, or its claims; what is missing is measured with the protocols' keys.

    `protocol`, `methods` and `run` follow from the table; `output` is where its files go.
    """

    table: int = 0  # 1 | 2 | 3
    claims: bool = False  # write the page of claims from the tables that are there
    partial: bool = False  # write a table that lacks rows, and say so in it
    rows: RowsConfig = field(default_factory=RowsConfig)
    records: str = "goae/assets/mini/metrics.json"  # world mini: what check_meters.py found of the meters

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.table not in (0, *TABLES):
            raise ValueError(f"table is {self.table}; expected one of {', '.join(map(str, TABLES))}")
        if not self.table and not self.claims:
            raise ValueError("give table=1, 2 or 3, or claims=true")
        if self.generator_path:
            raise ValueError("tables are made of runs, rows.*; generator_path and the other two files have no place")

    @property
    def folder(self) -> Path:
        """Where the tables go."""
        return Path(self.output) if self.output else Path("docs/results") / self.world_name

    def protocol_config(self, protocol: str, run: str, methods: list[str]) -> ProtocolConfig:
        """How methods of a run are measured, in that run's folder."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(ProtocolConfig)}
        own = {"protocol": protocol, "run": run, "methods": methods, "output": "", "records": ""}
        return ProtocolConfig(**values | own)


StagedConfig = TrainConfig | PriorConfig  # of jobs with several stages
RunConfig = StagedConfig | CameraConfig


def check_device(device: str) -> None:
    """Raises: ValueError if there is no device of this name."""
    if device not in DEVICES:
        raise ValueError(f"device is {device!r}; expected one of {', '.join(DEVICES)}")


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


def has_plugin(module: str) -> bool:
    """Whether a Hydra plugin is installed."""
    return find_spec("hydra_plugins") is not None and find_spec(f"hydra_plugins.{module}") is not None


def require_plugins(arguments: Sequence[str]) -> None:
    """Check that the Hydra plugins that a command line asks for are installed; Hydra's own message names no remedy.

    Raises: ValueError with the command that installs them.
    """
    for argument in arguments:
        plugin = PLUGINS.get(argument)
        if plugin and not has_plugin(plugin):
            raise ValueError(
                f"{argument} needs the Hydra plugin {plugin}, which is not installed; install the extra `sweep` with "
                f"`pip install -e '.[sweep]'`"
            )


def register() -> None:
    """Make the schemas known to Hydra, so that a wrong key or type fails while composing."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="prior_schema", node=PriorConfig)
    store.store(name="train_camera_schema", node=CameraConfig)
    store.store(name="evaluate_schema", node=EvaluateConfig)
    store.store(name="sweep_report_schema", node=SweepReportConfig)
    store.store(name="invert_schema", node=InvertConfig)
    store.store(name="prior_metrics_schema", node=PriorMetricsConfig)
    store.store(name="check_meters_schema", node=CheckMetersConfig)
    store.store(name="invert_heads_schema", node=InvertHeadsConfig)
    store.store(name="figures_schema", node=FiguresConfig)
    store.store(name="bench_schema", node=BenchConfig)
    store.store(name="protocol_schema", node=ProtocolConfig)
    store.store(name="tables_schema", node=TablesConfig)


def to_object(composed: DictConfig, schema: type[C]) -> C:
    """The dataclasses of a composed configuration, checked."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, schema)
    return config


def to_plain(config: RunConfig) -> dict[str, Any]:
    """Nested dictionaries of plain values."""
    return dataclasses.asdict(config)


def claim_run(config: RunConfig) -> None:
    """Store the configuration in the run folder, or check that the run that is there was started with it.

    Raises: ValueError listing each key that differs, except those that may change (steps, logging, device).
    """
    path = config.run_dir / "config.yaml"
    if path.exists():
        stored, current = flatten(to_plain(load_run(config.run_dir, type(config)))), flatten(to_plain(config))
        differ = [k for k in sorted(stored | current) if stored.get(k) != current.get(k) and not _free(k, config)]
        if differ:
            lines = "; ".join(f"{k}: {stored.get(k)!r} in the run, {current.get(k)!r} now" for k in differ)
            raise ValueError(
                f"The run {config.run_dir} was started with another configuration ({lines}). Choose another name with "
                f"run=NAME, or delete the folder to start it again."
            )
    config.run_dir.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(OmegaConf.to_yaml(OmegaConf.create(to_plain(config))))
    partial.replace(path)


def load_run(run_dir: Path, schema: type[C]) -> C:
    """The configuration that a run folder holds.

    Raises: FileNotFoundError if it is no run folder; ValueError if its keys are not those of this version.
    """
    path = run_dir / "config.yaml"
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist, so {run_dir} is no run folder. Give the name of a run below the runs folder, "
            f"for example run=mini-seed0, or start one with `python scripts/train.py`."
        )
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.load(path))
    except Exception as error:  # OmegaConf raises many kinds, all of them about the file's content
        raise ValueError(f"{path} does not fit this version of the configuration: {error}") from error
    assert isinstance(merged, DictConfig)
    return to_object(merged, schema)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries to one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _free(key: str, config: RunConfig) -> bool:
    if key.startswith("rival.") and isinstance(config, TrainConfig) and config.method == "goae":
        return True  # not used; runs from before there were rivals go on
    if any(key == name or key.startswith(f"{name}.") for name in FREE):
        return True
    return ".fit." in key and key.rsplit(".", 1)[-1] in FREE_FIT
