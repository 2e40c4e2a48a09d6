"""scripts/tables.py table=1 at the smallest sizes: every row and column by both protocols, and its claims."""

import json
import math
from pathlib import Path

import pytest
from composing import composed_as
from protocols import tiny_protocol, tiny_rivals

from goae.baselines.pti import PTI
from goae.config import TablesConfig, TrainConfig, claim_run
from goae.evaluation.paper_tables import TABLES
from goae.runs.tables import make_tables

RUNS = {  # method -> stage -> file
    "goae": {"encoder": "encoder", "refiner": "refiner"},
    "psp": {"encoder": "psp"},
    "e4e": {"encoder": "e4e"},
    "ide3d": {"encoder": "ide3d"},
}
ROWS = {"full": "goae", "optimization": "goae", "psp": "psp", "e4e": "e4e", "ide3d": "ide3d"}
SUBSET = {"input_view": 3, "side": 2, "front": 2}  # of six inputs, four from the side and two from the front


@pytest.fixture
def overrides(tmp_path: Path, tiny_data: Path) -> list[str]:
    """A run of each method, and a small subset of the inputs for what optimises."""
    given = [*tiny_protocol(tmp_path, tiny_data), *tiny_rivals(tmp_path)]
    for method, stages in RUNS.items():
        where = [
            f"run=tiny-{method}",
            f"paths.runs={tmp_path}",
            f"paths.generator={tmp_path / 'generator.safetensors'}",
        ]
        claim_run(composed_as(TrainConfig, "experiment=tiny", f"method={method}", *where))
        for stage, file in stages.items():
            for end in ("safetensors", "json"):
                (tmp_path / f"{file}.{end}").rename(tmp_path / f"tiny-{method}" / f"{stage}.{end}")
    good = {"auc": 0.9, "auc_interval": [0.8, 1.0], "informative": True}
    meters = dict.fromkeys(("lpips", "identity", "fd_mini"), good)
    (tmp_path / "metrics.json").write_text(json.dumps({"meters": meters}))
    fields = ("generator_path", "encoder_path", "refiner_path", "rivals.", "timing_images", "warm_up")
    return [
        *[override for override in given if not override.startswith(fields)],
        *[f"rows.{row}=[tiny-{method}]" for row, method in ROWS.items()],
        *[f"subset.{name}={number}" for name, number in SUBSET.items()],
        f"runs={tmp_path}",
        f"records={tmp_path / 'metrics.json'}",
        f"output={tmp_path / 'tables'}",
        "metrics.features_beside=none",
        "num_inputs=6",
        "subset.timing_images=1",
        "timing_images=1",
        "warm_up=0",
    ]


def test_every_row_and_column(tmp_path: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    config = composed_as(TablesConfig, *overrides, "table=1", "claims=true", name="tables")
    make_tables(config)
    path, claims = tmp_path / "tables" / "table1.json", tmp_path / "tables" / "claims.md"
    first = path.read_bytes(), claims.read_bytes()
    whole = json.loads(first[0])
    assert [row["method"] for row in whole["rows"]] == list(TABLES[1].rows)
    for row in (*whole["rows"], *whole["subset_rows"]):
        assert all(math.isfinite(cell["ours"]) for cell in row["values"].values())
    assert "not testable" not in claims.read_text().partition("## R73")[2].partition("## R76")[0]

    def refuse(*args: object) -> None:
        raise AssertionError("all rows are there")

    monkeypatch.setattr(PTI, "invert", refuse)
    make_tables(config)
    assert (path.read_bytes(), claims.read_bytes()) == first
