"""What Hydra knows and gives back: the schemas, a composed configuration, and the one that a run has stored."""

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from eg3d.integrity import replace_file
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from goae.config.command_line import escape
from goae.config.jobs import (
    BenchConfig,
    CheckGPUConfig,
    CheckMetersConfig,
    DirectionsConfig,
    EditsConfig,
    EvaluateConfig,
    FiguresConfig,
    InvertConfig,
    InvertHeadsConfig,
    PriorMetricsConfig,
    SweepReportConfig,
)
from goae.config.protocols import ProtocolConfig, TablesConfig
from goae.config.training import RANDOM, CameraConfig, PriorConfig, RunConfig, TrainConfig
from goae.paths import settle
from goae.training.changes import note_changes

# What may change between two starts of the same run: how long it goes on, what it reports, where it runs, and where
# files lie whose absence only means another place.
FREE = (
    *("stage", "device", "num_devices", "renderer_checkpointing", "logging", "data.workers"),
    *("validation.batch_size", "distribution.batch_size"),
    *("paths.runs", "paths.canonical_stats"),
    *("perception.lpips_path", "perception.identity_path", "perception.background_path"),
)
# Files that may have moved; whether there is one may not change.
MOVABLE = ("paths.generator", "paths.encoder", "paths.backbone", "data.train", "data.validation", "data.test")
# What may change as well, but moves the numbers: a run notes it, with the step, in changes.jsonl.
TUNED = ("precision", "force_fp32", "deterministic", "impl", "renderer")
TUNED_ENDS = ("lr", "generator_lr", "discriminator_lr", "clip_grad_norm", "skip_nonfinite")
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
# Their names in the defaults lists of configs/*.yaml.
SCHEMAS: dict[type, str] = {
    TrainConfig: "train_schema",
    PriorConfig: "prior_schema",
    CameraConfig: "train_camera_schema",
    EvaluateConfig: "evaluate_schema",
    SweepReportConfig: "sweep_report_schema",
    InvertConfig: "invert_schema",
    PriorMetricsConfig: "prior_metrics_schema",
    CheckMetersConfig: "check_meters_schema",
    InvertHeadsConfig: "invert_heads_schema",
    FiguresConfig: "figures_schema",
    DirectionsConfig: "directions_schema",
    EditsConfig: "edits_schema",
    BenchConfig: "bench_schema",
    CheckGPUConfig: "check_gpu_schema",
    ProtocolConfig: "protocol_schema",
    TablesConfig: "tables_schema",
}
C = TypeVar("C")
R = TypeVar("R", bound=RunConfig)


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


def register(*schemas: type) -> None:
    """Make root schemas known to Hydra, so that a wrong key or type fails while composing; without any, all of them.

    Hydra copies what it knows many times over, so a script names its own.
    """
    store = ConfigStore.instance()
    for schema in schemas or SCHEMAS:
        store.store(name=SCHEMAS[schema], node=schema)


def to_object(composed: DictConfig, schema: type[C]) -> C:
    """Return the dataclasses of a composed configuration, checked, their paths as they lead from here.

    Raises: ValueError for a key that was added to it.
    """
    unknown = list(_unknown(composed))
    if unknown:
        raise ValueError(f"there is no key {', '.join(unknown)}; + and ++ add none. --cfg job prints all keys")
    config = OmegaConf.to_object(composed)
    assert isinstance(config, schema)
    settle(config)
    return config


def _unknown(composed: DictConfig, prefix: str = "") -> Iterator[str]:
    """List the dotted keys that no dataclass declares."""
    kind = OmegaConf.get_type(composed)
    declared = [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else None
    for key in map(str, composed):
        if declared is not None and key not in declared:
            yield prefix + key
        elif not OmegaConf.is_missing(composed, key) and isinstance(composed[key], DictConfig):
            yield from _unknown(composed[key], f"{prefix}{key}.")


def to_plain(config: RunConfig) -> dict[str, Any]:
    """Nested dictionaries of plain values, of all that makes the run: not whether to print its plan."""
    return {key: value for key, value in dataclasses.asdict(config).items() if key != "plan"}


def claim_run(config: RunConfig) -> None:
    """Store the configuration in the run folder, and what of it has changed since the run was last started.

    Raises: as `compare_run`.
    """
    note_changes(config.run_dir, compare_run(config))
    store_config(config)


def compare_run(config: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Check that what has been trained in the run folder was started with this configuration.

    Returns: key -> value of before, value of now, of what may change and is noted: learning rates, clipping, precision
        and what becomes of bad steps.
    Raises: ValueError listing each key that differs, except those that may change (steps, logging, device, places).
    """
    if not (config.run_dir / "config.yaml").exists() or not has_trained(config.run_dir):
        return {}
    stored, current = _compared(load_run(config.run_dir, type(config))), _compared(config)
    differ = [k for k in sorted(stored | current) if not _same(k, stored.get(k), current.get(k), config)]
    if differ:
        lines = "; ".join(f"{k}: {stored.get(k)!r} in the run, {current.get(k)!r} now" for k in differ)
        raise ValueError(
            f"The run {config.run_dir} was started with another configuration ({lines}). Give its own values to "
            f"go on, choose another name with run=NAME, or delete the folder to start it again."
        )
    tuned = [key for key in sorted(stored | current) if _tuned(key) and stored.get(key) != current.get(key)]
    return {key: (stored.get(key), current.get(key)) for key in tuned}


def store_config(config: RunConfig) -> None:
    """Write the configuration into its run folder, which is made if it is missing."""
    config.run_dir.mkdir(parents=True, exist_ok=True)
    replace_file(config.run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(_escaped(to_plain(config)))))


def has_trained(run_dir: Path) -> bool:
    """Whether a run folder holds a checkpoint or a stage's weights; those of step 0, `-best`, are not trained yet."""
    weights = [path for path in run_dir.glob("*.safetensors") if not path.stem.endswith("-best")]
    return bool(weights) or any(run_dir.glob("checkpoints/*/step-*.pt"))


def load_run(run_dir: Path, schema: type[R]) -> R:
    """The configuration that a run folder holds, as of a run of that name in that place: folders may be moved.

    Raises: FileNotFoundError if it is no run folder; ValueError if its keys are not those of this version.
    """
    path = run_dir / "config.yaml"
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist, so {run_dir} is no run folder. Give the name of a run below the runs folder, or "
            f"train it first: `python scripts/train.py`, docs/sweeps.md for those of a sweep."
        )
    try:
        config = copy.deepcopy(_parsed(path.read_text("utf-8"), schema))  # type: ignore[arg-type]  # a class is hashable
    except Exception as error:  # OmegaConf raises many kinds, all of them about the file's content
        raise ValueError(f"{path} does not fit this version of the configuration: {error}") from error
    config.run, config.paths.runs = run_dir.name, str(run_dir.parent)
    settle(config)
    return config


@lru_cache(maxsize=64)
def _parsed(text: str, schema: type[C]) -> C:
    """A configuration from YAML; remembered, since it takes a third of a second, and a table asks dozens of times."""
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.create(text)))
    assert isinstance(config, schema)
    return config


def _escaped(value: Any) -> Any:
    """Return plain values with each `${` of their texts written so that reading does not take it for a reference."""
    if isinstance(value, dict):
        return {key: _escaped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_escaped(inner) for inner in value]
    return escape(value) if isinstance(value, str) else value


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries to one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _compared(config: RunConfig) -> dict[str, Any]:
    """Dotted keys as two starts of a run are compared by; an empty backbone, as older runs have it, was random."""
    flat = flatten(to_plain(config))
    return flat | {"paths.backbone": flat["paths.backbone"] or RANDOM}


def _same(key: str, stored: Any, current: Any, config: RunConfig) -> bool:
    """Whether a run that was started with one value may go on with the other."""
    moved = key in MOVABLE and {stored, current}.isdisjoint(("", RANDOM))
    return stored == current or moved or _tuned(key) or _free(key, config)


def _tuned(key: str) -> bool:
    """Check whether a change is allowed and noted."""
    return key in TUNED or key.rsplit(".", 1)[-1] in TUNED_ENDS


def _free(key: str, config: RunConfig) -> bool:
    if key.startswith("rival.") and isinstance(config, TrainConfig) and config.method == "goae":
        return True  # not used; runs from before there were rivals go on
    if key == "perception.background_subject" and isinstance(config, TrainConfig):
        return config.perception.background != "segmenter"  # not used
    if any(key == name or key.startswith(f"{name}.") for name in FREE):
        return True
    return ".fit." in key and key.rsplit(".", 1)[-1] in FREE_FIT
