"""Find edit directions of a generator: `python scripts/train_directions.py generator_path=FILE output=FOLDER`."""

import hydra
from omegaconf import DictConfig

from goae.config import DirectionsConfig, register, to_object
from goae.errors import one_paragraph
from goae.runs.train_directions import train_directions

register(DirectionsConfig)


@hydra.main(version_base=None, config_path="../configs", config_name="train_directions")
def main(composed: DictConfig) -> None:
    """Compose, check, find."""
    with one_paragraph():
        print(train_directions(to_object(composed, DirectionsConfig)))


if __name__ == "__main__":
    main()
