"""Damage to files as disks and copies do it."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path


def flips(path: Path, num: int = 200) -> Iterator[int]:
    """Flip one bit of a file at a time, at `num` random places (seed 0); yields its number."""
    whole = path.read_bytes()
    bits = 8 * len(whole)
    for bit in random.Random(0).sample(range(bits), min(num, bits)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(data))
        yield bit
    path.write_bytes(whole)


def cuts(path: Path) -> Iterator[int]:
    """Cut a file to lengths from 0 to one byte less than it has; yields the length."""
    whole = path.read_bytes()
    lengths = {0, 1, 7, 8, 9, *(len(whole) * i // 7 for i in range(1, 7)), *(len(whole) - i for i in (70, 40, 1))}
    for length in sorted(n for n in lengths if 0 <= n < len(whole)):
        path.write_bytes(whole[:length])
        yield length
    path.write_bytes(whole)


def unnoticed(path: Path, load: Callable[[], object], damage: Iterator[int] | None = None) -> list[int]:
    """The flips (or other damages) after which `load` does not raise a ValueError that names the file."""
    passed = []
    for place in damage or flips(path):
        try:
            load()
        except ValueError as error:
            if path.name not in str(error):
                raise
        else:
            passed.append(place)
    return passed
