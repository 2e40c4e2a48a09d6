"""Train GOAE's two stages: `python scripts/train.py experiment=mini`; the same command resumes.

`plan=true` prints what the run will need instead, and whether it is there.
`sweep=NAME` trains a grid of runs instead: `python scripts/train.py -m experiment=mini sweep=table2`; docs/sweeps.md.
"""

import sys

from goae.config import TrainConfig, script
from goae.runs.plan import plan
from goae.runs.train import objective, train


@script("train", TrainConfig)
def main(config: TrainConfig) -> float | None:
    """Train. Returns: of a search, what is made small."""
    if config.plan:
        return None if plan(config) else sys.exit(1)
    print(train(config))
    return objective(config) if config.variant.startswith("search") else None


if __name__ == "__main__":
    main()
