"""Invert photos: `python scripts/invert.py input=IMAGE_OR_FOLDER camera=LABELS output=FOLDER`."""

from goae.config import InvertConfig, script
from goae.runs.invert import invert


@script("invert", InvertConfig)
def main(config: InvertConfig) -> None:
    """Invert."""
    print(invert(config))


if __name__ == "__main__":
    main()
