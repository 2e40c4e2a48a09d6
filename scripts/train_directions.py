"""Find edit directions of a generator: `python scripts/train_directions.py generator_path=FILE output=FOLDER`."""

from goae.config import DirectionsConfig, script
from goae.runs.train_directions import train_directions


@script("train_directions", DirectionsConfig)
def main(config: DirectionsConfig) -> None:
    """Find."""
    print(train_directions(config))


if __name__ == "__main__":
    main()
