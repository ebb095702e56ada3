"""Samples keep their lists in step."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from spanets.data.samples import Samples

IMAGES = [Path("a.png"), Path("b.png"), Path("c.png")]


@pytest.fixture
def samples():
    return Samples(
        images=IMAGES,
        labels=[0, 2, 0],
        classes=["cat", "cow", "dog"],
        targets=[[1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.9, 0.1, 0.0]],
        strata=["x", "y", "z"],
        shards=[0, 1, 1],
    )


def test_length_and_counts(samples):
    assert len(samples) == 3
    assert samples.counts() == {"cat": 2, "cow": 0, "dog": 1}


def test_subset_takes_every_list_in_the_order_asked(samples):
    part = samples.subset(iter([2, 1]))
    assert part.images == [IMAGES[2], IMAGES[1]]
    assert part.labels == [0, 2]
    assert part.targets == [samples.targets[2], samples.targets[1]]
    assert part.strata == ["z", "y"]
    assert part.shards == [1, 1]
    assert part.classes == samples.classes
    assert len(samples.subset([])) == 0


def test_subset_without_targets_and_strata():
    part = Samples(IMAGES, [0, 0, 0], ["cat"]).subset([1])
    assert part.targets is None and part.strata is None


def test_frozen(samples):
    with pytest.raises(FrozenInstanceError):
        samples.labels = []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [0]}, "1 labels for 3 images"),
        ({"targets": [[1.0]]}, "1 targets for 3 images"),
        ({"strata": []}, "0 strata for 3 images"),
        ({"labels": [0, 1, -1]}, r"labels \[-1, 1\] with 1 classes"),
    ],
)
def test_lists_out_of_step(changes, message):
    with pytest.raises(ValueError, match=message):
        Samples(**{"images": IMAGES, "labels": [0, 0, 0], "classes": ["cat"]} | changes)
