"""Average background depth and w of the canonical latent space: `python scripts/canonical_stats.py experiment=mini`."""

import hydra
from omegaconf import DictConfig

from goae.config import TrainConfig, register, to_object
from goae.errors import one_paragraph
from goae.runs.canonical import canonical_stats

register(TrainConfig)


@hydra.main(version_base=None, config_path="../configs", config_name="train")
def main(composed: DictConfig) -> None:
    """Compose, check, sample."""
    with one_paragraph():
        print(canonical_stats(to_object(composed, TrainConfig)))


if __name__ == "__main__":
    main()
