"""Measure and draw a figure of the paper: `python scripts/figures.py figure=3`; without a figure, list them all."""

from goae.config import FiguresConfig, script
from goae.runs.figures import draw_figure, list_figures


@script("figures", FiguresConfig)
def main(config: FiguresConfig) -> None:
    """Draw."""
    print(draw_figure(config) if config.figure else list_figures(config))


if __name__ == "__main__":
    main()
