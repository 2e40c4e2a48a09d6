"""Hold validation images out of FFHQ: train and val zips in EG3D's format, each with a manifest.

    python scripts/prepare_ffhq.py --images FFHQ_512.zip --out data/ffhq

FFHQ_512.zip, or a folder, is what EG3D's data preparation makes of FFHQ: 512² crops and dataset.json with their
cameras. Mirrored copies and replicas, whatever their names (--copies), follow their image into train and are left out
of val.
"""

from goae.errors import one_paragraph

from goae.data.subsets import Download, ffhq_entries
from goae.runs.prepare import prepare_splits, search, split_parser


def main() -> None:
    parser = split_parser(__doc__, out="data/ffhq")
    parser.add_argument("--num", type=int, default=1000, help="images to hold out")
    args = parser.parse_args()
    with one_paragraph():
        download = Download(args.images)
        found = ffhq_entries(search(download, download.posed, args.copies), num=args.num, seed=args.seed)
        prepare_splits("ffhq", download, *found, args)


if __name__ == "__main__":
    main()
