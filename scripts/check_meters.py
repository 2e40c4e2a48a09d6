"""Let the meters prove themselves on pairs of people: `python scripts/check_meters.py multiview=ZIP test=ZIP`."""

import hydra
from omegaconf import DictConfig

from goae.config import CheckMetersConfig, register, to_object
from goae.errors import one_paragraph
from goae.runs.check_meters import check_meters

register(CheckMetersConfig)


@hydra.main(version_base=None, config_path="../configs", config_name="check_meters")
def main(composed: DictConfig) -> None:
    """Compose, check, measure."""
    with one_paragraph():
        print(check_meters(to_object(composed, CheckMetersConfig)))


if __name__ == "__main__":
    main()
