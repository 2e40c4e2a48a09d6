"""Invert procedural heads in W and W+: `python scripts/invert_heads.py train=ZIP test=ZIP`; the same call resumes."""

from goae.config import InvertHeadsConfig, script
from goae.runs.invert_heads import invert_heads


@script("invert_heads", InvertHeadsConfig)
def main(config: InvertHeadsConfig) -> None:
    """Measure."""
    print(invert_heads(config))


if __name__ == "__main__":
    main()
