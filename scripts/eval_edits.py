"""Measure edits of inverted heads from several views: `python scripts/eval_edits.py`."""

from goae.config import EditsConfig, script
from goae.runs.eval_edits import eval_edits


@script("eval_edits", EditsConfig)
def main(config: EditsConfig) -> None:
    """Measure."""
    print(eval_edits(config))


if __name__ == "__main__":
    main()
