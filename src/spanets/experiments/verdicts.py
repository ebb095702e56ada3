"""Rules about a difference, and their verdicts: pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from spanets.experiments.statistics import Summary, seeds_needed

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"

LEAST_SEEDS = 3
"""Fewest seeds that decide a rule: the range of two holds the mean in half of all studies only."""

ROUNDING = 1e-9
"""A gain this close to a bound equals it: 0.84 - 0.83 is less than 0.01 in floating point."""

_NO_DEVIATION = 1e-12
"""A standard deviation below this is that of rounding."""

KINDS = {
    "better_by": "better by at least",
    "no_worse_than": "no worse by more than",
    "equal_within": "equal within",
}
"""The kinds of rules by key, in words."""


@dataclass(frozen=True)
class Metric:
    """What is compared.

    Attributes:
        name: A metric of results.json, a number that the study measures, or the dotted path of
            another number in results.json.
        better: "higher" or "lower".
    """

    name: str
    better: str

    @property
    def sign(self) -> int:
        """Returns 1 if larger is better, else -1."""
        return 1 if self.better == "higher" else -1


@dataclass(frozen=True)
class Rule:
    """A claim about a difference, written before the study runs.

    Attributes:
        name: The claim in words.
        kind: One of `KINDS`.
        margin: The bound, in the unit of the metric.
        compare: Levels by factor that are compared; others are those of the baseline.
        against: Levels that they are compared with.
        metric: What this rule compares; None is the study's metric.
    """

    name: str
    kind: str
    margin: float
    compare: Mapping[str, str] = field(default_factory=dict)
    against: Mapping[str, str] = field(default_factory=dict)
    metric: Metric | None = None

    @property
    def bounds(self) -> tuple[float, float]:
        """Returns the smallest and the largest gain with which the claim is true."""
        infinity = float("inf")
        return {
            "better_by": (self.margin, infinity),
            "no_worse_than": (-self.margin, infinity),
            "equal_within": (-self.margin, self.margin),
        }[self.kind]

    def __str__(self) -> str:
        """Returns the claim's bound in words."""
        of = f"{self.metric.name}: " if self.metric else ""
        return f"{of}{KINDS[self.kind]} {self.margin:g}"


def judge(rule: Rule, low: float | None, high: float | None) -> str:
    """Returns the verdict of an interval of the gain: a difference, larger is better.

    The rule holds if the whole interval lies within its bounds, and does not hold if the whole
    interval lies outside of them. The bounds are inside, to `ROUNDING`.
    """
    if low is None or high is None:
        return UNDECIDED
    least, most = rule.bounds[0] - ROUNDING, rule.bounds[1] + ROUNDING
    if least <= low and high <= most:
        return HOLDS
    return FAILS if high < least or most < low else UNDECIDED


def decide(rule: Rule, gain: Summary, by_t: bool = False) -> str:
    """Returns the verdict of a rule; fewer than `LEAST_SEEDS` seeds decide nothing.

    Args:
        rule: The rule.
        gain: Summary of the gains by seed; larger is better.
        by_t: Whether to take the interval by Student's t instead of the bootstrap interval.
    """
    if gain.n < LEAST_SEEDS:
        return UNDECIDED
    return judge(rule, gain.t_low, gain.t_high) if by_t else judge(rule, gain.low, gain.high)


def explain(rule: Rule, gain: Summary) -> str:
    """Returns the reason of a verdict in words.

    Args:
        rule: The rule.
        gain: Summary of the gains by seed; larger is better.
    """
    if gain.n == 0:
        return "no seed finished on both sides"
    if gain.low is None or gain.high is None:
        return f"gain {gain.mean:+.4f}, n 1; a verdict needs {LEAST_SEEDS} seeds"
    shown = f"gain {gain.mean:+.4f}, 95 % from {gain.low:+.4f} to {gain.high:+.4f}, n {gain.n}"
    if gain.n < LEAST_SEEDS:
        return f"{shown}; a verdict needs {LEAST_SEEDS} seeds"
    if _is_constant(gain):
        shown += ", the same for every seed, as of a metric with few steps or of equal networks"
    verdict = decide(rule, gain)
    least, most = rule.bounds
    bounds = f"{least:+g} or more" if most == float("inf") else f"from {least:+g} to {most:+g}"
    if verdict == HOLDS:
        return f"{shown}; all of it is {bounds}"
    if verdict == FAILS:
        return f"{shown}; none of it is {bounds}"
    return f"{shown}; only a part is {bounds}; {_advise(rule.margin, gain)}"


def _is_constant(gain: Summary) -> bool:
    return gain.deviation is None or gain.deviation < _NO_DEVIATION


def _advise(size: float, gain: Summary) -> str:
    """Says how many seeds show a difference as large as the rule's margin."""
    if not size or _is_constant(gain):
        return "more seeds narrow it"
    return describe_power(size, gain)


def describe_power(size: float, difference: Summary) -> str:
    """Says how many seeds show a difference of a size, by the measured standard deviation."""
    if difference.deviation is None:
        return "the number of seeds needed is unknown before two seeds have finished on both sides"
    needed = seeds_needed(size, difference.deviation)
    number = "more than 1000 seeds" if needed is None else f"{needed} seeds"
    rough = ", a rough estimate" if difference.n < 10 else ""
    return (
        f"to tell a difference of {size:g} from 0 takes {number} (paired t test, 5 %, power 0.8; "
        f"standard deviation {difference.deviation:.3g} from {difference.n} seeds{rough})"
    )
