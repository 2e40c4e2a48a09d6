"""The sampling order: content depends on (seed, step, micro-batch) alone."""

import pytest
import torch

from goae.data.loader import Order, collate, indices


def test_every_epoch_visits_every_image_once() -> None:
    order = Order(length=7, seed=1, size=1)
    for epoch in range(3):
        assert sorted(order.visit(7 * epoch + i).index for i in range(7)) == list(range(7))


def test_epochs_and_seeds_differ_and_repeat() -> None:
    first = indices(3, 0, 50, 50)
    assert first == indices(3, 0, 50, 50)
    assert first != indices(3, 1, 50, 50) and first != indices(4, 0, 50, 50)


def test_seeds_differ_in_their_high_bits_too() -> None:
    assert indices(2**30, 0, 20, 20) != indices(0, 0, 20, 20)


def test_the_stream_is_the_same_however_it_is_cut() -> None:
    """Four steps of six images, whole or as two micro-batches of three, cross the ends of epochs alike."""
    whole, halves = Order(10, 5, 6, mirror=True), Order(10, 5, 3, 2, mirror=True)
    for step in range(4):
        assert whole.visits(step) == halves.visits(step, 0) + halves.visits(step, 1)


def test_a_later_step_needs_no_earlier_one() -> None:
    fresh = Order(9, 0, 4, mirror=True).visits(1000)
    walked = Order(9, 0, 4, mirror=True)
    assert [walked.visits(step) for step in range(1001)][-1] == fresh


def test_half_of_the_visits_are_mirrored_anew_in_each_epoch() -> None:
    order = Order(1000, 2, 1000, mirror=True)
    flips = [{v.index: v.mirrored for v in order.visits(step)} for step in range(2)]
    for flip in flips:
        assert abs(sum(flip.values()) - 500) < 4 * 1000**0.5 / 2  # four standard deviations
    assert flips[0] != flips[1]
    assert not any(v.mirrored for v in Order(1000, 2, 1000).visits(0))


@pytest.mark.parametrize("bad", [{"length": 0}, {"size": 0}, {"num_micro_batches": 0}, {"seed": -1}])
def test_impossible_orders_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Order(**({"length": 3, "seed": 0, "size": 1} | bad))


def test_impossible_visits_are_refused() -> None:
    order = Order(3, 0, 1, 2)
    for step, micro_batch in ((-1, 0), (0, 2), (0, -1)):
        with pytest.raises(ValueError, match="no micro-batch"):
            order.visits(step, micro_batch)


def test_collate_stacks_tensors_and_numbers() -> None:
    batch = collate([{"image": torch.full((3, 2, 2), float(i)), "index": i, "name": str(i)} for i in range(2)])
    assert batch["image"].shape == (2, 3, 2, 2) and batch["image"][1, 0, 0, 0] == 1
    assert batch["index"].tolist() == [0, 1] and batch["name"] == ["0", "1"]
    with pytest.raises(ValueError, match="empty"):
        collate([])
