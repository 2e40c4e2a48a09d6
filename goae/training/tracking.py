"""Where a run's numbers and pictures go: JSON lines and PNGs in the run folder, the console, and wandb if asked."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from goae.viz.grid import save_grid

WANDB_MODES = ("disabled", "offline", "online")


@dataclass
class LoggingConfig:
    """What is reported beside the run folder's own files."""

    wandb: str = "disabled"  # disabled | offline | online
    wandb_project: str = "goae"
    progress: bool = True

    def __post_init__(self) -> None:
        if self.wandb not in WANDB_MODES:
            raise ValueError(f"logging.wandb is {self.wandb!r}; expected one of {', '.join(WANDB_MODES)}")


def check_login(config: LoggingConfig) -> None:
    """Check that wandb can report online, before anything is built.

    Raises: ValueError.
    """
    if config.wandb == "online":
        import wandb

        with _wandb_errors():
            if not wandb.login():
                raise wandb.Error("WANDB_MODE forbids it, or no key was given")


@contextmanager
def _wandb_errors() -> Iterator[None]:
    """Turn what wandb refuses into a ValueError with the remedy."""
    import wandb

    try:
        yield
    except wandb.Error as error:
        raise ValueError(
            f"wandb cannot be started ({error}): run `wandb login` once or set WANDB_API_KEY, or give "
            f"logging.wandb=offline, whose files `wandb sync` sends later, or logging.wandb=disabled"
        ) from error


class Tracker:
    """Writes `<stage>.jsonl` and `images/<stage>-<step>.png` below the run folder; only the first process is active."""

    def __init__(self, run_dir: Path, config: LoggingConfig, *, active: bool, settings: Any = None) -> None:
        self.run_dir, self.config, self.active = run_dir, config, active
        self.stage = ""
        self.began, self.first_step = time.monotonic(), 0
        self.run = None
        if active and config.wandb != "disabled":
            import wandb  # takes a second, and only those who want it wait

            with _wandb_errors():
                self.run = wandb.init(
                    project=config.wandb_project,
                    name=run_dir.name,
                    id=run_dir.name,
                    resume="allow" if config.wandb == "online" else None,  # offline, wandb has nothing to look up
                    dir=run_dir,
                    mode=config.wandb,  # type: ignore[arg-type]
                    config=settings,
                )
        self.progress: Progress | None = None

    def start(self, stage: str, step: int, steps: int) -> None:
        """Begin or resume `stage` at `step`; lines that an interrupted run wrote from `step` on are dropped."""
        self.stage, self.began, self.first_step = stage, time.monotonic(), step
        if not self.active:
            return
        keep = [row for row in read_metrics(self.run_dir, stage) if row["step"] < step]
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._metrics.write_text("".join(json.dumps(row) + "\n" for row in keep))
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            disable=not self.config.progress,
            refresh_per_second=2,
        )
        self.task = self.progress.add_task(stage, total=steps, completed=step, note="")
        self.progress.start()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Append one line of numbers, if there are any."""
        if not self.active or not values:
            return
        elapsed = time.monotonic() - self.began
        row = {"step": step, "seconds": round(elapsed, 3)} | values
        with self._metrics.open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self.run is not None:
            self.run.log(
                {f"{self.stage}/{name}": value for name, value in values.items()} | {f"{self.stage}/step": step}
            )
        if self.progress is not None:
            self.progress.update(
                self.task, note=" ".join(f"{n.split('/')[-1]} {v:.4g}" for n, v in list(values.items())[:6])
            )

    def images(self, step: int, images: Tensor, *, columns: int) -> None:
        """Write a grid of (N, 3, H, W) in [-1, 1]."""
        if not self.active:
            return
        path = self.run_dir / "images" / f"{self.stage}-{step:09d}.png"
        save_grid(images.nan_to_num(), path, columns=columns)  # losses stop the run where they are not finite
        if self.run is not None:
            import wandb

            self.run.log({f"{self.stage}/preview": wandb.Image(str(path)), f"{self.stage}/step": step})

    def advance(self, step: int) -> None:
        """One step is done."""
        if self.progress is not None:
            self.progress.update(self.task, completed=step + 1)

    def finish(self) -> None:
        """Close the stage's progress bar."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def close(self) -> None:
        """End of the run."""
        self.finish()
        if self.run is not None:
            self.run.finish()

    @property
    def _metrics(self) -> Path:
        return self.run_dir / f"{self.stage}.jsonl"


def read_metrics(run_dir: Path, stage: str) -> list[dict[str, float]]:
    """The lines written so far; an unfinished last line, from a killed run, is dropped."""
    path = run_dir / f"{stage}.jsonl"
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
