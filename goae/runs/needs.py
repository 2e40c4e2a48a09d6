"""The files that a run of training reads: which are there, and what brings those that are missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from goae import build
from goae.config import RANDOM, TrainConfig
from goae.fetching.fetch import remedy, status
from goae.runs.setup import trained
from goae.weights import FILES, cache

THERE, MISSING, DAMAGED = "there", "missing", "damaged"
# a data set's folder -> the command that fills it
MAKERS = {
    "ffhq": "python scripts/prepare_ffhq.py --images FFHQ_512.zip",
    "afhq_cat": "python scripts/prepare_afhq.py --images CROPS",
    "mini": "python scripts/make_mini_data.py",
    "mini-prior": "python scripts/make_mini_data.py --out data/mini-prior --train 8000 --val 2000 --splits train val",
}


@dataclass(frozen=True)
class Need:
    """A file and the key that names it; `remedy` says what to do, and is empty where the file is there and whole."""

    key: str
    file: str
    state: str = THERE
    remedy: str = ""


def needed_files(config: TrainConfig, stages: Sequence[str]) -> list[Need]:
    """All files that training the stages reads, data sets included.

    Raises: ValueError if `paths.backbone` is empty although published weights fit.
    """
    if not stages:
        return []
    needs = [_data(f"data.{split}", getattr(config.data, split)) for split in ("train", "validation")]
    if config.paths.generator != RANDOM:
        otherwise = "give paths.generator=FILE, for example weights/ffhqrebalanced512-128.pkl"
        needs.append(_file("paths.generator", config.paths.generator, otherwise=otherwise))
    if "encoder" not in stages:
        needs.append(_trained_encoder(config))
    elif path := build.backbone_path(config):
        needs.append(_file("paths.backbone", path, otherwise="give paths.backbone=FILE, published or random"))
    if any(build.has_bg(config, stage) for stage in stages):
        needs.append(_statistics(config))
    return needs + _networks(config)


def require_files(config: TrainConfig, stages: Sequence[str]) -> None:
    """Check that all files are there, before any is read.

    Raises: FileNotFoundError listing all that are not, each with what brings it.
    """
    lacking = [need for need in needed_files(config, stages) if need.remedy]
    if lacking:
        told = "; ".join(f"{need.key}: {need.file} is {need.state}; {need.remedy}" for need in lacking)
        raise FileNotFoundError(f"The run {config.run_dir} cannot start: {told}")


def _data(key: str, given: str) -> Need:
    if given and Path(given).expanduser().exists():
        return Need(key, given)
    made = MAKERS.get(Path(given).parent.name, f"give {key}=FOLDER_OR_ZIP of images and labels in EG3D's format")
    return Need(key, given or "no path", MISSING, made)


def _file(key: str, given: str, *, name: str = "", otherwise: str = "") -> Need:
    """A file by its path, else the cached one; `otherwise` helps where no file of its name is published.

    Args:
        given: the configured path; empty: the cached file `name`.
    """
    path = Path(given).expanduser()
    if given and path.is_file():
        return Need(key, given)
    published = next((n for n, file in FILES.items() if file == path.name), "")
    if given and not published:
        return Need(key, given, MISSING, remedy(name) if name else otherwise)
    name = published or name
    if not name:
        return Need(key, "no path", MISSING, otherwise)
    state = status(name)
    file = str(cache() / FILES[name])
    if state == MISSING:
        return Need(key, given or file, state, remedy(name))
    return Need(key, file, state, f"delete it, then {remedy(name)}" if state == DAMAGED else "")


def _trained_encoder(config: TrainConfig) -> Need:
    try:
        return Need("paths.encoder", str(trained(config, "encoder")))
    except FileNotFoundError as error:
        return Need("paths.encoder", config.paths.encoder or "this run's own stage 1", MISSING, str(error))


def _statistics(config: TrainConfig) -> Need:
    """The canonical statistics, which lie beside the generator."""
    key = "paths.canonical_stats"
    try:
        path = build.stats_path(config)
    except FileNotFoundError:  # beside a generator that is missing, too
        path = Path(config.paths.generator).with_name(f"{Path(config.paths.generator).stem}-canonical.safetensors")
    if path.is_file():
        return Need(key, str(path))
    made = f"python scripts/canonical_stats.py experiment={config.experiment_name or 'NAME'}, with the keys of this run"
    return Need(key, str(path), MISSING, made)


def _networks(config: TrainConfig) -> list[Need]:
    """The frozen networks that are read from published files: of the losses, and of a rival's part labels."""
    given, needs = config.perception, []
    for key in ("lpips", "identity", "background"):
        if (name := getattr(given, key)) in FILES:
            needs.append(_file(f"perception.{key}", getattr(given, f"{key}_path"), name=name))
    if config.method == "ide3d" and config.rival.parts in FILES:
        path = given.background_path if given.background == config.rival.parts else ""
        needs.append(_file("rival.parts", path, name=config.rival.parts))
    return needs
