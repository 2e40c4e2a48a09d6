"""Write a run's picture report: `python scripts/report.py run=mini-seed0`."""

from goae.config import EvaluateConfig, script
from goae.runs.report import report


@script("evaluate", EvaluateConfig)
def main(config: EvaluateConfig) -> None:
    """Report."""
    print(report(config))


if __name__ == "__main__":
    main()
