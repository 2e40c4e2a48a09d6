"""Fréchet and kernel distance of a generator: `python scripts/prior_metrics.py weights=FILE images=DATA`."""

import hydra
from omegaconf import DictConfig

from goae.config import PriorMetricsConfig, register, to_object
from goae.errors import one_paragraph
from goae.runs.prior_metrics import prior_metrics

register(PriorMetricsConfig)


@hydra.main(version_base=None, config_path="../configs", config_name="prior_metrics")
def main(composed: DictConfig) -> None:
    """Compose, check, measure."""
    with one_paragraph():
        print(prior_metrics(to_object(composed, PriorMetricsConfig)))


if __name__ == "__main__":
    main()
