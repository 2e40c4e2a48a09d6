"""Train a generator: `python scripts/train_prior.py experiment=mini_prior|prior`; the same command resumes."""

import hydra
from omegaconf import DictConfig

from goae.config import PriorConfig, register, to_object
from goae.errors import one_paragraph
from goae.runs.prior import train_prior

register(PriorConfig)


@hydra.main(version_base=None, config_path="../configs", config_name="train_prior")
def main(composed: DictConfig) -> None:
    """Compose, check, train."""
    with one_paragraph():
        print(train_prior(to_object(composed, PriorConfig)))


if __name__ == "__main__":
    main()
