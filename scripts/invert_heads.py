"""Invert procedural heads in W and W+: `python scripts/invert_heads.py train=ZIP test=ZIP`; the same call resumes."""

import hydra
from omegaconf import DictConfig

from goae.config import InvertHeadsConfig, register, to_object
from goae.errors import one_paragraph
from goae.runs.invert_heads import invert_heads

register(InvertHeadsConfig)


@hydra.main(version_base=None, config_path="../configs", config_name="invert_heads")
def main(composed: DictConfig) -> None:
    """Compose, check, measure."""
    with one_paragraph():
        print(invert_heads(to_object(composed, InvertHeadsConfig)))


if __name__ == "__main__":
    main()
