"""Measure a run on its test images: `python scripts/evaluate.py run=mini-seed0`."""

from goae.config import EvaluateConfig, script
from goae.runs.evaluate import evaluate


@script("evaluate", EvaluateConfig)
def main(config: EvaluateConfig) -> None:
    """Evaluate."""
    print(evaluate(config))


if __name__ == "__main__":
    main()
