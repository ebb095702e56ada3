"""Verdicts where a gain is as large as its bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanets.experiments.statistics import summarise
from spanets.experiments.verdicts import FAILS, HOLDS, Rule, decide, explain, judge

whole = st.integers(-1000, 1000)


@given(whole, st.integers(0, 1000), st.lists(whole, min_size=3, max_size=5))
def test_decimal_bounds_are_compared_as_decimals(low, margin, values):
    """A gain that equals the bound holds, and one step less does not."""
    for steps, verdict in ((margin, HOLDS), (margin - 1, FAILS)):
        gains = [(value + steps) / 1000 - value / 1000 for value in values]
        assert decide(Rule("r", "better_by", margin / 1000), summarise(gains)) == verdict
    rule = Rule("r", "equal_within", margin / 1000)
    differences = [(low + side * margin) / 1000 - low / 1000 for side in (-1, 1)]
    assert judge(rule, *differences) == HOLDS


def test_equal_gains_have_no_deviation():
    gain = summarise([0.84 - 0.83, 0.85 - 0.84, 0.82 - 0.81])
    assert 0 < gain.deviation < 1e-15
    for margin in (0.01, 0.02):
        assert "the same for every seed" in explain(Rule("r", "better_by", margin), gain)


@pytest.mark.parametrize("kind", ["better_by", "no_worse_than"])
def test_a_real_difference_still_counts(kind):
    rule = Rule("r", kind, 0.01)
    least, _ = rule.bounds
    assert judge(rule, least - 1e-6, least + 1e-6) == "undecided"
    assert judge(rule, least - 1e-5, least - 1e-6) == FAILS
