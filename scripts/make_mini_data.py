"""Make the mini world's data set: procedural heads as EG3D-format zips, one per split.

    python scripts/make_mini_data.py --out data/mini --train 4000

A complete split of the same settings is kept; an interrupted one is made again.
"""

from goae.errors import one_paragraph

import argparse
import json
from functools import partial
from os.path import expanduser
from pathlib import Path

import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from goae.data.mini import SPLITS, VIEWS, SplitConfig, read_manifest, write_split


def main() -> None:
    args = _arguments()
    torch.set_num_threads(1)
    out = Path(args.out)
    sizes = {"train": args.train, "val": args.val, "test": args.test, "multiview": args.people * VIEWS}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with one_paragraph(), Progress(*columns, TextColumn("left"), TimeRemainingColumn()) as bars:
        for config in [SplitConfig(split, sizes[split], args.seed, args.resolution) for split in args.splits]:
            path = out / f"{config.split}.zip"
            task = bars.add_task(f"{config.split:9}", total=config.num_images)
            progress = partial(_show, bars, task)
            written = write_split(config, path, workers=args.workers, progress=progress)
            bars.update(task, completed=config.num_images)
            bars.console.print(f"{path}: {config.num_images} images, {'written' if written else 'complete already'}")
        _write_manifest(out)


def _show(bars: Progress, task: TaskID, done: int) -> None:
    bars.update(task, completed=done)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=expanduser, default="data/mini", help="folder of the zips")
    parser.add_argument("--train", type=int, default=4000, help="training images, each of another person")
    parser.add_argument("--val", type=int, default=5000, help="validation images of unseen people")
    parser.add_argument("--test", type=int, default=300, help="test images of unseen people")
    parser.add_argument("--people", type=int, default=43, help=f"unseen people of multiview, {VIEWS} images each")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS), help="splits to make")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    args = parser.parse_args()
    if args.workers < 1 or args.seed < 0:
        parser.error("--workers must be at least 1 and --seed at least 0")
    return args


def _write_manifest(out: Path) -> None:
    """Collect settings and hashes of all splits of the folder in manifest.json."""
    splits = {path.stem: read_manifest(path) for path in sorted(out.glob("*.zip")) if path.stem in SPLITS}
    unfinished = out / ".manifest.json.partial"
    unfinished.write_text(json.dumps(splits, indent=1) + "\n")
    unfinished.replace(out / "manifest.json")


if __name__ == "__main__":
    main()
