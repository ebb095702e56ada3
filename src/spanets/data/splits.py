"""Divides a list in two so that every stratum is divided alike."""

from collections.abc import Hashable, Sequence

import numpy as np


def stratified_split(
    strata: Sequence[Hashable], fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Divides the indices of `strata` in two parts, `fraction` of each stratum in the second.

    A stratum with one member cannot be divided and stays in the first part. Of the n members of
    all others, the second part holds exactly round(fraction * n): each stratum gives its share
    rounded down, and what then lacks is given, one each, by the strata that would give none, then
    by those that lost most in rounding. So every stratum is within one of its share; the small
    ones are the last to be absent from the second part; and with a fraction of a half or less,
    none is absent from the first.

    Args:
        strata: the stratum of each item, compared by equality.
        fraction: share of the second part, between 0 and 1, both excluded.
        seed: what the choice within the strata depends on, besides the arguments; no global random
            state is read or changed.

    Returns:
        The indices of the first and of the second part, each in ascending order.

    Raises:
        ValueError: `fraction` is out of range, or `seed` is negative.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be between 0 and 1, both excluded, not {fraction}")
    groups: dict[Hashable, list[int]] = {}  # in order of appearance, never in that of a set
    for index, stratum in enumerate(strata):
        groups.setdefault(stratum, []).append(index)
    divisible = [members for members in groups.values() if len(members) > 1]
    counts = _apportion([len(members) for members in divisible], fraction)

    rng = np.random.default_rng(seed)
    second: set[int] = set()
    for members, count in zip(divisible, counts, strict=True):
        second.update(rng.permutation(members)[:count].tolist())
    return [i for i in range(len(strata)) if i not in second], sorted(second)


def _apportion(sizes: list[int], fraction: float) -> list[int]:
    """Rounds the shares `fraction * size` to integers whose sum is the rounded total."""
    shares = [fraction * size for size in sizes]
    counts = [int(share) for share in shares]
    missing = round(fraction * sum(sizes)) - sum(counts)
    by_need = sorted(range(len(sizes)), key=lambda i: (counts[i] > 0, counts[i] - shares[i]))
    for i in by_need[:missing]:
        counts[i] += 1
    return counts
