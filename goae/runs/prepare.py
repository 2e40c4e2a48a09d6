"""What the scripts that draw the paper's sets share: arguments, the search for copies, and how a set is written."""

import argparse
from collections.abc import Mapping, Sequence
from os.path import expanduser
from pathlib import Path
from typing import Any

import numpy as np

from goae.data.copies import KEPT, MODES, Copies, find_copies, is_named_copy
from goae.data.subsets import Download, Entry, write_set

COPIES = """auto (default): mirrored copies and replicas are found by their labels and confirmed by their pixels;
labels: by their labels alone, which reads no image, and takes images of one pose for copies; none: not at all"""


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser of the arguments that all of them take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=expanduser, required=True, help="folder or zip of crops with dataset.json")
    parser.add_argument("--copies", choices=MODES, default=MODES[0], help=COPIES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resolution", type=int, default=512, help="side that every crop must have")
    parser.add_argument("--radius", type=float, default=2.7, help="distance of every camera; 0: not checked")
    return parser


def split_parser(description: str | None, *, out: str) -> argparse.ArgumentParser:
    """The same for scripts that split a set; `out` is the folder of the zips unless another is given."""
    parser = argument_parser(description)
    parser.add_argument("--mirror-suffix", type=_removed, help="removed: --copies finds copies whatever their names")
    parser.add_argument("--out", type=expanduser, default=out, help="folder of the zips")
    return parser


def _removed(value: str) -> None:
    raise argparse.ArgumentTypeError(
        "it was removed, since EG3D's zip tool renames the copies; they are found by labels and pixels. Leave it out, "
        "or give --copies"
    )


def search(download: Download, names: Sequence[str], mode: str) -> Copies:
    """Find the copies among `names` and print what was found.

    Raises: ValueError if half of the images look like copies and none is one by its pixels.
    """
    labels = np.array([download.labels[name] for name in names]).reshape(-1, 25)
    copies = find_copies(download.source, names, labels, mode=mode)
    where, num = download.source.path, len(names)
    if not copies.recognised and copies.candidates * 2 >= max(num, 1):
        raise ValueError(
            f"{copies.candidates} of {num} images in {where} share a label with another one, as it is or mirrored, or "
            "are named as mirrored copies, but no two of them agree in their pixels. Give --copies labels if they are "
            "copies that were changed later, or --copies none if they are different images that share cameras"
        )
    print(
        f"{where}: {num} images, {len(copies.groups)} without copies; {len(copies.mirrored)} mirrored copies and "
        f"{len(copies.replicas)} replicas; {copies.candidates - copies.recognised} more images share a label but differ"
    )
    return copies


def drop_copies(download: Download, names: Sequence[str], mode: str) -> tuple[list[str], dict[str, int]]:
    """The images of a protocol, without copies by name or pixels; and counts for the manifest."""
    kept = search(download, [name for name in names if not is_named_copy(name)], mode).originals
    return kept, {"copies_left_out": len(names) - len(kept)}


def prepare_splits(
    name: str,
    download: Download,
    splits: Mapping[str, Sequence[Entry]],
    counts: Mapping[str, int],
    args: argparse.Namespace,
) -> None:
    """Write each split of the set `name` to `<out>/<split>.zip`."""
    print(
        f"of the copies, {counts[KEPT] + counts['replicas_in_train']} go to train with their images, and "
        f"{counts['mirrored_copies_dropped'] + counts['replicas_dropped']} of held-out images are left out"
    )
    for split, entries in splits.items():
        settings = {"set": name, "split": split, "seed": args.seed, **counts}
        prepare(download, entries, Path(args.out) / f"{split}.zip", settings, args)


def prepare(
    download: Download, entries: Sequence[Entry], out: Path, settings: Mapping[str, Any], args: argparse.Namespace
) -> None:
    """Write a set as the arguments say, and tell what was done."""
    written = write_set(download, entries, out, settings=settings, resolution=args.resolution, radius=args.radius)
    print(f"{out}: {len(entries)} images, {'written' if written else 'complete already'}")
