"""Readers against damaged files: seeded mutations of a file's bytes, and a runner with limits on memory and time.

    survives(on_file(path, load_it), [path.read_bytes()])

runs a few hundred mutations in a child process, and fails for any exception that a reader does not document, for a file
that takes longer than 10 s, and where 1 GB is not enough. `GOAE_MUTATIONS=20000` in the environment runs as many.
"""

import multiprocessing
import os
import random
import resource
import struct
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

DOCUMENTED: tuple[type[Exception], ...] = (ValueError, FileNotFoundError)
FEW, SECONDS, MEMORY = 300, 10.0, 1 << 30
INTERESTING = (0, 1, 2, 127, 128, 255, 256, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 63) - 1)


@dataclass
class Report:
    """What a reader did with `files` files: those it took and refused, and what went wrong."""

    files: int = 0
    accepted: int = 0
    refused: int = 0
    undocumented: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0  # seconds
    memory: int = 0  # bytes above those of the parent

    def __str__(self) -> str:
        wrong = f"undocumented {self.undocumented.total()} {dict(self.undocumented.most_common(5))}"
        told = f"{self.files} files, {self.refused} refused, {self.accepted} accepted, {wrong}"
        return f"{told}, slowest {self.slowest:.2f} s, {self.memory >> 20} MB"


def mutations(whole: bytes, num: int, seed: int = 0) -> Iterator[bytes]:
    """Yield `num` damaged copies of a file, of one to four mutations each."""
    rng = random.Random(seed)
    for _ in range(num):
        data = whole
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = rng.choice(MUTATIONS)(data, rng) if data else b"\x80"
        yield data


def on_file(path: Path, load: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Make a reader of bytes from a reader of files: `path` is written anew for each."""

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return load(path)

    return read


def survives(
    load: Callable[[bytes], object],
    originals: Sequence[bytes],
    *,
    few: int = FEW,
    memory: int = MEMORY,
    mutate: Callable[[bytes, int, int], Iterator[bytes]] = mutations,
) -> Report:
    """Run `load` on mutations of the originals, and fail for what a reader must not do.

    Args:
        load: reads the bytes of one file; see `on_file`.
        few: how many files, where `GOAE_MUTATIONS` does not ask for more.
        memory: bytes that the child process may take on top of what it starts with.
        mutate: (original, number, seed) -> files; use it to damage the inside of an archive.
    """
    num = int(os.environ.get("GOAE_MUTATIONS", few))
    files = (
        data
        for seed, whole in enumerate(originals)
        for data in mutate(whole, num // len(originals) + (seed < num % len(originals)), seed)
    )
    report = bounded(lambda: run(load, files), memory=memory)
    assert isinstance(report, Report)
    print(report)
    assert not report.undocumented and report.slowest < SECONDS, str(report)
    return report


def run(load: Callable[[bytes], object], files: Iterator[bytes]) -> Report:
    """Read all files in this process."""
    report = Report()
    for data in files:
        report.files += 1
        start = time.perf_counter()
        try:
            load(data)
            report.accepted += 1
        except DOCUMENTED:
            report.refused += 1
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            report.undocumented[f"{type(error).__name__} ({error}) at {place.filename}:{place.lineno}"[:300]] += 1
        report.slowest = max(report.slowest, time.perf_counter() - start)
    return report


def bounded(work: Callable[[], object], *, memory: int = MEMORY, seconds: float | None = None) -> object:
    """Run `work` in a child process that may take `memory` more bytes, and return its result, or raise what it raised.

    Args:
        seconds: after which the child is ended and the test fails; None waits for as long as the runner needs.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(work, memory, sender))
    child.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            raise AssertionError(f"it takes more than {seconds} s")
        result = receiver.recv()
    except EOFError:
        child.join()
        raise AssertionError(f"the process died with exit code {child.exitcode}") from None
    finally:
        child.kill()
        child.join()
    if isinstance(result, BaseException):
        raise result
    return result


def _child(work: Callable[[], object], memory: int, sender: Connection) -> None:
    limit = _memory("VmSize") + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _memory("VmRSS")
    try:
        result = work()
    except BaseException as error:
        sender.send(error)
        return
    if isinstance(result, Report):
        result.memory = _memory("VmHWM") - before
    sender.send(result)


def _memory(field: str) -> int:
    """A size of this process as Linux counts it, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))


# Mutations ------------------------------------------------------------------------------------------------------------


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _byte(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]


def _number(data: bytes, rng: random.Random) -> bytes:
    """A length field, or what may be one."""
    form = rng.choice(("<H", "<I", "<Q", ">I", ">Q"))
    size = struct.calcsize(form)
    value = rng.choice((*INTERESTING, len(data), len(data) * 2, rng.randrange(1 << 20))) & ((1 << 8 * size) - 1)
    place = rng.randrange(len(data))
    return data[:place] + struct.pack(form, value) + data[place + size :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _part(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(data))
    return start, min(len(data), start + rng.choice((1, 2, 4, 8, 16, 64, 512)))


def _delete(data: bytes, rng: random.Random) -> bytes:
    start, end = _part(data, rng)
    return data[:start] + data[end:]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    start, end = _part(data, rng)
    return data[:start] + data[start:end] * rng.choice((2, 3, 16, 100)) + data[end:]


def _splice(data: bytes, rng: random.Random) -> bytes:
    (start, end), place = _part(data, rng), rng.randrange(len(data))
    keep = rng.choice((0, end - start))  # insert, or write over
    return data[:place] + data[start:end] + data[place + keep :]


MUTATIONS = (_flip, _flip, _byte, _number, _cut, _delete, _repeat, _splice)
