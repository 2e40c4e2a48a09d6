"""Masks and attributes of known overlap."""

import pytest
import torch

from goae.evaluation.perception import balanced_accuracy, head_iou


def test_iou_of_the_head() -> None:
    parts = torch.tensor([[[[0, 1], [4, 2]]], [[[0, 0], [0, 0]]]], dtype=torch.uint8)
    background = torch.tensor([[[[0.0, 0.0], [0.0, 1.0]]], [[[1.0, 1.0], [1.0, 1.0]]]])
    assert head_iou(background, parts).tolist() == [0.5, 1.0]
    assert head_iou((parts == 0).float(), parts).tolist() == [1.0, 1.0]


def test_always_saying_no_is_chance_however_rare_yes_is() -> None:
    true = torch.tensor([[True, False], [False, False], [False, True], [False, False]])
    no = torch.zeros_like(true)
    assert balanced_accuracy(no, true).tolist() == [0.5, 0.5]
    assert balanced_accuracy(true, true).tolist() == [1.0, 1.0]
    half = torch.tensor([[True, False], [True, False], [False, False], [False, False]])
    assert balanced_accuracy(half, true).tolist() == pytest.approx([0.5 * (1 + 2 / 3), 0.5])
    assert balanced_accuracy(no[1:2], true[1:2]).tolist() == [1.0, 1.0]  # only one kind
