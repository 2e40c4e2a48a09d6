"""Parts measured again go into the record of all, on the machine that made it alone."""

from dataclasses import replace
from pathlib import Path

import pytest

from goae.benchmark.machine import Machine, Rates
from goae.benchmark.record import updated
from goae.benchmark.report import write_json

MACHINE = Machine("CPU", 2, 2, [], "cpu", "2", False, False, Rates(10e9, 20e9), None, 100e9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_json({"machine": MACHINE.as_dict(), "parts": {"a": {"ref_s": 1.0}, "b": {"ref_s": 2.0}}}, tmp_path / "r.json")
    return tmp_path / "r.json"


def test_measured_parts_replace_theirs_and_carry_their_rates(path: Path) -> None:
    later = replace(MACHINE, rates=Rates(11e9, 22e9))
    record = updated(path, {"b": {"ref_s": 3.0}}, later)
    assert record["machine"] == MACHINE.as_dict()
    rates = {"matmul_gflops": 11.0, "conv_gflops": 22.0, "copy_gb_per_s": 100.0}
    assert record["parts"] == {"a": {"ref_s": 1.0}, "b": {"ref_s": 3.0, "rates": rates}}


def test_a_record_of_another_machine_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match=r"another machine \(threads: 2 there, 1 here\)"):
        updated(path, {}, replace(MACHINE, threads=1))
    with pytest.raises(ValueError, match=r"another machine \(tf32: False there, True here\)"):
        updated(path, {}, replace(MACHINE, tf32=True))
    with pytest.raises(FileNotFoundError, match="measure all parts first"):
        updated(path.with_name("none.json"), {}, MACHINE)


def test_a_record_from_before_it_told_of_tf32_had_none(path: Path) -> None:
    then = {name: value for name, value in MACHINE.as_dict().items() if name != "tf32"}
    write_json({"machine": then, "parts": {"a": {"ref_s": 1.0}}}, path)
    assert updated(path, {}, MACHINE)["machine"] == then
