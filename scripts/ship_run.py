"""Copy what a trained run consists of, configuration, logs and weights in half precision, to a folder to be shipped.

python scripts/ship_run.py runs/NAME goae/assets/mini/runs/NAME

It is a run folder like the first: scripts that take `run=NAME` find it there, where `runs` has none of that name.
"""

from goae.errors import one_paragraph

import argparse
from pathlib import Path

from goae.runs.ship_run import ship_run


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a trained run")
    parser.add_argument("output", type=Path, help="the folder to write")
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    return parser.parse_args()


if __name__ == "__main__":
    args = parse()
    with one_paragraph():
        for path in ship_run(args.run, args.output, force=args.force):
            print(f"{path} ({path.stat().st_size / 1e6:.2f} MB)")
