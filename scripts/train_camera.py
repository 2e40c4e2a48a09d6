"""Train a camera regressor: `python scripts/train_camera.py experiment=mini_camera|camera`, also to resume."""

import hydra
from omegaconf import DictConfig

from goae.config import CameraConfig, register, to_object
from goae.errors import one_paragraph
from goae.runs.train_camera import train_camera

register(CameraConfig)


@hydra.main(version_base=None, config_path="../configs", config_name="train_camera")
def main(composed: DictConfig) -> None:
    """Compose, check, train."""
    with one_paragraph():
        print(train_camera(to_object(composed, CameraConfig)))


if __name__ == "__main__":
    main()
