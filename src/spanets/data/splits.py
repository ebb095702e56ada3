"""Divides images in two so that every kind of them is divided alike."""

from collections.abc import Hashable, Sequence

import numpy as np

from spanets.data.samples import Samples
from spanets_runtime.errors import UserError


def split_parts(
    parts: dict[str, Samples], origin: str, fraction: float, seed: int
) -> dict[str, Samples]:
    """Divides "train" in "train" and "val", alike in every class, where there is no "val".

    Args:
        parts: "train", perhaps "val", perhaps "test".
        origin: Where they are from, for messages.
        fraction: Share of the images for "val", between 0 and 1, both excluded.
        seed: What the split depends on.

    Raises:
        UserError: too few images to be split.
        ValueError: as for `stratified_split`.
    """
    if "val" in parts:
        return parts
    samples = parts["train"]
    lone = [name for name, count in samples.counts().items() if count == 1]
    if lone:
        raise UserError(
            f"{origin}: only one image of class {', '.join(lone)}, which cannot be split into "
            "train and val; add another"
        )
    first, second = stratified_split(samples.labels, fraction, seed)
    divided = {"train": samples.subset(first), "val": samples.subset(second)}
    present = [name for name, count in samples.counts().items() if count]
    if not len(second) or not all(divided["train"].counts()[name] for name in present):
        raise UserError(
            f"{origin}: {len(samples)} images are too few for a val_fraction of {fraction}; "
            "add images or change it"
        )
    return {**divided, **{name: part for name, part in parts.items() if name != "train"}}


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
