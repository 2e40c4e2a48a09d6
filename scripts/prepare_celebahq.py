"""Draw the paper's CelebA-HQ test set: 1,500 images of the official test list, in EG3D's format with a manifest.

    python scripts/prepare_celebahq.py --images CROPS --mapping CelebA-HQ-to-CelebA-mapping.txt \
        --partition list_eval_partition.txt --out data/celebahq/test.zip

CROPS is a folder or zip with what EG3D's preprocessing makes of CelebA-HQ: 512² crops named as the images, and
dataset.json with their cameras. The test list follows from two files that come with CelebA-HQ and CelebA, or is given
by --list, one image name a line. With CelebA's --identities, intervals are over persons instead of images. Mirrored
copies (X_mirror.png, or by --copies) are never drawn.
"""

from goae.errors import one_paragraph

import argparse
from os.path import expanduser
from pathlib import Path

from goae.data.subsets import Download, celebahq_entries, celebahq_test
from goae.runs.prepare import argument_parser, drop_copies, prepare


def main() -> None:
    args = _arguments()
    with one_paragraph():
        download = Download(args.images)
        wanted = _wanted(args)
        listed = [name for name in download.posed if Path(name).stem in wanted]
        originals, dropped = drop_copies(download, listed, args.copies)
        entries, counts = celebahq_entries(originals, wanted, num=args.num, seed=args.seed)
        settings = {"set": "celebahq", "seed": args.seed, **counts, **dropped}
        prepare(download, entries, Path(args.out), settings, args)


def _wanted(args: argparse.Namespace) -> dict[str, int | None]:
    """Stems of the test list, and the person of each if known."""
    if args.list:
        return {Path(line).stem: None for line in _read(args.list).split()}
    test = celebahq_test(_read(args.mapping), _read(args.partition))
    persons: dict[str, int] = {}
    if args.identities:
        rows = (line.split() for line in _read(args.identities).splitlines() if line.strip())
        persons = {file: int(person) for file, person in rows}
        missing = [file for file in test.values() if file not in persons]
        if missing:
            raise ValueError(f"{args.identities} lacks {missing[0]} and {len(missing) - 1} more of the test images")
    return {args.stem.format(idx=number): persons.get(file) for number, file in test.items()}


def _read(path: str) -> str:
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}; see --help for what is expected and where it comes from")
    return Path(path).read_text()


def _arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--mapping", type=expanduser, default="CelebA-HQ-to-CelebA-mapping.txt", help="lines: idx orig_idx orig_file"
    )
    parser.add_argument(
        "--partition", type=expanduser, default="list_eval_partition.txt", help="lines: file partition; 2 is the test"
    )
    parser.add_argument(
        "--list", type=expanduser, default="", help="image names of the test list, instead of the two files above"
    )
    parser.add_argument("--identities", type=expanduser, default="", help="identity_CelebA.txt, lines: file person")
    parser.add_argument("--stem", default="{idx}", help="stem of image number idx, for example {idx:05d}")
    parser.add_argument("--out", type=expanduser, default="data/celebahq/test.zip")
    parser.add_argument("--num", type=int, default=1500, help="images to draw")
    return parser.parse_args()


if __name__ == "__main__":
    main()
