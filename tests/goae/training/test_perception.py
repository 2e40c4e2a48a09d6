"""Training of the perception network: people, restarts, losses, numbers."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from damage import flips, unnoticed
from torch.nn import functional as F

from goae.data import people as people_module
from goae.data.heads import COLUMNS, mirror_signs
from goae.data.people import People, draw_people, join_people, people_chunk, render_people
from goae.training import perception
from goae.training.perception import (
    PerceptionConfig,
    attribute_moments,
    batch_at,
    identity_scores,
    learning_rate,
    margin_softmax,
    measure,
    part_iou,
    train,
)


@pytest.fixture(scope="module")
def people() -> People:
    return render_people(0, 3, 2, seed=5)


def _config(**values: int) -> PerceptionConfig:
    return PerceptionConfig(**{"people": 25, "views": 2, "steps": 4, "batch_size": 4, "save_every": 1, **values})


def test_a_person_has_one_identity_and_depends_on_its_number_alone() -> None:
    heads, angles = draw_people(7, 2, 3, seed=1)
    again, same_angles = draw_people(8, 1, 3, seed=1)
    assert torch.equal(heads.latents[3:], again.latents) and torch.equal(angles[3:], same_angles)
    identity = heads.latents[:, list(COLUMNS["identity"])]
    assert torch.equal(identity[0], identity[2]) and not torch.equal(identity[0], identity[3])
    others = [i for g in ("expression", "style", "scene") for i in COLUMNS[g]]
    assert bool((heads.latents[0, others] != heads.latents[1, others]).all())
    assert float(angles[:, 0].abs().max()) <= math.radians(75.0)


def test_pictures_carry_all_labels(people: People) -> None:
    assert people.image.shape == (6, 3, 64, 64) and people.image.dtype == torch.uint8
    assert people.person.tolist() == [0, 0, 1, 1, 2, 2]
    head = people.parts > 0
    assert float(people.depth[~head].min()) == pytest.approx(3.3, abs=1e-3)  # float16
    assert float(people.depth[head].min()) > 2.2 and float(people.depth[head].max()) < 3.3


def test_a_chunk_is_rendered_once(tmp_path: Path, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people_module, "render_people", lambda first, num, views, seed: people)
    first = people_chunk(tmp_path, 0, 2, 5)
    monkeypatch.setattr(people_module, "render_people", None)
    assert torch.equal(people_chunk(tmp_path, 0, 2, 5).image, first.image)
    assert len(join_people([first, first])) == 12
    assert [p.suffix for p in tmp_path.iterdir()] == [".safetensors"]


def test_a_stopped_run_ends_as_one_that_was_not_stopped(
    people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(_config(), people, tmp_path / "a").state_dict()

    def stop(step: int, config: PerceptionConfig) -> float:
        if step == 2:
            raise KeyboardInterrupt
        return learning_rate(step, config)

    with monkeypatch.context() as patch:
        patch.setattr(perception, "learning_rate", stop)
        with pytest.raises(KeyboardInterrupt):
            train(_config(), people, tmp_path / "b")
    resumed = train(_config(), people, tmp_path / "b").state_dict()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    with pytest.raises(ValueError, match="was made with"):
        train(_config(seed=1), people, tmp_path / "b")
    state = tmp_path / "b" / "state.pt"
    assert not unnoticed(state, lambda: train(_config(), people, tmp_path / "b"), flips(state, 20))


def test_a_batch_depends_on_its_step_alone_and_mirrors_labels_with_the_picture(people: People) -> None:
    config, moments = _config(batch_size=16), attribute_moments(people)
    batch, again = (batch_at(people, 3, config, moments) for _ in range(2))
    assert torch.equal(batch.image, again.image) and not torch.equal(
        batch.image, batch_at(people, 4, config, moments).image
    )
    mirrored = 0
    for row in range(16):
        same = [i for i in range(6) if torch.equal(people.factors[i], batch.factors[row])]
        flipped = [i for i in range(6) if torch.equal(people.factors[i] * mirror_signs(), batch.factors[row])]
        [i] = same or flipped
        sign = 1.0 if same else -1.0
        assert float(batch.angles[row, 0]) == pytest.approx(sign * float(people.angles[i, 0]))
        expected = people.parts[i, 0] if same else people.parts[i, 0].flip(-1)
        assert torch.equal(batch.parts[row], expected.long()) and int(batch.person[row]) == int(people.person[i])
        mirrored += not same
    assert 0 < mirrored < 16


def test_a_loss_that_is_not_finite_stops_naming_it(
    people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perception, "margin_softmax", lambda *args: torch.tensor(float("nan")))
    with pytest.raises(FloatingPointError, match="the loss identity is nan at step 0"):
        train(_config(), people, tmp_path)


def test_the_margin_is_taken_from_the_true_person() -> None:
    embedding, weight = torch.tensor([[3.0, 0.0]]), torch.eye(2) * 5.0
    expected = -math.log(math.exp(10 * 0.7) / (math.exp(10 * 0.7) + 1.0))
    assert float(margin_softmax(embedding, weight, torch.tensor([0]), 10.0, 0.3)) == pytest.approx(expected, rel=1e-4)


def test_learning_rate_rises_then_falls_to_zero() -> None:
    config = PerceptionConfig(steps=200, warmup=50, lr=1.0)
    rates = [learning_rate(step, config) for step in range(201)]
    assert rates[0] == 0.02 and max(rates) == rates[49] == 1.0 and rates[-1] == pytest.approx(0.0, abs=1e-12)
    assert all(a >= b for a, b in itertools.pairwise(rates[50:]))


def test_identity_scores_of_known_vectors() -> None:
    a, b, c = F.normalize(torch.tensor([[1.0, 0.1], [1.0, -0.1], [0.0, 1.0]]))
    person = torch.tensor([0, 0, 1])
    perfect = identity_scores(torch.stack([a, b, c]), person)
    assert perfect["identity_auc"] == 1.0 and perfect["identity_accuracy"] == 1.0
    assert perfect["cosine_same"] == pytest.approx(float(a @ b)) and perfect["threshold"] == pytest.approx(float(a @ b))
    assert identity_scores(torch.stack([a, c, b]), person)["identity_auc"] == 0.5  # one of two strangers is nearer


def test_iou_of_known_labels() -> None:
    true, predicted = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 1, 1]])
    assert part_iou(predicted, true) == [0.5, pytest.approx(2 / 3), *[1.0] * 9]


def test_numbers_are_measured_on_all_pictures(people: People) -> None:
    network = perception.Training(_config()).network.eval()
    numbers = measure(network, people, batch_size=4)
    assert numbers["pictures"] == 6 and len(numbers["part_iou"]) == 11
    assert all(math.isfinite(float(numbers[k])) for k in ("identity_auc", "part_miou", "depth_mae"))
    assert numbers["depth_mae"] == pytest.approx(measure(network, people, batch_size=6)["depth_mae"], rel=1e-4)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="multiple of 25"):
        PerceptionConfig(people=30)
