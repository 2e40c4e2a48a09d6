"""The train loop: exact resume, independence from the number of processes, non-finite losses, checkpoints."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from goae.training import checkpoint
from goae.training.loop import FitConfig, NonFiniteLossError, fit, split_slots
from goae.training.optim import OptimizerConfig, build_optimizer
from goae.training.phases import Batch, Draw, Phase
from goae.training.tracking import LoggingConfig, Tracker, read_metrics


class Toy:
    """A small network with everything that makes resuming hard: dropout, BatchNorm, Lookahead, a memory per slot."""

    name = "toy"
    main = "net"
    preview_columns = 2

    def __init__(self, slots: int = 2, poison: int = -1) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))
        self.modules: dict[str, nn.Module] = {"net": self.net}
        self.memory = {slot: torch.zeros(3) for slot in range(slots)}
        self.poison = poison
        optimizer = build_optimizer(OptimizerConfig("ranger", lr=1e-2), self.net.parameters())
        self.phases = [Phase("g", [self.net], optimizer, {"l2": 1.0, "memory": 0.1}, self.losses)]

    def begin(self, step: int) -> None:
        self.net.train()

    def preview(self, batch: Batch) -> Tensor:
        return batch["image"].expand(-1, -1, 4, 4)

    def slot_state(self) -> dict[int, Any]:
        return dict(self.memory)

    def load_slot_state(self, state: dict[int, Any]) -> None:
        self.memory.update(state)

    def losses(self, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        x = batch["image"].flatten(1)
        noise = torch.randn(x.shape, generator=draw.generator("noise"))
        y = self.net(x + 0.1 * noise)
        remembered, self.memory[draw.slot] = self.memory[draw.slot], y.detach().mean(0)
        bad = float("nan") if draw.step == self.poison else 1.0
        return {"l2": (y - x).square().mean() * bad, "memory": (y - remembered).square().mean()}


def fetch(step: int, slot: int) -> Batch:
    generator = torch.Generator().manual_seed(100 * step + slot)
    return {"image": torch.randn(2, 3, 1, 1, generator=generator)}


def run(stage: Toy, folder: Path, steps: int, **overrides: Any) -> None:
    cfg = FitConfig(
        **({"steps": steps, "batch_size": 4, "micro_batch": 2, "log_every": 1, "save_every": 2} | overrides)
    )
    fabric = Fabric(accelerator="cpu", devices=1)
    tracker = Tracker(folder, LoggingConfig(progress=False), active=True)
    fit(
        stage,
        fetch,
        cfg,
        folder,
        fabric=fabric,
        seed=3,
        preview=fetch(0, 0),
        evaluate=lambda module: {"mse": float(sum(p.square().sum() for p in module.parameters()))},
        tracker=tracker,
        export=lambda module, path: path.write_bytes(b"weights"),
    )


def weights(stage: Toy) -> Tensor:
    return torch.cat([t.flatten().double() for t in stage.net.state_dict().values()])


def test_stop_and_resume_equals_uninterrupted(tmp_path: Path) -> None:
    whole, first, second = Toy(), Toy(), Toy()
    run(whole, tmp_path / "whole", 8)
    run(first, tmp_path / "parts", 3)
    assert not torch.equal(weights(first), weights(whole))
    run(second, tmp_path / "parts", 8)
    assert torch.equal(weights(second), weights(whole))
    assert all(torch.equal(second.memory[s], whole.memory[s]) for s in whole.memory)
    logged = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in read_metrics(tmp_path / n, "toy")]
        for n in ("whole", "parts")
    ]
    assert logged[0] == logged[1]


def test_average_survives_a_restart(tmp_path: Path) -> None:
    run(Toy(), tmp_path / "whole", 6, ema=0.9)
    run(Toy(), tmp_path / "parts", 4, ema=0.9)
    run(Toy(), tmp_path / "parts", 6, ema=0.9)
    states = [
        torch.load(checkpoint.newest(tmp_path / n / "checkpoints/toy") or "", weights_only=True)["average"]
        for n in ("whole", "parts")
    ]
    assert states[0] and all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_last_two_checkpoints_are_kept_and_a_partial_one_is_passed_over(tmp_path: Path) -> None:
    run(Toy(), tmp_path, 6)
    folder = tmp_path / "checkpoints/toy"
    assert sorted(p.name for p in folder.iterdir()) == ["step-000000004.pt", "step-000000006.pt"]
    (folder / "step-000000009.partial").write_bytes(b"half")
    newest = checkpoint.newest(folder)
    assert newest is not None and checkpoint.step_of(newest) == 6


def test_where_a_run_starts_no_checkpoint_is_written(tmp_path: Path) -> None:
    run(Toy(), tmp_path, 3, save_every=1)
    assert sorted(p.name for p in (tmp_path / "checkpoints/toy").iterdir()) == [
        "step-000000002.pt",
        "step-000000003.pt",
    ]
    run(Toy(), tmp_path / "short", 1)
    assert [p.name for p in (tmp_path / "short/checkpoints/toy").iterdir()] == ["step-000000001.pt"]


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    run(Toy(), tmp_path, 2)
    path = checkpoint.newest(tmp_path / "checkpoints/toy")
    assert path is not None
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"step-000000002\.pt cannot be read.*Delete this file"):
        run(Toy(), tmp_path, 4)


def test_a_loss_that_is_not_finite_names_step_phase_and_term_and_loses_nothing(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match="'l2' of phase 'g' is nan at step 5"):
        run(Toy(poison=5), tmp_path, 8)
    newest = checkpoint.newest(tmp_path / "checkpoints/toy")
    assert newest is not None and checkpoint.step_of(newest) == 4
    whole, resumed = Toy(), Toy()
    run(whole, tmp_path / "whole", 8)
    run(resumed, tmp_path, 8)
    assert torch.equal(weights(resumed), weights(whole))


def test_clipping_bounds_the_update(tmp_path: Path) -> None:
    free, clipped = Toy(), Toy()
    run(free, tmp_path / "free", 3)
    run(clipped, tmp_path / "clipped", 3, clip_grad_norm=1e-3)
    assert not torch.equal(weights(free), weights(clipped))


def test_batchnorm_statistics_are_the_mean_over_micro_batches(tmp_path: Path) -> None:
    stage = Toy()
    run(stage, tmp_path, 1)
    bn = stage.net[1]
    fresh = Toy()
    means = []
    for slot in range(2):
        x = fetch(0, slot)["image"].flatten(1)
        noise = torch.randn(x.shape, generator=Draw(3, 0, slot).generator("noise"))
        means.append(fresh.net[0](x + 0.1 * noise).mean(0))
    assert torch.allclose(bn.running_mean, 0.1 * torch.stack(means).mean(0), atol=1e-6)
    assert int(bn.num_batches_tracked) == 1


def test_slots_are_shared_without_remainder() -> None:
    cfg = FitConfig(batch_size=8, micro_batch=2)
    assert [split_slots(cfg, rank, 2) for rank in range(2)] == [[0, 2], [1, 3]]
    with pytest.raises(ValueError, match=r"4 micro-batches .* cannot be shared equally by 3 processes"):
        split_slots(cfg, 0, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 3, "micro_batch": 2},
        {"steps": -1},
        {"batch_size": 0},
        {"save_every": 0},
        {"ema": 1.0},
        {"ema": 0.5, "ema_kimg": 1.0},
        {"ema_ramp": -1.0},
    ],
)
def test_sizes_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        FitConfig(**wrong)


def test_the_average_fades_by_steps_or_by_images() -> None:
    """EG3D: 0.5^(batch / half-life), the half-life at most a share of the images seen before."""
    assert FitConfig(ema=0.9).decay(7) == 0.9
    by_images = FitConfig(batch_size=4, ema_kimg=0.016)
    assert by_images.decay(0) == by_images.decay(100) == pytest.approx(0.5**0.25)
    ramped = FitConfig(batch_size=4, ema_kimg=0.016, ema_ramp=0.5)
    assert ramped.decay(0) == 0.0
    assert ramped.decay(4) == pytest.approx(0.5**0.5)
    assert ramped.decay(8) == ramped.decay(80) == pytest.approx(0.5**0.25)


def test_draws_depend_on_every_number_and_on_the_purpose() -> None:
    draws = [Draw(0, 0, 0), Draw(1, 0, 0), Draw(0, 1, 0), Draw(0, 0, 1)]
    values = {torch.rand(1, generator=d.generator(p)).item() for d in draws for p in ("a", "b")}
    assert len(values) == 8
    assert Draw(5, 6, 7).number("x") == Draw(5, 6, 7).number("x")
