"""Split AFHQv2 cats 8:1:1 into train, val and test zips in EG3D's format, each with a manifest.

    python scripts/prepare_afhq.py --images CROPS --out data/afhq_cat

CROPS is a folder or zip of 512² cats with the dataset.json of EG3D's cameras. Mirrored copies and replicas, whatever
their names (--copies), follow their image into train and are left out of val and test.
"""

from goae.errors import one_paragraph

from goae.data.subsets import Download, afhq_entries
from goae.runs.prepare import prepare_splits, search, split_parser


def main() -> None:
    args = split_parser(__doc__, out="data/afhq_cat").parse_args()
    with one_paragraph():
        download = Download(args.images)
        found = afhq_entries(search(download, download.posed, args.copies), seed=args.seed)
        prepare_splits("afhq_cat", download, *found, args)


if __name__ == "__main__":
    main()
