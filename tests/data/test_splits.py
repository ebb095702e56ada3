"""The split is a partition, alike in every stratum, and the same wherever it is drawn."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spanets.data.splits import number_repeats, stratified_split

cases = given(
    strata=st.lists(st.integers(0, 6), max_size=60),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**63),
)
quick = settings(deadline=None, database=None, derandomize=True)


@quick
@cases
def test_every_index_is_in_one_part_and_in_order(strata, fraction, seed):
    first, second = stratified_split(strata, fraction, seed)
    assert sorted(first + second) == list(range(len(strata)))
    assert first == sorted(first) and second == sorted(second)
    assert all(type(index) is int for index in first + second)


@quick
@cases
def test_totals_are_exact_and_strata_within_one(strata, fraction, seed):
    _, second = stratified_split(strata, fraction, seed)
    sizes, taken = Counter(strata), Counter(strata[i] for i in second)
    divisible = {stratum: size for stratum, size in sizes.items() if size > 1}
    assert len(second) == round(fraction * sum(divisible.values()))
    assert set(taken) <= set(divisible)
    for stratum, size in divisible.items():
        assert abs(taken[stratum] - fraction * size) < 1 + 1e-9  # rounding of the product
        if fraction <= 0.5:
            assert taken[stratum] < size


@quick
@cases
def test_depends_on_the_arguments_alone(strata, fraction, seed):
    before = random.getstate(), np.random.get_state()[1].tolist()
    drawn = stratified_split(strata, fraction, seed)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    np.random.seed(seed % 2**32)
    renamed = [f"stratum {stratum}" for stratum in strata]  # other hashes, new in every process
    assert stratified_split(renamed, fraction, seed) == drawn


def test_same_on_every_platform_and_version_of_numpy():
    first, second = stratified_split(list("aaaaaaaabbbbbbbbcd"), 0.25, seed=7)
    assert second == [0, 6, 11, 15]
    assert len(first) == 14


def test_names_that_repeat():
    assert number_repeats(["a", "b"]) == ["a", "b"]
    assert number_repeats(["a", "a", "a (2)", "b", "a"]) == ["a", "a (3)", "a (2)", "b", "a (4)"]


def test_seeds_differ():
    splits = {tuple(stratified_split([0] * 100, 0.25, seed)[1]) for seed in range(20)}
    assert len(splits) == 20


def test_small_strata_come_first_when_places_are_left():
    strata = ["large"] * 19 + ["small"] * 2  # shares of 1.9 and 0.2, two places
    assert Counter(strata[i] for i in stratified_split(strata, 0.1, 0)[1])["small"] == 1


def test_lone_members_stay_in_the_first_part():
    assert stratified_split(["a", "b", "c"], 0.9, 0) == ([0, 1, 2], [])
    assert stratified_split([], 0.5, 0) == ([], [])


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_fraction_out_of_range(fraction):
    with pytest.raises(ValueError, match="fraction"):
        stratified_split([0, 0], fraction, 0)


def test_negative_seed():
    with pytest.raises(ValueError):
        stratified_split([0, 0], 0.5, -1)
