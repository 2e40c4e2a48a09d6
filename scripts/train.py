"""Train GOAE's two stages: `python scripts/train.py experiment=mini`; the same command resumes.

`plan=true` prints what the run will need instead, and whether it is there.
`sweep=NAME` trains a grid of runs instead: `python scripts/train.py -m experiment=mini sweep=table2`; docs/sweeps.md.
"""

import sys

import hydra
from omegaconf import DictConfig

from goae.config import TrainConfig, register, require_plugins, to_object
from goae.errors import one_paragraph
from goae.runs.plan import plan
from goae.runs.train import objective, train

register(TrainConfig)


@hydra.main(version_base=None, config_path="../configs", config_name="train")
def main(composed: DictConfig) -> float | None:
    """Compose, check, train. Returns: of a search, what is made small."""
    with one_paragraph():
        config = to_object(composed, TrainConfig)
        if config.plan:
            return None if plan(config) else sys.exit(1)
        print(train(config))
        return objective(config) if config.variant.startswith("search") else None


if __name__ == "__main__":
    with one_paragraph():
        require_plugins(sys.argv[1:])
    main()
