"""The train loop: exact resume, independence from the number of processes, non-finite losses, checkpoints."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from damage import cuts, unnoticed
from devices import Waits
from lightning_fabric import Fabric
from torch import Tensor, nn

from goae.training import checkpoint
from goae.training.loop import FitConfig, fit, split_slots
from goae.training.nonfinite import Failure, NonFiniteLossError, Watch, check_finite, read_failure
from goae.training.optim import OptimizerConfig, build_optimizer
from goae.training.phases import Batch, Draw, Phase
from goae.training.resume import restore
from goae.training.tracking import LoggingConfig, Tracker, read_metrics


class Toy:
    """A small network with everything that makes resuming hard: dropout, BatchNorm, Lookahead, a memory per slot."""

    name = "toy"
    main = "net"
    preview_columns = 2
    complete = True

    def __init__(self, slots: int = 2, poison: int | range = -1, lr: float = 1e-2, planted: str = "loss") -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))
        self.modules: dict[str, nn.Module] = {"net": self.net}
        self.memory = {slot: torch.zeros(3) for slot in range(slots)}
        self.poison, self.planted = poison if isinstance(poison, range) else range(poison, poison + 1), planted
        optimizer = build_optimizer(OptimizerConfig("ranger", lr=lr), self.net.parameters())
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
        l2 = (y - x).square().mean()
        if draw.step in self.poison and self.planted == "loss":
            l2 = l2 * float("nan")
        if draw.step in self.poison and self.planted == "gradient":
            l2 = l2 + (0 * y).sum().sqrt()  # 0, with an infinite slope times 0
        return {"l2": l2, "memory": (y - remembered).square().mean()}


def fetch(step: int, slot: int) -> Batch:
    generator = torch.Generator().manual_seed(100 * step + slot)
    return {"image": torch.randn(2, 3, 1, 1, generator=generator)}


def run(stage: Toy, folder: Path, steps: int, failure: Failure | None = None, **overrides: Any) -> None:
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
        trace=lambda step, slot: [{"index": 100 * step + slot, "name": "made", "mirrored": False}],
        failure=failure,
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


def test_weights_of_an_incomplete_stage_are_not_the_best(tmp_path: Path) -> None:
    stage = Toy()
    stage.complete = False
    run(stage, tmp_path, 4, evaluate_every=1)
    assert (tmp_path / "toy.safetensors").exists() and not (tmp_path / "toy-best.safetensors").exists()
    run(Toy(), tmp_path, 6, evaluate_every=1)
    assert (tmp_path / "toy-best.safetensors").exists()


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
    with pytest.raises(ValueError, match=r"No checkpoint in .* can be read.*2\.pt is damaged.*delete the folder"):
        run(Toy(), tmp_path, 4)


@pytest.mark.parametrize("damage", [b"", b"PK", None])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes | None
) -> None:
    """Whether empty, cut, or with one flipped bit: the same numbers as from the earlier step, and nothing is lost."""
    whole, resumed = Toy(), Toy()
    run(whole, tmp_path / "whole", 9)
    run(Toy(), tmp_path / "parts", 7, save_every=3)
    folder = tmp_path / "parts/checkpoints/toy"
    last = folder / "step-000000007.pt"
    content = last.read_bytes()
    middle = len(content) // 2
    last.write_bytes(
        content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :] if damage is None else damage
    )
    assert checkpoint.newest(folder) == folder / "step-000000006.pt"
    told = caplog.records[-1].getMessage()
    assert "step-000000007.pt is damaged" in told and "the checkpoint before it" in told and "step-000000006.pt" in told
    run(resumed, tmp_path / "parts", 9, save_every=4)
    assert torch.equal(weights(resumed), weights(whole))
    assert all(torch.equal(resumed.memory[s], whole.memory[s]) for s in whole.memory)
    assert sorted(p.name for p in folder.iterdir()) == ["step-000000008.pt", "step-000000009.pt"]


def test_a_damaged_later_checkpoint_does_not_push_out_a_whole_one(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints/toy"
    for step in (2, 9):
        checkpoint.save({"step": step}, folder, step)
    (folder / "step-000000009.pt").write_bytes(b"")
    checkpoint.save({"step": 3}, folder, 3)
    names = ["step-000000002.pt", "step-000000003.pt", "step-000000009.pt.damaged"]
    assert sorted(p.name for p in folder.iterdir()) == names
    assert checkpoint.newest(folder) == folder / "step-000000003.pt"


def test_flipped_bits_and_cuts_of_a_checkpoint_are_noticed(tmp_path: Path) -> None:
    run(Toy(), tmp_path, 2)
    path = tmp_path / "checkpoints/toy/step-000000002.pt"
    load = partial(checkpoint.load, path, torch.device("cpu"))
    assert not unnoticed(path, load) and not unnoticed(path, load, cuts(path))
    torch.save(load(), path)  # as before there were checksums: zip's own CRC-32 covers the content, if not the padding
    content = path.read_bytes()
    assert checkpoint.newest(path.parent) == path and load()["step"] == 2 and not unnoticed(path, load, cuts(path))
    place = content.index(load()["modules"]["net"]["0.weight"].numpy().tobytes())
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(ValueError, match="CRC-32"):
        load()


def test_a_loss_that_is_not_finite_names_step_phase_and_term_and_loses_nothing(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match="'l2' of phase 'g' is nan at step 5"):
        run(Toy(poison=5), tmp_path, 8)
    newest = checkpoint.newest(tmp_path / "checkpoints/toy")
    assert newest is not None and checkpoint.step_of(newest) == 4
    whole, resumed = Toy(), Toy()
    run(whole, tmp_path / "whole", 8)
    run(resumed, tmp_path, 8)
    assert torch.equal(weights(resumed), weights(whole))


def state_at(folder: Path, step: int) -> dict[str, Any]:
    state = torch.load(folder / f"checkpoints/toy/step-{step:09d}.pt", weights_only=True)
    return {name: state[name] for name in ("modules", "optimizers", "average", "slots")}


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for key in value for leaf in leaves(value[key])]
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [value.tolist() if isinstance(value, Tensor) else value]


@pytest.mark.parametrize("planted", ["loss", "gradient"])
@pytest.mark.parametrize("step", [0, 3])
def test_a_bad_step_that_is_undone_leaves_everything_as_it_was(tmp_path: Path, planted: str, step: int) -> None:
    """Weights, optimiser with its counters, averages, running statistics, memories: those before the step."""
    settings: dict[str, Any] = {"ema": 0.9, "skip_nonfinite": 1, "save_every": 1}
    run(Toy(poison=step, planted=planted), tmp_path / "bad", step + 1, **settings)
    if step:
        run(Toy(), tmp_path / "good", step, **settings)
        before = state_at(tmp_path / "good", step)
    else:
        fresh = Toy()
        before = {"modules": {"net": fresh.net.state_dict()}, "slots": fresh.slot_state()}
    after = state_at(tmp_path / "bad", step + 1)
    assert all(leaves(after[name]) == leaves(before[name]) for name in before)
    assert step or not after["optimizers"][0]["state"]
    run(Toy(poison=step, planted=planted), tmp_path / "bad", step + 4, **settings)
    assert all(
        torch.isfinite(torch.tensor(leaf)).all() for leaf in leaves(state_at(tmp_path / "bad", step + 4)["modules"])
    )
    assert read_metrics(tmp_path / "bad", "toy")[-1]["skipped"] == 1


@pytest.mark.parametrize(
    ("overrides", "begun"),
    [
        ({}, 6),
        ({"log_every": 5}, 5),
        ({"save_every": 6}, 5),
        ({"image_every": 6}, 5),
        ({"evaluate_every": 6}, 5),
        ({"steps": 6}, 5),
        ({"skip_nonfinite": 1}, 6),
    ],
)
def test_a_step_is_judged_when_the_next_is_asked_for_or_its_results_are_used(
    tmp_path: Path, overrides: dict[str, int], begun: int
) -> None:
    """A GPU does not run out of work; but nothing of a bad step is shown, measured, logged, stored or built upon."""
    stage = Toy(poison=range(5, 7))
    steps: list[int] = []
    stage.begin = steps.append  # type: ignore[method-assign]
    seldom = dict.fromkeys(("log_every", "save_every", "image_every", "evaluate_every"), 100)
    with pytest.raises(NonFiniteLossError, match=f"at step {6 if 'skip_nonfinite' in overrides else 5}"):
        run(stage, tmp_path, **({"steps": 9} | seldom | overrides))
    assert steps[-1] == begun
    assert not list(tmp_path.glob("checkpoints/toy/*.pt"))


def test_resumed_optimisers_count_on_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter on a GPU would be waited for once for each parameter and step."""
    first, again = Toy(), Toy()
    for stage in (first, again):
        stage.phases[0].optimizer = torch.optim.Adam(stage.net.parameters())
    run(first, tmp_path, 2)
    watch = Watch(again, None, tmp_path, most=0, seed=0, num_slots=1, trace=None, on_first=lambda action: None)
    devices, load = [], checkpoint.load
    monkeypatch.setattr(checkpoint, "load", lambda path, device: devices.append(device) or load(path, device))
    restore(again, None, watch, checkpoint.newest(tmp_path / "checkpoints/toy"))
    assert devices == [torch.device("cpu")]
    states = again.phases[0].optimizer.state.values()
    assert [state["step"].item() for state in states] == [2.0] * len(list(again.net.parameters()))
    assert torch.equal(weights(again), weights(first))


def test_a_checkpoint_is_judged_by_one_read() -> None:
    state = {"modules": {"net": nn.Sequential(*(nn.Linear(2, 2, device="meta") for _ in range(9))).state_dict()}}
    with Waits() as waits:
        check_finite(state, ("modules",), 5)
    assert [place[1] for place in waits.found] == ["check_finite"]


def test_so_many_bad_steps_in_a_row_stop_the_run_even_across_a_restart(tmp_path: Path) -> None:
    run(Toy(poison=range(3, 5)), tmp_path / "two", 8, skip_nonfinite=2)
    with pytest.raises(NonFiniteLossError, match="at step 5, after 2 bad steps that were undone"):
        run(Toy(poison=range(3, 6)), tmp_path / "three", 8, skip_nonfinite=2, save_every=1)
    with pytest.raises(NonFiniteLossError, match="at step 5, after 2 bad steps"):
        run(Toy(poison=range(3, 6)), tmp_path / "three", 8, skip_nonfinite=2)


def test_no_checkpoint_is_written_of_weights_that_are_not_finite(tmp_path: Path) -> None:
    """The loss of the step was finite; what its update made of the weights is not."""
    with pytest.raises(NonFiniteLossError, match=r"A weight of the net is inf at step 1.*delete step-000000001.pt"):
        run(Toy(lr=1e5), tmp_path, 8, save_every=1)
    saved = checkpoint.newest(tmp_path / "checkpoints/toy")
    assert saved is not None and checkpoint.step_of(saved) == 1
    assert all(torch.isfinite(torch.tensor(leaf)).all() for leaf in leaves(state_at(tmp_path, 1)["modules"]))
    stage = Toy()
    stage.net[1].running_mean[0] = float("inf")
    with pytest.raises(NonFiniteLossError, match=r"modules.net.1.running_mean is not finite before step 1"):
        run(stage, tmp_path / "buffer", 3, save_every=1, batch_size=2)


def test_a_run_goes_on_with_another_rate(tmp_path: Path) -> None:
    run(Toy(), tmp_path / "as before", 4)
    run(Toy(), tmp_path / "as before", 8)
    run(Toy(), tmp_path / "lower", 4)
    lower = Toy(lr=1e-3)
    run(lower, tmp_path / "lower", 8)
    assert lower.phases[0].optimizer.param_groups[0]["lr"] == 1e-3
    states = [leaves(state_at(tmp_path / name, 8)["modules"]) for name in ("lower", "as before")]
    assert states[0] != states[1]


def test_a_bad_step_is_run_again_from_its_record(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match=r"replay\.py .*failures/toy-step-000000005`"):
        run(Toy(poison=5, planted="gradient"), tmp_path, 8)
    folder = tmp_path / "failures/toy-step-000000005"
    failure = read_failure(folder)
    assert (failure.step, failure.start, failure.seed, failure.cause) == (5, 4, 3, "g/gradient")
    assert [image["index"] for images in failure.images.values() for image in images] == [500, 501]
    files = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(NonFiniteLossError, match=r"MulBackward0.*returned nan") as found:
        run(Toy(poison=5, planted="gradient"), folder, 8, failure)
    assert found.value.failure is not None and found.value.failure.values == failure.values
    run(Toy(), folder, 8, failure)  # without its cause the step is good
    assert sorted(path for path in tmp_path.rglob("*")) == files


def test_the_newest_records_are_kept(tmp_path: Path) -> None:
    run(Toy(poison=range(1, 8)), tmp_path, 9, skip_nonfinite=7)
    assert [path.name[-1] for path in sorted((tmp_path / "failures").iterdir())] == list("34567")


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


def test_a_checkpoint_of_another_kind_is_refused(tmp_path: Path) -> None:
    run(Toy(), tmp_path, 2)
    for state in ({"step": 2}, {"step": 2, "modules": {"net": {}}}):
        checkpoint.save(state, tmp_path / "checkpoints/toy", 2)
        with pytest.raises(ValueError, match=r"step-000000002\.pt is no checkpoint of this stage .* Delete it"):
            run(Toy(), tmp_path, 4)
