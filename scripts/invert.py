"""Invert photos: `python scripts/invert.py input=IMAGE_OR_FOLDER camera=LABELS output=FOLDER`."""

import hydra
from omegaconf import DictConfig

from goae.config import InvertConfig, register, to_object
from goae.errors import one_paragraph
from goae.runs.invert import invert

register(InvertConfig)


@hydra.main(version_base=None, config_path="../configs", config_name="invert")
def main(composed: DictConfig) -> None:
    """Compose, check, invert."""
    with one_paragraph():
        print(invert(to_object(composed, InvertConfig)))


if __name__ == "__main__":
    main()
