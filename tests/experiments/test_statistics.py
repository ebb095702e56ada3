"""Intervals, powers and verdicts: properties, and SciPy."""

import math
from itertools import product
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from spanets.experiments.statistics import (
    MOST_ENUMERATED,
    bootstrap_interval,
    paired_differences,
    paired_power,
    range_coverage,
    seeds_needed,
    summarise,
)
from spanets.experiments.verdicts import (
    FAILS,
    HOLDS,
    KINDS,
    UNDECIDED,
    Rule,
    decide,
    explain,
    judge,
)

numbers = st.floats(-1e6, 1e6, allow_subnormal=False)
samples = st.lists(numbers, min_size=2, max_size=6)
many = st.lists(numbers, min_size=MOST_ENUMERATED + 1, max_size=12)
intervals = st.tuples(numbers, numbers).map(sorted)


@given(numbers, st.integers(2, 12))
def test_a_constant_has_no_interval(value, n):
    found = summarise([value] * n)
    assert found.mean == found.low == found.high == value
    assert found.deviation == 0


@given(samples | many)
def test_the_interval_is_antisymmetric(values):
    low, high = bootstrap_interval(values)
    assert bootstrap_interval([-value for value in values]) == (-high, -low)


@given(samples | many, st.integers(-8, 8))
def test_the_interval_scales(values, exponent):
    scaled = bootstrap_interval([value * 2.0**exponent for value in values])
    assert scaled == tuple(bound * 2.0**exponent for bound in bootstrap_interval(values))


@given(samples, numbers)
def test_the_interval_moves_with_the_values(values, shift):
    moved = bootstrap_interval([value + shift for value in values])
    expected = [bound + shift for bound in bootstrap_interval(values)]
    # Each value is rounded when it is moved.
    assert moved == pytest.approx(expected, rel=1e-9, abs=1e-8)


@given(samples | many)
def test_the_interval_holds_the_mean_within_the_range(values):
    found = summarise(values)
    slack = 1e-9 * max(map(abs, values))  # rounding of the mean
    assert min(values) <= found.low <= found.mean + slack
    assert found.mean - slack <= found.high <= max(values)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_the_interval_counts_all_resamples(n):
    values = np.random.default_rng(n).normal(size=n).tolist()
    means = sorted(fmean(chosen) for chosen in product(values, repeat=n))
    place = math.ceil(0.025 * len(means)) - 1
    assert bootstrap_interval(values) == pytest.approx((means[place], means[-1 - place]))


def test_of_three_values_it_is_their_range():
    assert bootstrap_interval([0.5, 0.25, 0.75]) == (0.25, 0.75)
    assert range_coverage(3) == 0.75


def test_the_range_covers_the_mean_so_often():
    drawn = np.random.default_rng(0).normal(size=(20_000, 4))
    covered = np.mean((drawn.min(1) < 0) & (drawn.max(1) > 0))
    assert covered == pytest.approx(range_coverage(4), abs=0.01)  # four standard errors


@given(samples)
def test_the_interval_of_student_is_scipy_s(values):
    found = summarise(values)
    if found.deviation > 1e-6:
        error = stats.sem(values)
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), error)
        assert (found.t_low, found.t_high) == pytest.approx((low, high), rel=1e-5, abs=1e-4)


def test_nothing_and_one_value():
    assert summarise([]).mean is None
    one = summarise([0.5])
    assert (one.n, one.mean, one.deviation, one.low) == (1, 0.5, None, None)


# ---- pairs


runs = st.dictionaries(st.integers(0, 5), numbers)


@given(runs, runs)
def test_differences_are_antisymmetric(one, other):
    there, back = paired_differences(one, other), paired_differences(other, one)
    assert there == {seed: -difference for seed, difference in back.items()}
    assert there.keys() == one.keys() & other.keys()


# ---- power


@pytest.mark.parametrize("n", [2, 3, 5, 10, 40, 300])
@pytest.mark.parametrize("effect", [0.05, 0.5, 1.5, 4])
def test_the_power_is_scipy_s(n, effect):
    critical = stats.t.ppf(0.975, n - 1)
    shifted = stats.nct(n - 1, effect * math.sqrt(n))
    expected = shifted.sf(critical) + shifted.cdf(-critical)
    if math.isnan(expected):  # SciPy gives up far from the centre
        expected = 1.0
    assert paired_power(n, effect * 3, 3) == pytest.approx(expected, abs=1e-5)


def test_the_power_is_that_of_a_simulation():
    n, effect = 6, 1.2
    drawn = np.random.default_rng(1).normal(effect, 1, size=(20_000, n))
    shown = np.mean(stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05)
    assert paired_power(n, effect, 1) == pytest.approx(shown, abs=0.012)  # four standard errors


@pytest.mark.parametrize("ratio", [0.12, 0.3, 1, 2, 10])
def test_the_number_of_seeds_is_the_fewest(ratio):
    n = seeds_needed(ratio, 1)
    assert paired_power(n, ratio, 1) >= 0.8
    assert n == 2 or paired_power(n - 1, ratio, 1) < 0.8
    assert seeds_needed(7 * ratio, 7) == n


def test_the_number_of_seeds_has_ends():
    assert seeds_needed(0.01, 1) is None
    assert seeds_needed(0.01, 0) == 2
    assert seeds_needed(0, 0) is None


# ---- verdicts

ORDER = {"better_by": [HOLDS, UNDECIDED, FAILS], "no_worse_than": [FAILS, UNDECIDED, HOLDS]}
ORDER["equal_within"] = ORDER["no_worse_than"]


@given(intervals, numbers.map(abs), numbers.map(abs), st.sampled_from(list(KINDS)))
def test_verdicts_are_monotone_in_the_margin(interval, one, other, kind):
    order = ORDER[kind]
    places = [order.index(judge(Rule("", kind, x), *interval)) for x in sorted((one, other))]
    assert places == sorted(places)


@given(intervals, numbers.map(abs), st.integers(-8, 8), st.sampled_from(list(KINDS)))
def test_verdicts_scale(interval, margin, exponent, kind):
    scaled = [bound * 2.0**exponent for bound in interval]
    rule, other = Rule("", kind, margin), Rule("", kind, margin * 2.0**exponent)
    assert judge(rule, *interval) == judge(other, *scaled)


@given(intervals, numbers.map(abs))
def test_equal_is_no_worse_on_both_sides(interval, margin):
    low, high = interval
    sides = {judge(Rule("", "no_worse_than", margin), *side) for side in (interval, (-high, -low))}
    equal = judge(Rule("", "equal_within", margin), low, high)
    assert (equal == HOLDS) == (sides == {HOLDS})
    assert (equal == FAILS) == (FAILS in sides)


@pytest.mark.parametrize(
    ("kind", "low", "high", "verdict"),
    [
        ("better_by", 0.1, 0.2, HOLDS),
        ("better_by", 0.09, 0.2, UNDECIDED),
        ("better_by", -0.2, 0.09, FAILS),
        ("no_worse_than", -0.1, 0.3, HOLDS),
        ("no_worse_than", -0.2, 0.3, UNDECIDED),
        ("no_worse_than", -0.3, -0.2, FAILS),
        ("equal_within", -0.1, 0.1, HOLDS),
        ("equal_within", 0, 0.2, UNDECIDED),
        ("equal_within", 0.2, 0.3, FAILS),
    ],
)
def test_verdicts(kind, low, high, verdict):
    assert judge(Rule("", kind, 0.1), low, high) == verdict


def test_without_an_interval_nothing_is_decided():
    rule = Rule("", "better_by", 0.1)
    assert judge(rule, None, None) == UNDECIDED
    assert "n 1; a verdict needs 3 seeds" in explain(rule, summarise([0.5]))
    assert "no seed finished" in explain(rule, summarise([]))


def test_two_seeds_decide_nothing():
    rule = Rule("", "better_by", 0.1)
    assert decide(rule, summarise([0.5, 0.5])) == UNDECIDED
    assert decide(rule, summarise([0.5, 0.5, 0.5])) == HOLDS
    assert "n 2; a verdict needs 3 seeds" in explain(rule, summarise([0.5, 0.5]))
    assert "the same for every seed" in explain(rule, summarise([0.5, 0.5, 0.5]))


def test_an_undecided_rule_says_how_many_seeds_it_needs():
    gain = summarise([0.0, 0.1, 0.2])
    needed = seeds_needed(0.15, gain.deviation)
    assert f"takes {needed} seeds" in explain(Rule("", "better_by", 0.15), gain)
