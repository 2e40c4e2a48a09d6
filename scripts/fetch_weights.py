"""Fetch pretrained networks into the cache ($GOAE_CACHE or ~/.cache/goae), or say where to get them.

    python scripts/fetch_weights.py --list
    python scripts/fetch_weights.py alex vgg face_resnet
    python scripts/fetch_weights.py ffhqrebalanced512-128 --accept-licence

Files are checked against their SHA-256 and come with a note on their source and licence. An interrupted download is
resumed by the same command; what is already there is checked and left alone.
"""

from goae.errors import one_paragraph

import argparse
import sys

from goae.fetching.catalogue import ASSETS
from goae.fetching.fetch import entry, fetch, remedy, status
from goae.weights import cache


def show_list() -> None:
    """Print every known file with its state, licence and remedy."""
    print(f"cache: {cache()}")
    for name, asset in ASSETS.items():
        state = status(name)
        way = f"; {remedy(name)}" if state == "missing" else ""
        print(entry(state, name, f"{asset.what}; {asset.licence}{way}"))


def show_progress(have: int, total: int | None) -> None:
    """A line on a terminal, nothing in a log."""
    if sys.stderr.isatty():
        share = f" of {total / 1e6:.1f}" if total else ""
        print(f"\r{have / 1e6:.1f}{share} MB", end="\n" if have == total else "", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="see --list")
    parser.add_argument("--list", action="store_true", help="show all files and whether they are there")
    parser.add_argument("--accept-licence", action="store_true", help="accept the licences of the named files")
    args = parser.parse_args()
    if not args.names and not args.list:
        parser.error("name a file, or ask for --list")
    with one_paragraph():
        if args.list:
            show_list()
        for name in args.names:
            if name in ASSETS and status(name) == "missing":
                print(f"{name}: {ASSETS[name].what}; licence: {ASSETS[name].licence}")
        for path in fetch(args.names, accept_licence=args.accept_licence, progress=show_progress):
            print(path)


if __name__ == "__main__":
    main()
