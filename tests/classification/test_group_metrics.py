"""Metrics of groups: scikit-learn's numbers, and intervals that hold what they promise."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from spanets.classification.answers import Answers
from spanets.classification.group_metrics import (
    clustered_interval,
    describe_groups,
    measure_groups,
    wilson_interval,
)


def draw(images=300, groups=14):
    numbers = np.random.default_rng(1)
    answers = Answers()
    answers.truth = numbers.integers(0, 3, images)
    right = numbers.random(images) < 0.7
    answers.predicted = np.where(right, answers.truth, numbers.integers(0, 3, images))
    return [f"p{g}" for g in numbers.integers(0, groups, images)], answers


def test_numbers_of_scikit_learn():
    groups, answers = draw()
    found = measure_groups(groups, answers)
    assert {row["group"] for row in found["groups"]} == set(groups)
    for row in found["groups"]:
        own = np.array(groups) == row["group"]
        truth, predicted = answers.truth[own], answers.predicted[own]
        assert row["images"] == own.sum()
        assert row["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
        with np.errstate(all="ignore"):
            wanted = balanced_accuracy_score(truth, predicted)
        assert row["balanced_accuracy"] == pytest.approx(wanted)
    accuracies = [row["accuracy"] for row in found["groups"]]
    assert accuracies == sorted(accuracies)
    assert found["worst"] == found["groups"][0]["group"]
    lines = describe_groups(found)
    assert len(lines) == 12 and "the 10 groups of lowest accuracy" in lines[1]


@pytest.mark.parametrize(("hits", "count"), [(0, 5), (3, 5), (5, 5), (70, 100)])
def test_wilson(hits, count):
    wanted = stats.binomtest(hits, count).proportion_ci(method="wilson")
    assert wilson_interval(hits, count) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_interval_of_groups():
    # Groups of one size: Student's interval of the groups' means.
    hits = np.array([3, 8, 5, 9, 10, 6])
    low, high = stats.t.interval(0.95, 5, 0.1 * hits.mean(), 0.1 * stats.sem(hits))
    assert clustered_interval(hits, np.full(6, 10)) == pytest.approx((low, high))
    assert clustered_interval(hits[:1], np.array([10])) == (None, None)


def test_groups_of_one_image_come_last():
    groups, answers = draw()
    lone = [f"lone {i}" if i < 40 else group for i, group in enumerate(groups)]
    sizes = [row["images"] == 1 for row in measure_groups(lone, answers)["groups"]]
    assert sizes == sorted(sizes) and sum(sizes) == 40
