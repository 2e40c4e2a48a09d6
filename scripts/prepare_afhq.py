"""Split AFHQv2 cats 8:1:1 into train, val and test zips in EG3D's format, each with a manifest.

    python scripts/prepare_afhq.py --images CROPS --out data/afhq_cat

CROPS is a folder or zip of 512² cats with the dataset.json of EG3D's cameras. A mirrored copy, told by --mirror-suffix,
follows its original into train and is left out of val and test.
"""

import argparse
from pathlib import Path

from goae.data.subsets import Download, afhq_entries
from goae.errors import one_paragraph
from goae.runs.prepare import argument_parser, prepare


def main() -> None:
    args = _arguments()
    with one_paragraph():
        download = Download(args.images)
        splits, counts = afhq_entries(download.posed, mirror_suffix=args.mirror_suffix, seed=args.seed)
        for split, entries in splits.items():
            settings = {"set": "afhq_cat", "split": split, "seed": args.seed, **counts}
            prepare(download, entries, Path(args.out) / f"{split}.zip", settings, args)


def _arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--mirror-suffix", default="_mirror", help="end of a mirrored copy's stem; empty: none")
    parser.add_argument("--out", default="data/afhq_cat", help="folder of the zips")
    return parser.parse_args()


if __name__ == "__main__":
    main()
