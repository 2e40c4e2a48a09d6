"""Limits and entries by hand; files are written whole."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from goae.benchmark.flops import Flops
from goae.benchmark.machine import Machine, Rates
from goae.benchmark.measure import Measured, Side
from goae.benchmark.report import draw_chart, limit_seconds, part_values, table, write_json

MACHINE = Machine("CPU", 2, 2, [], "cpu", "2", True, False, Rates(10.0, 20.0), Rates(20.0, 40.0), 100.0)
MEASURED = Measured(Side([4.0, 6.0, 5.0], 300), Side([2.0, 3.0, 2.0], None), Flops(40, 10), 50, 4)


def test_the_limit_is_the_longer_of_arithmetic_and_copying() -> None:
    assert limit_seconds("encoder", MEASURED, MACHINE) == 40 / 20 + 10 / 10
    assert limit_seconds("encoder", replace(MEASURED, touched=700), MACHINE) == 7.0
    assert limit_seconds("encoder_bf16", MEASURED, MACHINE) == 1.5


def test_an_entry() -> None:
    values = part_values("encoder", MEASURED, MACHINE, comparable=True)
    assert (values["ref_s"], values["ours_s"], values["ratio"], values["limit_s"]) == (5.0, 2.0, 2.5, 3.0)
    assert (values["ref_bytes"], values["ours_bytes"]) == (300, None)
    assert (values["ref_min_s"], values["ours_max_s"], values["ours_images_per_s"]) == (4.0, 3.0, 2.0)
    assert values["ref_to_original"] == pytest.approx(5.0 / (0.5 * 280e9 / 20))
    assert "original_s" not in part_values("encoder", MEASURED, MACHINE, comparable=False)
    assert "original_s" not in part_values("encoder", MEASURED, replace(MACHINE, device="cuda"), comparable=True)


def test_json_chart_and_table_are_made(tmp_path: Path) -> None:
    parts = {name: part_values(name, MEASURED, MACHINE, comparable=True) for name in ("encoder", "mini_encoder")}
    path = tmp_path / "new" / "cpu.json"
    write_json({"machine": MACHINE.as_dict(), "parts": parts}, path)
    assert json.loads(path.read_text())["parts"] == parts
    draw_chart(parts, MACHINE.as_dict(), path.with_suffix(".png"))
    assert sorted(p.name for p in path.parent.iterdir()) == ["cpu.json", "cpu.png"]
    assert table(parts, MACHINE.as_dict()).row_count == 2
