"""Train the mini world's perception network on procedural people and write it with its numbers and its model card.

    OMP_NUM_THREADS=1 python scripts/train_mini_perception.py --out goae/assets/mini/perception.safetensors

The same command resumes an interrupted run; pictures and state are kept in --work.
"""

from goae.errors import one_paragraph

import argparse
import logging
import time
from pathlib import Path

from goae.data.heads import ATTRIBUTES
from goae.extractors.mini import as_stored, export
from goae.training.perception import PerceptionConfig, held_out, load_people, measure, train

log = logging.getLogger(__name__)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("goae/assets/mini/perception.safetensors"))
    parser.add_argument("--work", type=Path, default=Path("runs/mini-perception"))
    for name in ("people", "views", "steps", "batch_size", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(PerceptionConfig(), name))
    args = parser.parse_args()
    with one_paragraph():
        config = PerceptionConfig(args.people, args.views, args.steps, args.batch_size, seed=args.seed)
        start = time.monotonic()
        network = train(config, load_people(config, args.work / "people"), args.work)
        log.info("measuring on unseen people")
        numbers = measure(as_stored(network), held_out(config, args.work / "people"))
        numbers["minutes_of_this_call"] = (time.monotonic() - start) / 60
        export(network, args.out, training=vars(config), measured=numbers, attributes=list(ATTRIBUTES))
        log.info("%s: %s", args.out, numbers)


if __name__ == "__main__":
    main()
