"""Schemas of the paper's protocols and of its tables."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from goae.config.jobs import BaselinesConfig
from goae.config.training import Operators, check_device, find_run
from goae.evaluation.measuring import MetricsConfig
from goae.evaluation.paper_tables import TABLES
from goae.evaluation.protocols import PROTOCOLS, RECORDED_METHODS
from goae.paths import path


@dataclass
class SetsConfig:
    """A path for each protocol."""

    input_view: str = path()
    novel_view: str = path()

    def of(self, protocol: str) -> str:
        """The path of a protocol."""
        return str(getattr(self, protocol))


@dataclass
class RivalsConfig:
    """The rivals' weights: for each the folder of a run, or the encoder.safetensors of one."""

    psp: str = path()
    e4e: str = path()
    ide3d: str = path()
    parts_path: str = path()  # weights of the part labels that ide3d was trained with; empty: shipped or cached


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
class ProtocolConfig(Operators):
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
    run: str = ""  # a trained run below `runs`, or a shipped one; the three files below go before it
    runs: str = path("runs")
    generator_path: str = path()
    encoder_path: str = path()
    refiner_path: str = path()
    preset_name: str = ""  # paper | official; empty: what the refiner was trained with
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    batch_size: int = 4
    rivals: RivalsConfig = field(default_factory=RivalsConfig)
    baselines: BaselinesConfig = field(default_factory=BaselinesConfig)  # of the methods that optimise
    subset: SubsetConfig = field(default_factory=SubsetConfig)  # the inputs of the methods that optimise
    resamples: int = 1000  # of persons, for the intervals
    timing_images: int = 20  # input_view: images over which the time of one inversion is the median; 0: no timing
    warm_up: int = 3  # uncounted inversions before
    device: str = "auto"  # auto | cpu | cuda | cuda:N
    num_devices: int = 1  # processes on this machine; torchrun has to start as many
    force_fp32: bool = False  # super-resolution in float32 on CUDA, too, as where the run says so
    output: str = path(written=True)  # empty: <runs>/<run>/<protocol>
    records: str = path(written=True)  # file of numbers whose section `goae` gets those of w_plus and full; empty: none

    def __post_init__(self) -> None:
        super().__post_init__()
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
    """Runs, named <experiment>-..., that the rows of the paper's tables come from; numbers of several are averaged."""

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
    camera: str = ""  # of train_camera.py


@dataclass
class TablesConfig(ProtocolConfig):
    """scripts/tables.py: a table of the paper, or its claims; what is missing is measured with the protocols' keys.

    `protocol`, `methods` and `run` follow from the table; `output` is where its files go, and below it what was
    measured: `measured/<run>/<protocol>`.
    """

    table: int = 0  # 1 | 2 | 3
    claims: bool = False  # write the page of claims from the tables that are there
    partial: bool = False  # write a table that lacks rows, and say so in it
    rows: RowsConfig = field(default_factory=RowsConfig)
    records: str = path("goae/assets/mini/metrics.json")  # world mini: what check_meters.py found of the meters

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
        """How methods of a run are measured."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(ProtocolConfig)}
        own = {"protocol": protocol, "run": run, "methods": methods, "records": ""}
        folders = {
            "runs": str(find_run(self.runs, run).parent),
            "output": str(self.folder / "measured" / run / protocol),
        }
        return ProtocolConfig(**values | own | folders)
