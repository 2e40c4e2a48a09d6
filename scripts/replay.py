"""Run a training step again whose loss, gradient or weights were NaN or infinite, and look where that comes from.

python scripts/replay.py runs/NAME/failures/STAGE-step-NUMBER

Training leaves that folder: the images, the seed and the numbers of the step, and the checkpoint before it. The steps
since then are trained again, so it takes as long as they did. Exit code 0: the step fails again; 1: it does not.
"""

from goae.errors import one_paragraph

import argparse
import sys
from pathlib import Path

from goae.runs.replay import replay


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("failure", type=Path, help="a folder below RUN/failures")
    parser.add_argument("--device", default="", help="auto, cpu, cuda or cuda:N, instead of the run's")
    return parser.parse_args()


def main(args: argparse.Namespace) -> int:
    failure, found, again = replay(args.failure, device=args.device)
    print(f"recorded: {failure}; trained from step {failure.start}, seed {failure.seed}")
    for slot, images in failure.images.items():
        shown = ", ".join(f"{i['name']}{' mirrored' if i['mirrored'] else ''}" for i in images)
        print(f"micro-batch {slot}: {shown or 'made by the generator'}")
    print(f"now:      {found or 'every number of the step is finite'}")
    for name, value in failure.values.items():
        print(f"  {name:<24}{value:>16} recorded{again.values[name] if again else '':>16} now")
    return 0 if again else 1


if __name__ == "__main__":
    with one_paragraph():
        sys.exit(main(parse()))
