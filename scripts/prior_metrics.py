"""Fréchet and kernel distance of a generator: `python scripts/prior_metrics.py weights=FILE images=DATA`."""

from goae.config import PriorMetricsConfig, script
from goae.runs.prior_metrics import prior_metrics


@script("prior_metrics", PriorMetricsConfig)
def main(config: PriorMetricsConfig) -> None:
    """Measure."""
    print(prior_metrics(config))


if __name__ == "__main__":
    main()
