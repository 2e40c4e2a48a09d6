"""One process and two give the same science: gradients, statistics and pools do not depend on how slots are spread."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

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
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def launch(*arguments: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2] / "support")}
    subprocess.run([*LAUNCH, *arguments], check=True, timeout=240, env=environment, capture_output=True)


def test_two_processes_equal_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    folders = [tmp_path / f"processes{num}" for num in (1, 2)]
    for folder in folders:
        folder.mkdir()
    given = [[str(script), str(Path(__file__).parent), str(folder), folder.name[-1], "exact"] for folder in folders]
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "argv", given[0])
    runpy.run_path(str(script))
    launch(*given[1])
    ends = [torch.load(folder / "end.pt", weights_only=True)["net"] for folder in folders]
    for name in ends[0]:
        assert torch.allclose(ends[0][name].double(), ends[1][name].double(), atol=1e-6), name
    saved = [sorted((tmp_path / f"processes{n}/checkpoints/toy").iterdir())[-1] for n in (1, 2)]
    slots = [torch.load(path, weights_only=True)["slots"] for path in saved]
    assert slots[0].keys() == slots[1].keys() == {0, 1}
    assert all(torch.allclose(slots[0][s], slots[1][s], atol=1e-6) for s in (0, 1))


def test_gradients_in_buckets_are_the_same(tmp_path: Path) -> None:
    """To the bit, since two summands have one order; the buckets of all steps but the first of a start travel early."""
    script, ends = tmp_path / "run.py", {}
    script.write_text(SCRIPT)
    for mode in ("exact", "fast"):
        (tmp_path / mode).mkdir()
        launch(str(script), str(Path(__file__).parent), str(tmp_path / mode), "2", mode)
        ends[mode] = torch.load(tmp_path / mode / "end.pt", weights_only=True)
    assert ends["exact"]["early"] == [] and ends["fast"]["early"][0] == 0 and min(ends["fast"]["early"][1:5]) > 2
    assert all(torch.equal(value, ends["fast"]["net"][name]) for name, value in ends["exact"]["net"].items())
