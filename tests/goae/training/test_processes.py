"""One process and two give the same science: gradients, statistics and pools do not depend on how slots are spread."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from lightning_fabric import Fabric
from test_loop import Toy, fetch
from goae.training import exchange
from goae.training.loop import FitConfig, fit
from goae.training.tracking import LoggingConfig, Tracker

exchange.BUCKET = 64  # bytes: several of them
early = []

class Counted(exchange.Overlap):
    def finish(self):
        early.append(len(self.sent))
        super().finish()

sys.modules["goae.training.loop"].Overlap = Counted
deterministic = sys.argv[4] == "exact"
folder = Path(sys.argv[2])
fabric = Fabric(accelerator="cpu", devices=int(sys.argv[3]), strategy="ddp" if int(sys.argv[3]) > 1 else "auto")
fabric.launch()
for damage in (False, True):  # all processes go on from step 4, though step 5 was reached
    if damage and fabric.is_global_zero:
        (folder / "checkpoints/toy/step-000000005.pt").write_bytes(b"cut")
    fabric.barrier()
    stage = Toy()
    fit(stage, fetch, FitConfig(steps=5, batch_size=4, micro_batch=2, log_every=1, save_every=2), folder, fabric=fabric,
        seed=3, deterministic=deterministic, preview=fetch(0, 0), export=lambda module, path: None,
        tracker=Tracker(folder, LoggingConfig(progress=False), active=fabric.is_global_zero))
if fabric.is_global_zero:
    torch.save({"net": stage.net.state_dict(), "early": early}, folder / "end.pt")
"""
HERE = Path(__file__).parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1] / "support")}


def launch(script: Path, folder: Path, mode: str) -> dict[str, Any]:
    """Train with two processes; what the first of them left."""
    folder.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    subprocess.run(
        [*command, str(HERE), str(folder), "2", mode], check=True, timeout=240, env=ENVIRONMENT, capture_output=True
    )
    return torch.load(folder / "end.pt", weights_only=True)


def test_one_process_and_two_with_and_without_buckets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One and two to rounding; two of both kinds to the bit, since two summands have one order."""
    script, alone = tmp_path / "run.py", tmp_path / "alone"
    script.write_text(SCRIPT)
    alone.mkdir()
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "argv", [str(script), str(HERE), str(alone), "1", "exact"])
    runpy.run_path(str(script))
    one = torch.load(alone / "end.pt", weights_only=True)
    exact, fast = launch(script, tmp_path / "exact", "exact"), launch(script, tmp_path / "fast", "fast")
    for name, value in one["net"].items():
        assert torch.allclose(value.double(), exact["net"][name].double(), atol=1e-6), name
        assert torch.equal(exact["net"][name], fast["net"][name]), name
    saved = [sorted((folder / "checkpoints/toy").iterdir())[-1] for folder in (alone, tmp_path / "exact")]
    slots = [torch.load(path, weights_only=True)["slots"] for path in saved]
    assert slots[0].keys() == slots[1].keys() == {0, 1}
    assert all(torch.allclose(slots[0][s], slots[1][s], atol=1e-6) for s in (0, 1))
    # the buckets of all steps but the first of a start travel early
    assert one["early"] == exact["early"] == [] and fast["early"][0] == 0 and min(fast["early"][1:5]) > 2
