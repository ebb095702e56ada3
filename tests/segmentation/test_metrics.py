"""mIoU, mAcc and aAcc against counting by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spanets.segmentation.masks.values import IGNORED
from spanets.segmentation.metrics import class_ious, make_confusion, summarise

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


@st.composite
def images(draw):
    """Classes, and images of truth and guess that may lack some of them."""
    count = draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    in_truth, in_guess = (
        draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=count)) for _ in range(2)
    )
    found = []
    for _ in range(draw(st.integers(1, 4))):
        size = tuple(rng.integers(1, 7, 2))
        truth = rng.choice([*in_truth, IGNORED], size)
        found.append((truth, rng.choice(in_guess, size)))
    return count, found


@given(images(), st.randoms())
@settings(max_examples=60, deadline=None)
def test_sets_of_pixels(case, random):
    """IoU and recall by sets of pixels, in any order of images."""
    count, pairs = case
    truth, guess = (np.concatenate([pair[k].ravel() for pair in pairs]) for k in (0, 1))
    truth, guess = truth[truth != IGNORED], guess[truth != IGNORED]
    ious, recalls = [], []
    for c in range(count):
        is_true, is_found = set(np.flatnonzero(truth == c)), set(np.flatnonzero(guess == c))
        if is_true | is_found:
            ious.append(len(is_true & is_found) / len(is_true | is_found))
        if is_true:
            recalls.append(len(is_true & is_found) / len(is_true))
    expected = {
        "mIoU": np.mean(ious) if ious else math.nan,
        "mAcc": np.mean(recalls) if recalls else math.nan,
        "aAcc": np.mean(truth == guess) if len(truth) else math.nan,
    }
    random.shuffle(pairs)
    confusion = make_confusion(count)
    for one_truth, one_guess in pairs:
        confusion.update(torch.from_numpy(one_guess), torch.from_numpy(one_truth))
    assert summarise(confusion.compute()) == pytest.approx(expected, nan_ok=True)
