"""Which weights a stage was begun on, so that it does not go on with others: paths may move, contents may not."""

import json
from collections.abc import Mapping
from pathlib import Path

from eg3d.integrity import replace_file
from eg3d.limits import read_json

from goae.training import checkpoint


def claim_sources(run_dir: Path, stage: str, hashes: Mapping[str, str]) -> None:
    """Note the hashes of what a stage starts from, or check that it goes on from all that was noted.

    Raises: ValueError naming what is another one.
    """
    path = run_dir / f"{stage}.sources.json"
    if path.exists() and checkpoint.reached(run_dir / "checkpoints" / stage) is not None:
        stored = read_json(path)
        differ = [name for name in sorted(stored) if stored[name] != hashes.get(name)]
        if differ:
            told = "; ".join(
                f"{name}: {stored[name][:12]} then, {hashes.get(name, 'none')[:12]} now" for name in differ
            )
            raise ValueError(
                f"stage `{stage}` of {run_dir} was begun on other weights ({told}). Give those back, or train under "
                f"another name with run=NAME"
            )
        return
    replace_file(path, json.dumps(dict(hashes), indent=1) + "\n")
