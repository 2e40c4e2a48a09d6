"""Compare the runs of a sweep on one page: `python scripts/sweep_report.py name=table2`."""

from goae.config import SweepReportConfig, script
from goae.runs.sweep_report import sweep_report


@script("sweep_report", SweepReportConfig)
def main(config: SweepReportConfig) -> None:
    """Compare."""
    print(sweep_report(config))


if __name__ == "__main__":
    main()
