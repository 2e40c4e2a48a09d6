"""Train a generator: `python scripts/train_prior.py experiment=mini_prior|prior`; the same command resumes."""

from goae.config import PriorConfig, script
from goae.runs.prior import train_prior


@script("train_prior", PriorConfig)
def main(config: PriorConfig) -> None:
    """Train."""
    print(train_prior(config))


if __name__ == "__main__":
    main()
