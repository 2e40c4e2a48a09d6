"""Average background depth and w of the canonical latent space: `python scripts/canonical_stats.py experiment=mini`."""

from goae.config import TrainConfig, script
from goae.runs.canonical import canonical_stats


@script("train", TrainConfig)
def main(config: TrainConfig) -> None:
    """Sample."""
    print(canonical_stats(config))


if __name__ == "__main__":
    main()
