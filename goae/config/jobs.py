"""Schemas of the scripts that measure, invert, and draw."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from goae.baselines.optimization import SPACES, OptimizationConfig
from goae.baselines.pose_optimization import PoseOptimizationConfig
from goae.baselines.pti import PTIConfig
from goae.config.training import Operators, PerceptionConfig, check_device, find_run
from goae.editing.directions import EditConfig
from goae.editing.interfacegan import InterFaceGANConfig
from goae.evaluation.conditions import ConditionsConfig
from goae.evaluation.distribution import DistributionConfig
from goae.evaluation.meters import METERS
from goae.paths import path


@dataclass
class BaselinesConfig:
    """Settings of the methods that optimise, by the names that `build.build_baseline` takes; configs/baselines/."""

    w: OptimizationConfig = field(default_factory=OptimizationConfig)
    w_plus: OptimizationConfig = field(default_factory=OptimizationConfig)
    pti: PTIConfig = field(default_factory=PTIConfig)
    pose_opt: PoseOptimizationConfig = field(default_factory=PoseOptimizationConfig)
    regressor: str = path()  # weights of the camera regressor, from which pose_opt starts


@dataclass
class EvaluateConfig(Operators):
    """scripts/evaluate.py and scripts/report.py: a trained run on its test images."""

    run: str = ""  # a trained run below `runs`, or a shipped one
    runs: str = path("runs")
    num_images: int = 0  # of the test set; 0: all
    batch_size: int = 10
    timing_images: int = 20  # images over which the time of one inversion is the median
    identity: str = ""  # identity network of the metric; empty: the run's own; none: without
    identity_path: str = path()
    shipped: str = path()  # folder of an encoder and a refiner for the same generator, measured beside the run

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.run:
            raise ValueError("run is empty; give the name of a trained run, for example run=mini-seed0")
        if self.num_images < 0 or self.batch_size < 1 or self.timing_images < 1:
            raise ValueError("expected num_images >= 0, batch_size >= 1 and timing_images >= 1")

    @property
    def run_dir(self) -> Path:
        """The folder of the run."""
        return find_run(self.runs, self.run)

    @property
    def folder(self) -> Path:
        """Where its evaluation and its report go, also those of a shipped run."""
        return Path(self.runs) / self.run


@dataclass
class SweepReportConfig(Operators):
    """scripts/sweep_report.py: the runs of a sweep side by side."""

    name: str = ""  # of the sweep, sweep=NAME of scripts/train.py
    experiment_name: str = "mini"
    pattern: str = ""  # glob of run folders below `runs`; empty: <experiment_name>-<name>-*
    runs: str = path("runs")
    num_images: int = 0  # of the test set; 0: all
    batch_size: int = 10
    timing_images: int = 20  # images over which the time of one inversion is the median
    identity: str = ""  # identity network of the metric; empty: the runs' own; none: without
    identity_path: str = path()
    output: str = path(written=True)  # of the page, the CSV beside it; empty: <runs>/<experiment_name>-<name>.html

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name:
            raise ValueError("name is empty; give that of a sweep, for example name=table2")
        self.pattern = self.pattern or f"{self.experiment_name}-{self.name}-*"


@dataclass
class InvertConfig(Operators):
    """scripts/invert.py: photos to saved inversions."""

    input: str = path()  # an image, or a folder or zip of them, subfolders included
    camera: Any = path()  # a file of labels (dataset.json), a folder or zip with one, or 25 numbers: a list or a text
    regressor_path: str = path()  # instead of camera: a regressor of scripts/train_camera.py estimates each photo's
    output: str = path("output", written=True)
    run: str = ""  # a trained run below `runs`, or a shipped one; empty: the three files below
    runs: str = path("runs")
    generator_path: str = path()  # keys other than the names of folders of configs/, which Hydra takes for groups
    encoder_path: str = path()
    refiner_path: str = path()
    preset_name: str = ""  # paper | official; empty: what the refiner was trained with
    edits: list[EditConfig] = field(default_factory=list)  # a picture edit-LABEL.png for each
    glasses: str = path()  # the direction of glasses, of which the official preset takes a share off other edits
    device: str = "auto"
    force_fp32: bool = False  # super-resolution in float32 on CUDA, too, as where the run says so

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.camera, str):
            self.camera = ",".join(map(str, self.camera))
        if not self.input or bool(self.camera) == bool(self.regressor_path):
            raise ValueError(
                "input and one of camera and regressor_path must be given, for example input=photo.png "
                "camera=dataset.json, or input=photo.png regressor_path=goae/assets/mini/camera.safetensors"
            )
        files = [self.generator_path, self.encoder_path, self.refiner_path]
        if any(files) if self.run else not all(files):
            raise ValueError(
                "give either run=NAME of a trained run, or all of generator_path=, encoder_path= and refiner_path="
            )
        labels = [edit.label for edit in self.edits]
        if len({label.casefold() for label in labels}) < len(labels):
            raise ValueError(
                f"edits has the labels {labels}, and a picture edit-LABEL.png for each; give each one once"
            )
        check_device(self.device)


@dataclass
class PriorMetricsConfig(Operators):
    """scripts/prior_metrics.py: images of a generator against those of a data set."""

    weights: str = path()  # of a generator: .safetensors, or .pkl as published
    images: str = path()  # folder or zip in EG3D's format; its labels are those of the generated images
    floor_images: str = path()  # real ones whose distance from `images` is the floor; empty: between halves of `images`
    warm_start: str = path()  # a second generator, as it was at the end of the warm start, measured alike
    previous: str = path()  # a third, from before
    heads: int = 0  # procedural heads of `images` that are also rendered from their true factors; 0: none
    images_seen: int = 0  # by the generator while training; 0: as the run folder tells that holds the weights
    distribution: DistributionConfig = field(default_factory=DistributionConfig)
    seed: int = 0
    device: str = "auto"  # auto | cpu | cuda | cuda:N
    output: str = path(written=True)  # empty: beside the weights, <stem>-metrics.json
    metrics: str = path(written=True)  # file of numbers whose section `prior` gets those of the shipped generator

    def __post_init__(self) -> None:
        super().__post_init__()
        missing = [name for name in ("weights", "images") if not getattr(self, name)]
        if missing:
            raise ValueError(
                f"{' and '.join(missing)} must be given, for example "
                f"weights=runs/mini_prior-seed0/adversarial.safetensors images=data/mini-prior/val.zip"
            )
        for name in ("images_seen", "heads"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 0")
        check_device(self.device)


@dataclass
class CheckMetersConfig(Operators):
    """scripts/check_meters.py: whether the meters of the tables can tell procedural people apart."""

    multiview: str = path("data/mini/multiview.zip")  # unseen people with every expression from every view
    test: str = path("data/mini/test.zip")  # unseen people with depth, parts and attributes, for the perception network
    meters: list[str] = field(default_factory=lambda: list(METERS))  # names in goae/evaluation/meters.py
    lpips_path: str = path()  # empty paths: the cache that fetch_weights.py fills, the mini network the shipped file
    face_resnet_path: str = path()
    vgg_path: str = path()
    perception_path: str = path()
    batch_size: int = 50
    resamples: int = 1000  # of people and images, for the intervals
    seed: int = 0
    device: str = "auto"  # auto | cpu | cuda | cuda:N
    metrics: str = path("goae/assets/mini/metrics.json", written=True)  # its sections `meters` and `perception`

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [name for name in self.meters if name not in METERS]
        if unknown:
            raise ValueError(f"meters has {', '.join(unknown)}; expected names out of {', '.join(METERS)}")
        if self.batch_size < 1 or self.resamples < 2:
            raise ValueError(f"batch_size {self.batch_size}, resamples {self.resamples}; expected at least 1 and 2")
        check_device(self.device)


@dataclass
class InvertHeadsConfig(Operators):
    """scripts/invert_heads.py: inversion of procedural heads by optimisation, and what it has to beat."""

    generator_path: str = path("goae/assets/mini/generator.safetensors")
    train: str = path("data/mini/train.zip")  # of the mean image and of the nearest
    test: str = path("data/mini/test.zip")
    num_images: int = 200  # of the test images, from the first; 0: all
    spaces: list[str] = field(default_factory=lambda: list(SPACES))  # w | w_plus
    batch_size: int = 20  # images whose codes are found together, and lost together if the run is stopped
    optimization: OptimizationConfig = field(default_factory=OptimizationConfig)
    lpips_path: str = path()  # empty: the cache
    num_shown: int = 8  # rows of the picture, from the first batch
    device: str = "auto"  # auto | cpu | cuda | cuda:N
    output: str = path("runs/invert_heads", written=True)
    metrics: str = path("goae/assets/mini/metrics.json", written=True)  # its section `prior`; empty: for a trial

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.spaces or set(self.spaces) - set(SPACES):
            raise ValueError(f"spaces is {self.spaces}; expected some of {', '.join(SPACES)}")
        if self.num_images < 0 or self.batch_size < 1 or self.num_shown < 1:
            raise ValueError("expected num_images >= 0, batch_size >= 1 and num_shown >= 1")
        check_device(self.device)


@dataclass
class FiguresConfig(Operators):
    """scripts/figures.py: a figure of the paper, measured and drawn."""

    figure: int = 0  # its number in the paper; 0: list them
    generator_path: str = path("goae/assets/mini/generator.safetensors")
    networks: PerceptionConfig = field(default_factory=PerceptionConfig)
    conditions: ConditionsConfig = field(default_factory=ConditionsConfig)  # Fig. 3
    shown: int = 0  # which of the z is drawn
    cats: bool = False  # whether the subjects are cats, of which Fig. 16 and 19 are
    images: str = path("data/mini/test.zip")  # folder or zip in EG3D's format, of the figures with inversions
    subjects: list[int] = field(default_factory=lambda: [0, 1, 2, 3])  # which of them
    yaws: list[float] = field(default_factory=lambda: [-40.0, -20.0, 0.0, 20.0, 40.0])  # degrees; Fig. 14 to 16
    novel_yaws: list[float] = field(default_factory=lambda: [-30.0, 30.0])  # degrees; Fig. 1, 6, 10, 12, 13, 17 to 19
    runs: str = path("runs")  # where the runs lie that the following name
    ours: str = "mini-seed0"
    encoders: dict[str, str] = field(default_factory=dict)  # label -> run; Fig. 7
    num_fronts: int = (
        100  # Fig. 7: test images whose background's depth is measured, by conditions.erode and .batch_size
    )
    refiners: dict[str, str] = field(default_factory=dict)  # label -> run; Fig. 8
    multiview: str = path()  # Fig. 9: images with true depth and part labels, five views each; empty: not measured
    num_sides: int = 43  # Fig. 9: inputs from the side that are measured
    compared: dict[str, str] = field(default_factory=dict)  # label -> run, pti or pose_opt; Fig. 6, 12, 13
    edits: list[EditConfig] = field(default_factory=list)  # Fig. 1, 10, 17, 18
    glasses: str = path()  # as for scripts/invert.py
    optimisers: BaselinesConfig = field(default_factory=BaselinesConfig)  # of pti and pose_opt
    device: str = "auto"  # auto | cpu | cuda | cuda:N
    output: str = path("runs/figures", written=True)
    metrics: str = path("goae/assets/mini/metrics.json", written=True)  # empty: only the picture, for a trial

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.shown < self.conditions.num_z:
            raise ValueError(f"shown is {self.shown}; expected a number below conditions.num_z {self.conditions.num_z}")
        check_device(self.device)


@dataclass
class DirectionsConfig(Operators):
    """scripts/train_directions.py: edit directions of a generator."""

    generator_path: str = path("goae/assets/mini/generator.safetensors")
    attributes: list[str] = field(default_factory=lambda: ["glasses", "smile", "age"])
    sampling: InterFaceGANConfig = field(default_factory=InterFaceGANConfig)
    orthogonal: dict[str, list[str]] = field(default_factory=dict)  # attribute -> those that its direction leaves alone
    network_path: str = path()  # of the mini perception network, which scores; empty: the shipped one
    export: str = path(written=True)  # folder of pictures and codes of heads, to be scored elsewhere; then it ends
    codes: str = path()  # such a folder, with
    scores: str = path()  # a CSV: name (of the picture) and a column for each attribute, more is higher
    num_measured: int = 100  # fresh heads on which the effect is measured
    output: str = path("runs/directions", written=True)
    device: str = "auto"  # auto | cpu | cuda | cuda:N

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.codes) != bool(self.scores) or (self.codes and self.export):
            raise ValueError("give codes= and scores= together, or export= alone, or none of them")
        if not self.attributes or self.num_measured < 4:
            raise ValueError(f"attributes is {self.attributes}, num_measured {self.num_measured}; expected some, and 4")
        check_device(self.device)


@dataclass
class EditsConfig(Operators):
    """scripts/eval_edits.py: edits of inverted heads, from several views."""

    run: str = "mini_long-seed0"  # of both stages
    runs: str = path("runs")
    images: str = path("data/mini/test.zip")  # folder or zip in EG3D's format
    num_images: int = 0  # from the first; 0: all
    batch_size: int = 10
    yaws: list[float] = field(default_factory=lambda: [-40.0, -20.0, 0.0, 20.0, 40.0])  # degrees, level cameras
    edits: list[EditConfig] = field(default_factory=list)  # each direction's file is named after its attribute
    glasses: str = path()  # as for scripts/invert.py
    network_path: str = path()  # of the mini perception network, which scores; empty: the shipped one
    resamples: int = 1000  # of the intervals
    device: str = "auto"  # auto | cpu | cuda | cuda:N
    output: str = path("docs/results/mini/edits.json", written=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        labels = [edit.label for edit in self.edits]
        if not labels or len(set(labels)) < len(labels):
            raise ValueError(f"edits has the labels {labels}; expected some, each of them once")
        if self.num_images < 0 or self.batch_size < 1 or self.resamples < 2 or len(self.yaws) < 2:
            raise ValueError("expected num_images >= 0, batch_size >= 1, resamples >= 2 and at least two yaws")
        check_device(self.device)


@dataclass
class CheckGPUConfig(Operators):
    """scripts/check_gpu.py: what a GPU does with the kernels and the training."""

    minutes: float = 8.0  # what is not measured by then is left out
    sections: list[str] = field(default_factory=list)  # keys of SHARES in goae/benchmark/check.py; empty: all
    tests: list[str] = field(default_factory=list)  # files whose tests of a GPU are run; empty: all that have some
    steps: int = 30  # of each stage, at its own batch size
    batches: list[int] = field(default_factory=lambda: [1, 2, 4, 8])  # other sizes, rising, until one is too large
    parts: list[str] = field(default_factory=list)  # of the benchmark; empty: those of full size
    repeats: int = 3  # timed runs of each part
    output: str = path(written=True)  # JSON; empty: docs/results/bench/gpu.json, of a CPU runs/bench/check.json
    device: str = "auto"  # auto | cuda | cpu, which must be asked for
    full: list[str] = field(default_factory=lambda: ["experiment=ffhq", "paths.generator=random"])  # what is trained

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.minutes <= 0 or self.steps < 1 or self.repeats < 1 or min([*self.batches, 1]) < 1:
            raise ValueError("expected minutes > 0, steps >= 1, repeats >= 1 and batches of at least one image")
        check_device(self.device)


@dataclass
class BenchConfig(Operators):
    """scripts/bench.py: speed and memory against the plain reference."""

    parts: list[str] = field(default_factory=list)  # names in goae/benchmark/parts.py; empty: all
    repeats: int = 5  # timed runs of each side, in turns
    batch_size: int = 1  # of the parts that are no mini training steps
    output: str = path(written=True)  # JSON, the chart beside it; empty: docs/results/bench/; of some parts runs/bench/
    update: bool = False  # replace the measured parts in the record of all, docs/results/bench/, and keep the others
    device: str = "auto"  # auto | cpu | cuda | cuda:N
    num_threads: int = 0  # 0: PyTorch's default
    # What is measured: overrides of configs/train.yaml and configs/train_prior.yaml
    full: list[str] = field(default_factory=lambda: ["experiment=ffhq", "preset=official", "paths.generator=random"])
    mini: list[str] = field(default_factory=lambda: ["experiment=mini"])
    prior: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.repeats < 1 or self.batch_size < 1 or self.num_threads < 0:
            raise ValueError("expected repeats >= 1, batch_size >= 1 and num_threads >= 0")
        check_device(self.device)
