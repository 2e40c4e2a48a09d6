"""Measure edits of inverted heads from several views: `python scripts/eval_edits.py`."""

import hydra
from omegaconf import DictConfig

from goae.config import EditsConfig, register, to_object
from goae.errors import one_paragraph
from goae.runs.eval_edits import eval_edits

register(EditsConfig)


@hydra.main(version_base=None, config_path="../configs", config_name="eval_edits")
def main(composed: DictConfig) -> None:
    """Compose, check, measure."""
    with one_paragraph():
        print(eval_edits(to_object(composed, EditsConfig)))


if __name__ == "__main__":
    main()
