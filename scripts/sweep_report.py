"""Compare the runs of a sweep on one page: `python scripts/sweep_report.py name=table2`."""

import hydra
from omegaconf import DictConfig

from goae.config import SweepReportConfig, register, to_object
from goae.errors import one_paragraph
from goae.runs.sweep_report import sweep_report

register(SweepReportConfig)


@hydra.main(version_base=None, config_path="../configs", config_name="sweep_report")
def main(composed: DictConfig) -> None:
    """Compose, check, compare."""
    with one_paragraph():
        print(sweep_report(to_object(composed, SweepReportConfig)))


if __name__ == "__main__":
    main()
