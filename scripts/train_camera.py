"""Train a camera regressor: `python scripts/train_camera.py experiment=mini_camera|camera`, also to resume."""

from goae.config import CameraConfig, script
from goae.runs.train_camera import train_camera


@script("train_camera", CameraConfig)
def main(config: CameraConfig) -> None:
    """Train."""
    print(train_camera(config))


if __name__ == "__main__":
    main()
