"""Measure and draw a figure of the paper: `python scripts/figures.py figure=3`; without a figure, list them all."""

import hydra
from omegaconf import DictConfig

from goae.config import FiguresConfig, register, to_object
from goae.errors import one_paragraph
from goae.runs.figures import draw_figure, list_figures

register(FiguresConfig)


@hydra.main(version_base=None, config_path="../configs", config_name="figures")
def main(composed: DictConfig) -> None:
    """Compose, check, draw."""
    with one_paragraph():
        config = to_object(composed, FiguresConfig)
        print(draw_figure(config) if config.figure else list_figures(config))


if __name__ == "__main__":
    main()
