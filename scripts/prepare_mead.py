"""Draw the paper's MEAD test set: 43 persons, 5 frames each, from 5 synchronised views, in EG3D's format.

    python scripts/prepare_mead.py --images CROPS --out data/mead/test.zip

CROPS is a folder or zip with what EG3D's preprocessing makes of single frames of the videos: 512² crops, and
dataset.json with their cameras. Which person, view and frame an image shows is read from its name by --pattern; by
default PERSON/VIEW/FRAME.png, where FRAME (which may have slashes) is equal in all views of a moment. Mirrored copies
(X_mirror.png, or by --copies) are never drawn.
"""

from goae.errors import one_paragraph

import argparse
from os.path import expanduser
from pathlib import Path

from goae.data.subsets import Download, mead_entries
from goae.runs.prepare import argument_parser, drop_copies, prepare

VIEWS = ("left_60", "left_30", "front", "right_30", "right_60")
PATTERN = r"(?P<person>[^/]+)/(?P<view>[^/]+)/(?P<frame>.+)\.[a-z]+"


def main() -> None:
    args = _arguments()
    with one_paragraph():
        download = Download(args.images)
        choice = {"pattern": args.pattern, "views": args.views, "persons": args.persons, "frames": args.frames}
        originals, dropped = drop_copies(download, download.posed, args.copies)
        entries, counts = mead_entries(originals, **choice, seed=args.seed)
        settings = {"set": "mead", "seed": args.seed, "views": args.views, **counts, **dropped}
        prepare(download, entries, Path(args.out), settings, args)


def _arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--pattern", default=PATTERN, help="regular expression with groups person, view and frame")
    parser.add_argument("--views", nargs="+", default=list(VIEWS), help="names of the views, by the cameras' yaw")
    parser.add_argument("--persons", type=int, default=43)
    parser.add_argument("--frames", type=int, default=5, help="frames of each person")
    parser.add_argument("--out", type=expanduser, default="data/mead/test.zip")
    return parser.parse_args()


if __name__ == "__main__":
    main()
