"""Divides images in two so that every kind of them is divided alike."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from spanets.data.kept import Kept
from spanets.data.old_splits import check_unchanged
from spanets.data.packed import PackedTexts
from spanets.data.samples import Samples
from spanets.data.split_list import SPLIT_PARTS, SplitList
from spanets_runtime.errors import UserError


@dataclass(frozen=True)
class Division:
    """The numbers of the images of each part, ascending, and lines about those in neither."""

    train: list[int]
    val: list[int]
    notes: tuple[str, ...] = ()


def divide(
    images: Sequence[Any],
    names: Sequence[str],
    draw: Callable[[], tuple[list[int], list[int]]],
    origin: str,
    kept: Kept | None = None,
) -> Division:
    """Divides images as a run has divided them, or anew where none has.

    Args:
        images: Files, or what stores them.
        names: What they are called in a run's list.
        draw: Divides the images anew: returns the numbers of those of each part.
        origin: Where the images are from, for messages.
        kept: What the run knows.

    Raises:
        UserError: none of the run's images is there, or the run has no list and the images are not
            those that it began with.
    """
    if kept is not None and kept.split is not None:
        return _follow(kept.split, names, origin)
    first, second = draw()
    if kept is None or kept.is_new:
        return Division(first, second)
    return Division(first, second, (check_unchanged(kept, images, len(first), origin),))


def _follow(split: SplitList, names: Sequence[str], origin: str) -> Division:
    """Divides by a list; what is not in it is in neither part."""
    if not split.parts:
        raise UserError(
            f"{origin}: has no part for validation any more, and {split.path} lists no images, for "
            "the run began with parts; put the part back, or name other images with --data"
        )
    numbers: dict[str, list[int]] = {part: [] for part in SPLIT_PARTS}
    new, found = [], set()
    for number, name in enumerate(names):
        part = split.parts.get(name)
        if part is None:
            new.append(name)
        else:
            numbers[part].append(number)
            found.add(name)
    gone = [name for name in split.parts if name not in found]
    for part in SPLIT_PARTS:
        if not numbers[part]:
            raise UserError(
                f"{origin}: none of the {part} images of {split.path} is there, such as "
                f"{next((n for n, p in split.parts.items() if p == part), 'none listed')}; "
                "name the folder that the run was trained from"
            )
    return Division(numbers["train"], numbers["val"], _describe_changes(split, new, gone, origin))


def _describe_changes(
    split: SplitList, new: list[str], gone: list[str], origin: str
) -> tuple[str, ...]:
    """Tells of images that a list lacks, and of those that it has and are gone."""
    notes = []
    if new:
        notes.append(
            f"{origin}: {_count(new)} not in {split.path}, left out, such as {new[0]}; a new run "
            "takes all"
        )
    if gone:
        trained = sum(split.parts[name] == "train" for name in gone)
        order = f" ({trained} to train on: resumed, the run draws the others in another order)"
        notes.append(
            f"{origin}: {_count(gone)} gone that {split.path} lists, such as {gone[0]}"
            f"{order if trained else ''}"
        )
    return tuple(notes)


def _count(names: list[str]) -> str:
    return f"{len(names)} image{'s are' if len(names) > 1 else ' is'}"


def split_parts(
    parts: dict[str, Samples],
    origin: str,
    fraction: float,
    seed: int,
    name_images: Callable[[Sequence[Any]], Sequence[str]],
    kept: Kept | None = None,
) -> dict[str, Samples]:
    """Divides "train" in "train" and "val", alike in every class, where there is no "val".

    Args:
        parts: "train", perhaps "val", perhaps "test".
        origin: Where they are from, for messages.
        fraction: Share of the images for "val", between 0 and 1, both excluded.
        seed: What the split depends on.
        name_images: Tells what images are called in a run's list.
        kept: What a run knows; its list decides, also about images that have a part by now.

    Returns:
        The parts; those that were divided with `Samples.names`.

    Raises:
        UserError: too few images to be split, or images that are not those of the run.
        ValueError: as for `stratified_split`.
    """
    listed = kept is not None and kept.split is not None and bool(kept.split.parts)
    if "val" in parts and not listed:
        return parts
    samples = parts["train"].joined(parts["val"]) if "val" in parts else parts["train"]
    if not listed:
        _check_divisible(samples, origin)
    names = number_repeats(name_images(samples.images))
    draw = partial(stratified_split, samples.labels, fraction, seed)
    found = divide(samples.images, names, draw, origin, kept)
    divided = {
        part: replace(
            samples.subset(numbers),
            names=PackedTexts(names[i] for i in numbers),
            notes=samples.notes + found.notes,
        )
        for part, numbers in (("train", found.train), ("val", found.val))
    }
    if not listed:
        _check_divided(samples, divided, origin, fraction)
    return {**parts, **divided}


def list_split(parts: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """Returns the names of the images of each part that was divided, for a run's list."""
    return {name: parts[name].names for name in SPLIT_PARTS if parts[name].names is not None}


def number_repeats(names: Sequence[str]) -> Sequence[str]:
    """Makes names of their own for images that are called alike, or whose bytes are the same."""
    taken = set(names)
    if len(taken) == len(names):
        return names
    seen, unique = Counter[str](), []
    for name in names:
        seen[name] += 1
        own = name
        while seen[name] > 1 and own in taken:
            own = f"{name} ({seen[name]})"
            seen[name] += own in taken
        taken.add(own)
        unique.append(own)
    return unique


def _check_divisible(samples: Samples, origin: str) -> None:
    lone = [name for name, count in samples.counts().items() if count == 1]
    if lone:
        raise UserError(
            f"{origin}: only one image of class {', '.join(lone)}, which cannot be split into "
            "train and val; add another"
        )


def _check_divided(
    samples: Samples, divided: dict[str, Samples], origin: str, fraction: float
) -> None:
    counts = divided["train"].counts()
    present = [name for name, count in samples.counts().items() if count]
    if not len(divided["val"]) or not all(counts[name] for name in present):
        raise UserError(
            f"{origin}: {len(samples)} images are too few for a val_fraction of {fraction}; "
            "add images or change it"
        )


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
