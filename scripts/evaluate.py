"""Measure a run on its test images: `python scripts/evaluate.py run=mini-seed0`."""

import hydra
from omegaconf import DictConfig

from goae.config import EvaluateConfig, register, to_object
from goae.errors import one_paragraph
from goae.runs.evaluate import evaluate

register(EvaluateConfig)


@hydra.main(version_base=None, config_path="../configs", config_name="evaluate")
def main(composed: DictConfig) -> None:
    """Compose, check, evaluate."""
    with one_paragraph():
        print(evaluate(to_object(composed, EvaluateConfig)))


if __name__ == "__main__":
    main()
