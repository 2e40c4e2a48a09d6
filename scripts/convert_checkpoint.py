"""Convert a published EG3D checkpoint to safetensors + JSON, without running code from it, and print what it holds.

python scripts/convert_checkpoint.py INPUT.pkl OUTPUT.safetensors
"""

from goae.errors import one_paragraph

import argparse
from pathlib import Path

import torch
from eg3d.checkpoint import describe, generator_hash, load, save

from goae.models.sampling import with_samples


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, help="a published pickle, or a .safetensors of our own")
    parser.add_argument("output", type=Path, help="ends in .safetensors; a .json of the same stem is written beside it")
    parser.add_argument("--which", default="G_ema", choices=["G_ema", "G"], help="network to convert")
    parser.add_argument(
        "--half", action="store_true", help="store float16, which halves the size and rounds the weights"
    )
    parser.add_argument(
        "--samples", type=int, default=0, metavar="N", help="coarse, and fine, samples per ray to store; 0: its own"
    )
    parser.add_argument("--force", action="store_true", help="replace existing files")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    existing = [path for path in (args.output, args.output.with_suffix(".json")) if path.exists()]
    if existing and not args.force:
        raise FileExistsError(f"{existing[0]} exists and was left as it is; pass --force to replace it")
    print(describe(args.input, which=args.which))
    generator = with_samples(load(args.input, which=args.which), args.samples)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    save(generator, args.output, dtype=torch.float16 if args.half else torch.float32)
    print(f"{'written:':<18}{args.output}\n{'hash:':<18}{generator_hash(load(args.output))}")


if __name__ == "__main__":
    with one_paragraph():
        main(parse())
