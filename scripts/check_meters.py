"""Let the meters prove themselves on pairs of people: `python scripts/check_meters.py multiview=ZIP test=ZIP`."""

from goae.config import CheckMetersConfig, script
from goae.runs.check_meters import check_meters


@script("check_meters", CheckMetersConfig)
def main(config: CheckMetersConfig) -> None:
    """Measure."""
    print(check_meters(config))


if __name__ == "__main__":
    main()
