"""What the scripts that draw the paper's sets share: arguments, and how a set is written."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from goae.data.subsets import Download, Entry, write_set


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser of the arguments that all of them take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="folder or zip of crops with dataset.json")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resolution", type=int, default=512, help="side that every crop must have")
    parser.add_argument("--radius", type=float, default=2.7, help="distance of every camera; 0: not checked")
    return parser


def split_parser(description: str | None, *, out: str) -> argparse.ArgumentParser:
    """The same for scripts that split a set; `out` is the folder of the zips unless another is given."""
    parser = argument_parser(description)
    parser.add_argument("--mirror-suffix", default="_mirror", help="end of a mirrored copy's stem; empty: none")
    parser.add_argument("--out", default=out, help="folder of the zips")
    return parser


def prepare_splits(
    name: str,
    download: Download,
    splits: Mapping[str, Sequence[Entry]],
    counts: Mapping[str, int],
    args: argparse.Namespace,
) -> None:
    """Write each split of the set `name` to `<out>/<split>.zip`."""
    for split, entries in splits.items():
        settings = {"set": name, "split": split, "seed": args.seed, **counts}
        prepare(download, entries, Path(args.out) / f"{split}.zip", settings, args)


def prepare(
    download: Download, entries: Sequence[Entry], out: Path, settings: Mapping[str, Any], args: argparse.Namespace
) -> None:
    """Write a set as the arguments say, and tell what was done."""
    written = write_set(download, entries, out, settings=settings, resolution=args.resolution, radius=args.radius)
    print(f"{out}: {len(entries)} images, {'written' if written else 'complete already'}")
