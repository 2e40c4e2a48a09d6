"""End scripts: what a user can mend is one paragraph with exit code 1, Ctrl-C one line with exit code 130."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from multiprocessing import parent_process
from types import TracebackType

AGAIN = "finished files are kept; the same command starts again."
INTERRUPTED = 130  # as shells count a process that SIGINT ended
# signs in the type or the first line of an error that itself says no remedy -> the remedy
REMEDIES = {
    ("OutOfMemoryError", "MemoryError", "DefaultCPUAllocator"): (
        "the memory is not enough: choose smaller batches (batch_size; in training micro_batch and the batch sizes of "
        "validation and distribution), fewer processes or workers, or device=cpu"
    ),
    ("No space left", "Disk quota exceeded", "File too large", "PytorchStreamWriter failed", "unexpected pos"): (
        "the file could not be written: free space on the disk, then give the same command again"
    ),
    ("BrokenProcessPool",): "a worker was killed, mostly for want of memory: start fewer workers",
}
_processes: list[list[subprocess.Popen]] = []


@contextmanager
def one_paragraph(kept: Callable[[], str] = lambda: AGAIN) -> Iterator[None]:
    """Turn the errors that a user can mend into one paragraph on stderr and exit code 1; bugs keep their traceback.

    Args:
        kept: says after Ctrl-C what is kept and how to go on.
    """
    try:
        yield
        sys.stdout.flush()  # here, and not when the interpreter ends, what cannot be written is still told
    except KeyboardInterrupt:
        _end_processes()
        _say(f"stopped: {kept()}")
        sys.exit(INTERRUPTED)
    except BrokenPipeError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else the interpreter fails once more when it flushes stdout
        print(f"error: the program that reads this one's output has ended ({error}); {AGAIN}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        _end_processes()
        remedy = _remedy(error)
        if not remedy and not isinstance(error, ValueError | OSError):
            raise
        print(f"error: {_first_line(error)}; {remedy}" if remedy else f"error: {error}", file=sys.stderr)
        sys.exit(1)


def ends_with_this_process(processes: list[subprocess.Popen]) -> None:
    """Let further ranks, also those that the list will get, end when this one fails or is stopped."""
    _processes.append(processes)


def stop_in_a_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say in one line that Ctrl-C has ended a script that was still being loaded; show all else as Python does."""
    if issubclass(kind, KeyboardInterrupt):
        _say("stopped before anything was begun.")
    else:
        sys.__excepthook__(kind, error, trace)


def _say(text: str) -> None:
    if os.environ.get("LOCAL_RANK", "0") == "0" and parent_process() is None:  # of several processes, one speaks
        print(text, file=sys.stderr)


def _end_processes() -> None:
    """Kill the other ranks, which would wait for this one."""
    for process in chain(*_processes):
        process.kill()


def _remedy(error: Exception) -> str:
    text = f"{type(error).__name__} {_first_line(error)}"
    return next((remedy for signs, remedy in REMEDIES.items() if any(sign in text for sign in signs)), "")


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0] or type(error).__name__


sys.excepthook = stop_in_a_line
