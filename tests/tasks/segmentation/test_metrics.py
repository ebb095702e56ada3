"""mIoU, mAcc and aAcc against counting by hand."""

import math

import pytest
import torch

from spanets.data.sources.masks import IGNORED
from spanets.tasks.segmentation.metrics import class_ious, make_confusion, summarise

TRUTH = torch.tensor([[0, 0, 0, 1], [1, 1, 2, IGNORED]])
GUESS = torch.tensor([[0, 0, 1, 1], [1, 2, 2, 2]])


def test_by_hand():
    """Of class 0 two of three are found and one lost; class 1: 2 of 3 found, one too many; …"""
    confusion = make_confusion(4)
    confusion.update(GUESS, TRUTH)
    counts = confusion.compute()
    assert counts.tolist() == [[2, 1, 0, 0], [0, 2, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    ious = class_ious(counts).tolist()
    assert ious[:3] == pytest.approx([2 / 3, 2 / 4, 1 / 2])
    assert math.isnan(ious[3])  # in no mask and never guessed
    found = summarise(counts)
    assert found["mIoU"] == pytest.approx((2 / 3 + 1 / 2 + 1 / 2) / 3)
    assert found["mAcc"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert found["aAcc"] == pytest.approx(5 / 7)


def test_a_class_that_is_only_guessed_has_an_iou_of_zero_and_no_accuracy():
    counts = torch.tensor([[3, 1], [0, 0]])
    assert class_ious(counts).tolist() == [0.75, 0]
    assert summarise(counts)["mAcc"] == 0.75


def test_nothing_seen_is_undefined():
    assert all(math.isnan(value) for value in summarise(torch.zeros(2, 2)).values())


def test_batches_and_processes_change_nothing():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 5, (7, 6, 6), generator=generator)
    truth[truth == 4] = IGNORED
    guess = torch.randint(0, 4, (7, 6, 6), generator=generator)
    whole = make_confusion(4)
    whole.update(guess, truth)
    parts = [make_confusion(4) for _ in range(3)]
    for i in range(7):
        parts[i % 3].update(guess[i], truth[i])
    assert torch.equal(sum(part.confmat for part in parts), whole.compute())
    assert whole.compute().sum() == (truth != IGNORED).sum()


def test_large_counts_are_exact():
    counts = torch.tensor([[2**31, 1], [0, 2**31]])
    assert class_ious(counts)[0] == 2**31 / (2**31 + 1)
