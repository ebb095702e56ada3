"""Means, 95 % intervals and the number of seeds a study needs: pure functions of numbers."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement
from statistics import NormalDist, fmean, stdev

import numpy as np
from numpy.typing import NDArray

from spanets_runtime.student import student_quantile

LEVEL = 0.95

MOST_ENUMERATED = 8
"""Largest number of values whose n^n resamples are all counted: 16.8 million, 6,435 different."""

RESAMPLES = 20_000
"""Resamples that are drawn, always with the same random seed, for more values than that."""

MOST_SEEDS = 1000
"""Limit of `seeds_needed`."""


@dataclass(frozen=True)
class Summary:
    """Mean of some values and its 95 % intervals.

    Attributes:
        n: Number of values.
        mean: Their mean; None without values.
        deviation: Their standard deviation; None for fewer than two, like the intervals.
        low, high: Bootstrap interval of the mean.
        t_low, t_high: Interval of the mean by Student's t.
    """

    n: int
    mean: float | None = None
    deviation: float | None = None
    low: float | None = None
    high: float | None = None
    t_low: float | None = None
    t_high: float | None = None


def summarise(values: Iterable[float]) -> Summary:
    """Returns mean, standard deviation and intervals of finite values."""
    found = list(values)
    if not found:
        return Summary(0)
    mean = _centred_mean(found)
    if len(found) < 2:
        return Summary(1, mean)
    deviation = stdev(found)
    half = student_quantile((1 + LEVEL) / 2, len(found) - 1) * deviation / math.sqrt(len(found))
    return Summary(
        len(found), mean, deviation, *bootstrap_interval(found), mean - half, mean + half
    )


def bootstrap_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of the mean.

    Up to `MOST_ENUMERATED` values, all resamples are counted, so nothing is random.
    """
    centre, offsets = _centred(values)
    counts, weights = _resamples(len(values))
    means = counts @ np.asarray(offsets) / len(values)
    tail = (1 - level) / 2
    low = _tail_end(means, weights, tail)
    high = -_tail_end(-means, weights, tail)
    # Rounding must not leave the range of the values.
    return max(centre + low, min(values)), min(centre + high, max(values))


def _tail_end(means: NDArray[np.float64], weights: NDArray[np.float64], tail: float) -> float:
    """Returns the smallest mean at or below which `tail` of the resamples lie."""
    order = np.argsort(means)
    reached = np.cumsum(weights[order]) >= tail - 1e-12
    return float(means[order][np.argmax(reached)])


@cache
def _resamples(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns how often each of n values occurs in each resample (M, n), and weights (M,)."""
    if n > MOST_ENUMERATED:
        drawn = np.random.default_rng(0).multinomial(n, [1 / n] * n, RESAMPLES)
        return drawn.astype(np.float64), np.full(RESAMPLES, 1 / RESAMPLES)
    chosen = np.array(list(combinations_with_replacement(range(n), n)))
    counts = (chosen[:, :, None] == np.arange(n)).sum(1)
    orders = [math.factorial(n) / math.prod(map(math.factorial, row)) for row in counts.tolist()]
    return counts.astype(np.float64), np.array(orders) / n**n


def _centred(values: Sequence[float]) -> tuple[float, list[float]]:
    """Returns the middle of the range, and the values less it, so that equal ones become 0."""
    centre = min(values) / 2 + max(values) / 2
    return centre, [value - centre for value in values]


def _centred_mean(values: Sequence[float]) -> float:
    centre, offsets = _centred(values)
    return centre + fmean(offsets)


def paired_differences(
    values: Mapping[int, float], against: Mapping[int, float]
) -> dict[int, float]:
    """Returns the differences by seed, of the seeds that both have."""
    return {seed: values[seed] - against[seed] for seed in values if seed in against}


def range_coverage(n: int) -> float:
    """Returns how often the range of n values from a symmetric distribution holds its mean."""
    return 1 - 2.0 ** (1 - n)


def paired_power(n: int, effect: float, deviation: float) -> float:
    """Returns the power of a two-sided paired t test at 5 %: how often n pairs show a difference.

    Args:
        n: Number of pairs, at least 2.
        effect: The true difference.
        deviation: Standard deviation of the differences, above 0.
    """
    freedom, shift = n - 1, abs(effect) / deviation * math.sqrt(n)
    critical = student_quantile((1 + LEVEL) / 2, freedom)
    normal = NormalDist().cdf

    # t = (Z + shift) / u with u² = χ²/ν, so that the power is a mean over u.
    def shown(u: float) -> float:
        return normal(shift - critical * u) + normal(-shift - critical * u)

    return _mean_over_chi(shown, freedom)


def _mean_over_chi(function: Callable[[float], float], freedom: int, steps: int = 800) -> float:
    """Returns the mean of a function of √(χ²/ν), by Simpson's rule."""
    width = 10 / math.sqrt(2 * freedom)
    start, end = max(0.0, 1 - width), 1 + width
    half = freedom / 2
    constant = math.log(2) + half * math.log(half) - math.lgamma(half)

    def weighted(u: float) -> float:
        if u == 0:
            return math.exp(constant) * function(0) if freedom == 1 else 0.0
        return math.exp(constant + (freedom - 1) * math.log(u) - half * u * u) * function(u)

    points = [weighted(start + (end - start) * i / steps) for i in range(steps + 1)]
    inner = 4 * sum(points[1:-1:2]) + 2 * sum(points[2:-1:2])
    return (end - start) / steps / 3 * (points[0] + inner + points[-1])


def seeds_needed(effect: float, deviation: float, power: float = 0.8) -> int | None:
    """Returns the fewest seeds with which a paired t test shows a difference with this power.

    Args:
        effect: The true difference.
        deviation: Standard deviation of the differences by seed.
        power: How often the difference must be shown.

    Returns:
        The number, from 2 to `MOST_SEEDS`; None if more are needed.
    """
    if deviation == 0:
        return 2 if effect else None
    if paired_power(MOST_SEEDS, effect, deviation) < power:
        return None
    low, high = 1, MOST_SEEDS  # `low` is too few, `high` is enough
    while high - low > 1:
        middle = (low + high) // 2
        enough = paired_power(middle, effect, deviation) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high
