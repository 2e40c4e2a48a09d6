"""A trained run, small enough to be shipped."""

import shutil
from pathlib import Path

from eg3d.integrity import write_sums

from goae.config import TrainConfig, load_run, store_config
from goae.models.storage import halve_model
from goae.runs.setup import finished_stages, trained


def ship_run(run_dir: Path, output: Path, *, force: bool = False) -> list[Path]:
    """Write configuration, logs, the weights of its finished stages in half precision, and their checksums.

    A stage 1 that the run took from another (`paths.encoder`) stays there.
    Returns: the files.
    Raises: FileNotFoundError if it is no run folder or a stage has not finished; FileExistsError without `force`.
    """
    config = load_run(run_dir, TrainConfig)
    own = [name for name in finished_stages(config) if name in config.own_stages]
    weights = {name: trained(config, name) for name in own}
    logs = [path for name in (*own, "changes") if (path := run_dir / f"{name}.jsonl").exists()]
    config.run, config.paths.runs = output.name, str(output.parent)
    files = [output / "config.yaml", *(output / path.name for path in (*weights.values(), *logs))]
    there = [path for path in files if path.exists()]
    if there and not force:
        raise FileExistsError(f"{there[0]} exists and was left as it is; pass --force to replace it")
    output.mkdir(parents=True, exist_ok=True)
    for path in weights.values():
        halve_model(path, output / path.name)
    for path in logs:
        shutil.copyfile(path, output / path.name)
    store_config(config)
    return [*files, write_sums(output)]
