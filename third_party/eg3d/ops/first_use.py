"""A kernel's first use on a device: one comparison with the plain definition, whose verdict is kept beside the build.

A kernel that compiles may still compute wrong numbers on a device that nobody has tried it on. `refusal` compares it on
small inputs, values and gradients, against the definition in double precision on the CPU. The verdict stands in
`verdicts.json` in the folder of the library, by device, driver, PyTorch, and the library's hash, and is read again
by later processes. Processes that start together compare once.
"""

import functools
import hashlib
import importlib
import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from eg3d.integrity import replace_file
from torch import Tensor

log = logging.getLogger(__name__)
# Where the cases of each operator are: a function `cases(operator, device type)`.
CASES = {
    **dict.fromkeys(("bias_act", "upfirdn2d", "conv3x3", "modulated_layer"), "eg3d.ops.cases"),
    "render": "eg3d.rendering.cases",
}
FILE = "verdicts.json"
BEGUN = "a comparison with the definition was begun and never ended, as if the kernel had crashed the process"

_lock = threading.Lock()
_thread = threading.local()
_known: dict[tuple[str, torch.device], str] = {}  # operator, device -> what differs, "" if nothing does


class Case(NamedTuple):
    """One call to compare: `call(impl, *inputs)` -> its results.

    inputs: float32 on the CPU, by name; dtypes: what a kernel gets them as; outputs: names of the results.
    tolerance: the largest difference allowed in each result and gradient, as a share of its largest value.
    deterministic: whether PyTorch is asked for deterministic algorithms, where a kernel has one of its own.
    """

    name: str
    call: Callable[..., Sequence[Tensor]]
    inputs: dict[str, Tensor]
    dtypes: tuple[torch.dtype, ...]
    outputs: tuple[str, ...]
    tolerance: float
    deterministic: bool = False


def refusal(operator: str, device: torch.device, library: Path) -> str:
    """Return why the kernel of an operator must not be used on a device, "" if it may; compared on first use.

    Args:
        library: the compiled library, beside which verdicts are kept.
    """
    key = (operator, device)
    found = _known.get(key)
    if found is not None:
        return found
    if getattr(_thread, "comparing", False):
        return ""
    with _lock:
        if key not in _known:
            _known[key] = _judge(operator, device, library)
    return _known[key]


def compare(operator: str, device: torch.device) -> str:
    """Compare an operator's kernels with its definition; what differs, in words, or "" if nothing does."""
    cases = importlib.import_module(CASES[operator]).cases
    _thread.comparing = True
    try:
        found = ((case.name, _difference(case, device)) for case in cases(operator, device.type))
        return next((f"{name}: {text}" for name, text in found if text), "")
    finally:
        _thread.comparing = False


def verdict_of(operator: str, device: torch.device) -> str:
    """Do as `compare` in a thread of its own, without the caller's autocast and hooks; an error is a verdict."""
    try:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(compare, operator, device).result()
    except Exception as error:  # whatever a kernel that fails raises
        return f"it raised {type(error).__name__}: {error}"


def identify(device: torch.device, library: Path) -> str:
    """Return what a verdict holds for: the device, its driver, PyTorch, and the compiled library."""
    parts = [device.type]
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        driver = getattr(torch._C, "_cuda_getDriverVersion", lambda: "unknown")()
        parts = [torch.cuda.get_device_name(device), f"sm_{major}{minor}", f"driver {driver}"]
    return ", ".join([*parts, f"torch {torch.__version__}", f"library {_digest(library)}"])


@functools.cache
def _digest(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()[:16]


def _judge(operator: str, device: torch.device, library: Path) -> str:
    """The stored verdict, or a new one, which is stored."""
    from filelock import FileLock  # comes with torch

    path, who = library.with_name(FILE), identify(device, library)
    with FileLock(library.with_name("judging")):
        stored = _read(path).get(who, {}).get(operator)
        if stored is not None:
            return stored
        _note(path, who, operator, BEGUN)
        try:
            found = verdict_of(operator, device)
        except BaseException:  # interrupted
            _note(path, who, operator, None)
            raise
        _note(path, who, operator, found)
        _require_alive(operator, device, found)
    return found


def _require_alive(operator: str, device: torch.device, found: str) -> None:
    """Raises: RuntimeError if the kernel has left the GPU unusable for this process."""
    if found and device.type == "cuda":
        try:
            torch.cuda.synchronize(device)
        except RuntimeError as error:
            raise RuntimeError(
                f"The kernel of {operator} has crashed on {device} at its first use, and this process cannot go on "
                f"({found}). It is noted: start the same command again, which then uses plain PyTorch for {operator}."
            ) from error


def _difference(case: Case, device: torch.device) -> str:
    """What differs most beyond the tolerance, in words."""
    rounded = [t.to(dtype) for t, dtype in zip(case.inputs.values(), case.dtypes, strict=True)]
    with _algorithms(case.deterministic):
        found = _results(case, device.type, [t.to(device) for t in rounded])
    wanted = _results(case, "ref", [t.double() for t in rounded])
    names = [*case.outputs, *(f"gradient of {name}" for name in case.inputs)]
    worst, text = case.tolerance, ""
    for name, ours, plain in zip(names, found, wanted, strict=True):
        if ours.shape != plain.shape:
            return f"{name} has shape {tuple(ours.shape)}, expected {tuple(plain.shape)}"
        if not bool(ours.isfinite().all()):
            return f"{name} has numbers that are not finite"
        error = float((ours - plain).abs().max())
        relative = error / float(plain.abs().max())
        if relative > worst:
            worst = relative
            text = f"{name} differs by {error:.2g}, {relative:.2g} of its largest value; at most {case.tolerance:.2g}"
    return text


def _results(case: Case, impl: str, inputs: list[Tensor]) -> list[Tensor]:
    """Results, and gradients of a fixed random product of them, in double precision on the CPU."""
    rng = torch.Generator().manual_seed(1)
    leaves = [t.clone().requires_grad_() for t in inputs]
    outputs = case.call(impl, *leaves)
    products = [(y.double() * torch.randn(y.shape, generator=rng).to(y.device)).sum() for y in outputs]
    gradients = torch.autograd.grad(torch.stack(products).sum(), leaves)  # of a scalar: others import SymPy, 0.6 s
    return [t.detach().cpu().double() for t in (*outputs, *gradients)]


@contextmanager
def _algorithms(deterministic: bool) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _read(path: Path) -> dict[str, dict[str, str]]:
    """Device -> operator -> verdict; nothing where the file is missing or damaged, so that it is made again."""
    try:
        content: Any = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    rows = content.items() if isinstance(content, dict) else ()
    return {who: row for who, row in rows if isinstance(row, dict) and all(isinstance(v, str) for v in row.values())}


def _note(path: Path, who: str, operator: str, verdict: str | None) -> None:
    """Write a verdict, or take it back, and keep the others; the file is replaced as a whole."""
    content = _read(path)
    row = {name: found for name, found in content.get(who, {}).items() if name != operator}
    content[who] = row if verdict is None else row | {operator: verdict}
    try:
        replace_file(path, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        log.warning("%s cannot be written, so that kernels are compared again next time: %s", path, error)
