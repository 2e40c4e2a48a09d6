"""The recorded benchmark: a whole run, in which parts that were measured again replace what it had."""

from pathlib import Path

from eg3d.limits import read_json

from goae.benchmark.machine import Machine
from goae.benchmark.report import Values

THEN = {"tf32": False}  # what records from before they said so were measured with, on CPUs alone
RATES = ("matmul_gflops", "conv_gflops", "matmul_bf16_gflops", "conv_bf16_gflops", "copy_gb_per_s")


def updated(path: Path, parts: dict[str, Values], machine: Machine) -> Values:
    """The record at `path` with `parts` in it; each of them carries the rates that its own run measured, as `rates`.

    Raises: FileNotFoundError; ValueError if the record is of another machine.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist, so there is nothing to update; measure all parts first")
    record = read_json(path)
    current = machine.as_dict()
    there = THEN | record["machine"]
    differ = [k for k, v in current.items() if k not in RATES and there.get(k) != v]
    if differ:
        lines = "; ".join(f"{k}: {there.get(k)!r} there, {current[k]!r} here" for k in differ)
        raise ValueError(f"{path} is of another machine ({lines}); choose another output, or measure all parts here")
    rates = {k: current[k] for k in RATES if k in current}
    return record | {"parts": record["parts"] | {name: part | {"rates": rates} for name, part in parts.items()}}
