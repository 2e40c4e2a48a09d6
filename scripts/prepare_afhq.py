"""Split AFHQv2 cats 8:1:1 into train, val and test zips in EG3D's format, each with a manifest.

    python scripts/prepare_afhq.py --images CROPS --out data/afhq_cat

CROPS is a folder or zip of 512² cats with the dataset.json of EG3D's cameras. A mirrored copy, told by --mirror-suffix,
follows its original into train and is left out of val and test.
"""

import argparse
from pathlib import Path

from goae.data.subsets import Download, afhq_entries, write_set
from goae.errors import one_paragraph


def main() -> None:
    args = _arguments()
    with one_paragraph():
        download = Download(args.images)
        splits, counts = afhq_entries(download.posed, mirror_suffix=args.mirror_suffix, seed=args.seed)
        for split, entries in splits.items():
            out = Path(args.out) / f"{split}.zip"
            settings = {"set": "afhq_cat", "split": split, "seed": args.seed, **counts}
            written = write_set(
                download, entries, out, settings=settings, resolution=args.resolution, radius=args.radius
            )
            print(f"{out}: {len(entries)} images, {'written' if written else 'complete already'}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="folder or zip of crops with dataset.json")
    parser.add_argument("--mirror-suffix", default="_mirror", help="end of a mirrored copy's stem; empty: none")
    parser.add_argument("--out", default="data/afhq_cat", help="folder of the zips")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resolution", type=int, default=512, help="side that every crop must have")
    parser.add_argument("--radius", type=float, default=2.7, help="distance of every camera; 0: not checked")
    return parser.parse_args()


if __name__ == "__main__":
    main()
