"""Train GOAE's two stages: `python scripts/train.py experiment=mini`; the same command resumes."""

import hydra
from omegaconf import DictConfig

from goae.config import TrainConfig, register, to_object
from goae.errors import one_paragraph
from goae.runs.train import train

register()


@hydra.main(version_base=None, config_path="../configs", config_name="train")
def main(composed: DictConfig) -> None:
    """Compose, check, train."""
    with one_paragraph():
        print(train(to_object(composed, TrainConfig)))


if __name__ == "__main__":
    main()
