"""One measurement in a process of its own, so that parts share neither memory nor what the last one left behind."""

import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from eg3d.ops.choice import choose

from goae.benchmark.machine import Machine, describe
from goae.benchmark.measure import Measured, measure
from goae.benchmark.parts import BF16, Worlds, part_of
from goae.precision import forbid_tf32

SEED = 0


class PartError(RuntimeError):
    """A measurement failed; the message says how."""


class TimeUpError(PartError):
    """A measurement took longer than it may."""


@dataclass(frozen=True)
class Setting:
    """Where and how often to measure; `num_threads` 0 takes PyTorch's default."""

    device: torch.device
    num_threads: int
    repeats: int
    impl: str = "auto"  # of our side, see `eg3d.ops.choice`
    renderer: str = "fused"

    def apply(self) -> None:
        """Threads, seed and operators of this process, and no TF32."""
        forbid_tf32()
        if self.device.index is not None:
            torch.cuda.set_device(self.device)
        choose(self.impl, self.renderer)
        if self.num_threads:
            torch.set_num_threads(self.num_threads)
        torch.manual_seed(SEED)


def measure_machine(setting: Setting, seconds: float | None = None) -> Machine:
    """The machine's rates; `seconds` as of `run_apart`."""
    return run_apart(_machine, setting, seconds=seconds)


def measure_part(
    name: str, worlds: Worlds, setting: Setting, report: Callable[[], None], seconds: float | None = None
) -> Measured:
    """One part; `report` is called after every call of it, `seconds` as of `run_apart`."""
    return run_apart(_part, setting, name, worlds, report=report, seconds=seconds)


def _machine(setting: Setting, report: Callable[[], None]) -> Machine:
    return describe(setting.device)


def _part(setting: Setting, report: Callable[[], None], name: str, worlds: Worlds) -> Measured:
    work = part_of(name).make(worlds, setting.device)
    return measure(work, setting.device, setting.repeats, bf16=name.endswith(BF16), report=report)


def run_apart(
    job: Callable[..., Any],
    setting: Setting,
    *arguments: Any,
    report: Callable[[], None] = lambda: None,
    seconds: float | None = None,
) -> Any:
    """The value of `job(setting, report, *arguments)` in a new process.

    Args:
        seconds: the process is ended if it takes longer; None lets it.
    Raises: PartError with the traceback if it raises there, with its exit code if it dies, or if it takes too long.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # one process imports everything, once; it computes nothing
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(sender, job, setting, arguments), daemon=True)
    process.start()
    sender.close()  # the other end is the child's alone, so that its death ends the wait
    try:
        return _receive(receiver, report, seconds)
    except EOFError:
        process.join()
        raise PartError(f"its process died with exit code {process.exitcode}") from None
    finally:
        process.terminate()
        process.join()


def _receive(receiver: Connection, report: Callable[[], None], seconds: float | None) -> Any:
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        if end is not None and not receiver.poll(max(end - time.monotonic(), 0.0)):
            raise TimeUpError(f"it was ended after {seconds:.0f} s, when its time was up")
        kind, value = receiver.recv()
        if kind == "value":
            return value
        if kind == "error":
            raise PartError(value)
        report()


def _serve(sender: Connection, job: Callable[..., Any], setting: Setting, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C, and ends this process
    setting.apply()
    try:
        sender.send(("value", job(setting, lambda: sender.send(("call", None)), *arguments)))
    except Exception:  # whatever went wrong is told to the parent, which goes on with the other parts
        sender.send(("error", traceback.format_exc()))
