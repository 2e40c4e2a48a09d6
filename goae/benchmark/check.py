"""Check a GPU in a few minutes: whether the kernels build and compute, and how fast the method trains.

Each section runs in processes of its own and is written when it is there, so that one that fails, hangs or runs out of
time costs nothing of the others.
"""

import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from eg3d.ops import build as operators
from eg3d.ops import first_use
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from goae.benchmark.child import PartError, Setting, TimeUpError, measure_machine, measure_part, run_apart
from goae.benchmark.machine import Machine
from goae.benchmark.parts import Worlds
from goae.benchmark.recipe import measure_stage
from goae.benchmark.report import part_values, tell_check, write_json
from goae.benchmark.run import RECORD, SCRATCH
from goae.config import CheckGPUConfig, PriorConfig, TrainConfig
from goae.runs.setup import named_device

Values = dict[str, Any]
ROOT = Path(__file__).parents[2]
LEAST = 5.0  # seconds: with fewer left nothing is begun
# Sections in order, and the most of all time that each may take.
SHARES = {"environment": 0.1, "machine": 0.1, "build": 0.4, "tests": 0.35, "encoder": 0.3, "refiner": 0.3, "parts": 1.0}
# The full-size parts of the benchmark, what matters most first.
PARTS = (
    *(
        "full_inversion",
        "renderer_forward",
        "renderer_backward",
        "superresolution",
        "backbone",
        "encoder",
        "afa",
        "mix",
    ),
    *("novel_view", "full_inversion_paper", "stage1_step", "stage2_step", "stage2_step_paper"),
)


class Check:
    """The sections, and what they found so far; `values` is written to `path` after each.

    `machine` and `parts` are there as scripts/bench.py writes them, everything else is below `check`.
    """

    def __init__(self, config: CheckGPUConfig, full: TrainConfig, device: torch.device, path: Path) -> None:
        """Start the clock; `full` is the training that is timed."""
        self.config, self.full, self.path = config, full, path
        self.setting = Setting(device, 0, config.repeats, config.impl, config.renderer)
        self.end = time.monotonic() + 60 * config.minutes
        self.sections: dict[str, Values] = {}
        self.values: Values = {"check": self.sections}
        self.rates: Machine | None = None

    def left(self, name: str) -> float:
        """Give the seconds that a section may still take."""
        return min(self.end - time.monotonic(), 60 * self.config.minutes * SHARES[name])

    def run(self, name: str) -> str:
        """Run a section if there is time, and write what it gave. Returns: what became of it, in a word."""
        began = time.monotonic()
        try:
            if self.left(name) < LEAST:
                raise TimeUpError("the time was up before it began")
            self.sections[name] = getattr(self, name)()
        except TimeUpError as error:
            self.sections[name] = {"skipped": f"{error}; give more minutes, or sections=[{name}]"}
        except (PartError, OSError, ValueError) as error:
            self.sections[name] = {"failed": str(error)}
        self.sections[name]["seconds"] = time.monotonic() - began
        write_json(self.values, self.path)
        return next((word for word in ("failed", "skipped") if word in self.sections[name]), "measured")

    def environment(self) -> Values:
        """List versions, and what the device is."""
        home, device = operators.cuda_home(), self.setting.device
        values: Values = {
            "system": platform.platform(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "nvcc": str(home / "bin" / "nvcc") if home else None,
            "deterministic": self.full.deterministic,
        }
        if device.type != "cuda":
            return values
        facts = torch.cuda.get_device_properties(device)
        capability = f"{facts.major}.{facts.minor}"
        return values | {"gpu": facts.name, "capability": capability, "memory_bytes": facts.total_memory}

    def machine(self) -> Values:
        """Measure the rates of products, convolutions and copies."""
        self.rates = measure_machine(self.setting, self.left("machine"))
        self.values["machine"] = self.rates.as_dict()
        return {}

    def build(self) -> Values:
        """Build and load the kernels of the device, and compare each with its plain definition, whatever was noted."""
        return run_apart(_build, self.setting, seconds=self.left("build"))

    def tests(self) -> Values:
        """Run the tests that need a GPU.

        Raises: ValueError without pytest or the tests, or if pytest does not run; TimeUpError.
        """
        if importlib.util.find_spec("pytest") is None or not (ROOT / "tests").is_dir():
            raise ValueError("pytest or the folder tests is missing: run in a clone, after `pip install -e '.[dev]'`")
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "tests.xml"
            marked = [str(p) for p in sorted(ROOT.glob("tests/**/test_*.py")) if "mark.cuda" in p.read_text()]
            files = self.config.tests or marked
            command = [sys.executable, "-m", "pytest", "-m", "cuda", f"--junitxml={report}", *files]
            try:
                done = subprocess.run(
                    [*command, "-p", "no:cacheprovider"],
                    cwd=ROOT,
                    env=os.environ | {"OMP_NUM_THREADS": "4"},
                    timeout=self.left("tests"),
                    capture_output=True,
                    text=True,
                )
            except subprocess.TimeoutExpired:
                raise TimeUpError("the tests were ended when their time was up") from None
            if not report.is_file():
                raise ValueError(
                    f"pytest ended with exit code {done.returncode}: {(done.stdout + done.stderr)[-2000:]}"
                )
            return read_tests(report)

    def encoder(self) -> Values:
        """Train some steps of stage 1."""
        return self._train("encoder")

    def refiner(self) -> Values:
        """Train some steps of stage 2."""
        return self._train("refiner")

    def _train(self, name: str) -> Values:
        asked = self.config.steps, self.config.batches
        return run_apart(_train, self.setting, self.full, name, *asked, seconds=self.left(name))

    def parts(self) -> Values:
        """Measure parts of the benchmark against the plain reference, one after the other while there is time."""
        found: dict[str, Values] = self.values.setdefault("parts", {})
        rates = self.rates or measure_machine(self.setting, self.left("parts"))
        worlds = Worlds(self.full, self.full, PriorConfig(), batch_size=1)
        asked, failures = self.config.parts or PARTS, {}
        for name in asked:
            try:
                measured = measure_part(name, worlds, self.setting, lambda: None, self.left("parts"))
            except TimeUpError:
                break
            except PartError as error:
                failures[name] = str(error)
            else:
                found[name] = part_values(name, measured, rates, comparable=False)
                write_json(self.values, self.path)
        values: Values = {"measured": len(found), "asked": len(asked)}
        return values | ({"failed": f"{len(failures)} parts failed", "failures": failures} if failures else {})


def check_gpu(config: CheckGPUConfig, full: TrainConfig) -> Path:
    """Run the sections within `minutes`, write each when it is measured, and print what was found.

    Args:
        full: the training that is timed.
    Returns: the path of the JSON.
    Raises: ValueError without a GPU, unless a CPU is asked for by name; at the end, if a section failed.
    """
    device = named_device(config.device)
    if device.type != "cuda" and config.device == "auto":
        raise ValueError(
            "PyTorch finds no GPU, and this is a check of one: install a build of PyTorch for CUDA, or give device=cpu "
            "to see what the check does"
        )
    default = RECORD / "gpu.json" if device.type == "cuda" else SCRATCH / "check.json"
    check = Check(config, full, device, Path(config.output) if config.output else default)
    names = config.sections or list(SHARES)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for name in names:
            task = progress.add_task(name, total=1)
            progress.update(task, completed=1, description=f"{name}: {check.run(name)}")
    tell_check(check.values)
    failed = [name for name in names if "failed" in check.sections[name]]
    if failed:
        raise ValueError(f"{check.path} is written, but failed: {', '.join(failed)}; `check` in it says how")
    return check.path


def read_tests(report: Path) -> Values:
    """Count what pytest's report has, and name what failed."""
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    problems = [(case, tag) for case in cases for tag in (case.find("failure"), case.find("error")) if tag is not None]
    failures = {f"{case.get('classname')}::{case.get('name')}": tag.get("message", "")[:500] for case, tag in problems}
    skipped = sum(case.find("skipped") is not None for case in cases)
    values: Values = {"passed": len(cases) - skipped - len(failures), "left_out": skipped}
    failed = f"{len(failures)} tests failed" if failures else "" if values["passed"] else "no test was run"
    return values | ({"failed": failed, "failures": failures} if failed else {})


def _build(setting: Setting, report: Callable[[], None]) -> Values:
    began = time.perf_counter()
    kind, device = setting.device.type, setting.device
    operators.resolve(kind, device)
    values: Values = {"built_s": time.perf_counter() - began}
    found = {name: first_use.verdict_of(name, device) for name in first_use.CASES if operators.backend_has(kind, name)}
    wrong = {name: told for name, told in found.items() if told}
    values["as_defined"] = [name for name in found if name not in wrong]
    return values | ({"failed": f"{len(wrong)} kernels compute something else", "failures": wrong} if wrong else {})


def _train(
    setting: Setting, report: Callable[[], None], full: TrainConfig, name: str, steps: int, batches: Sequence[int]
) -> Values:
    return measure_stage(full, name, setting.device, steps=steps, batches=batches, report=report)
