"""Stratified splits into train and val, drawn again or read from a run's split list."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from spanets.data.balanced_draw import draw_parts
from spanets.data.old_splits import check_unchanged
from spanets.data.packed import PackedTexts
from spanets.data.run_data import RunData
from spanets.data.samples import Samples
from spanets.data.split_list import SPLIT_PARTS, SplitList
from spanets_runtime.errors import UserError


@dataclass(frozen=True)
class Division:
    """Image indices of both parts, ascending, and messages about images in neither part."""

    train: list[int]
    val: list[int]
    notes: tuple[str, ...] = ()


def divide(
    images: Sequence[Any],
    names: Sequence[str],
    draw: Callable[[], tuple[list[int], list[int]]],
    origin: str,
    run_data: RunData | None = None,
) -> Division:
    """Divides images by the split list of a run, or draws a new split if there is none.

    Args:
        images: Image files, or images stored in shards or tables.
        names: Names of the images in the split list.
        draw: Draws a split; returns the indices of each part.
        origin: Name of the data set, for messages.
        run_data: What the run recorded about its data.

    Raises:
        UserError: none of the run's images is there, or the run has no split list and the images
            have changed since it began.
    """
    if run_data is not None and run_data.split is not None:
        return _follow(run_data.split, names, origin)
    first, second = draw()
    if run_data is None or run_data.is_new:
        return Division(first, second)
    return Division(first, second, (check_unchanged(run_data, images, len(first), origin),))


def _follow(split: SplitList, names: Sequence[str], origin: str) -> Division:
    """Divides by a split list; images that it lacks are in neither part."""
    if not split.parts:
        raise UserError(
            f"{origin}: has no part for validation any more, and {split.path} lists no images, "
            "because the run began with parts; put the part back, or name other images with --data"
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
    """Returns messages about images that the list lacks, and listed images that are gone."""
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
    run_data: RunData | None = None,
) -> dict[str, Samples]:
    """Splits "train" into "train" and "val", stratified, if there is no "val".

    Strata are those of the samples, or else their classes.

    Args:
        parts: "train", perhaps "val", perhaps "test".
        origin: Name of the data set, for messages.
        fraction: Fraction of the images for "val", between 0 and 1, both excluded.
        seed: Seed of the split.
        name_images: Returns the names of images in a split list.
        run_data: What the run recorded about its data; its split list wins over the data's parts.

    Returns:
        The parts; "train" and "val" have `Samples.names` if they were split.

    Raises:
        UserError: too few images to split, or the images are not those of the run.
        ValueError: see `stratified_split`.
    """
    listed = run_data is not None and run_data.split is not None and bool(run_data.split.parts)
    if "val" in parts and not listed:
        return parts
    samples = parts["train"].joined(parts["val"]) if "val" in parts else parts["train"]
    has_strata = samples.strata is not None
    lone = [] if listed or has_strata else _single_images(samples, origin)
    labels = samples.numbered_strata()
    names = number_repeats(name_images(samples.images))
    draw = partial(stratified_split, labels, fraction, seed)
    if samples.groups is not None:
        draw = partial(_split_groups, labels, samples.groups, fraction, seed)
        if not listed:
            lone.append(f"{origin}: {len(set(samples.groups))} groups, none is in both parts")
    found = divide(samples.images, names, draw, origin, run_data)
    divided = {part: own.noted(lone) for part, own in apply_division(samples, names, found).items()}
    if not listed:
        _check_divided(samples, divided, origin, fraction)
    return {**parts, **divided}


def apply_division(samples: Samples, names: Sequence[str], found: Division) -> dict[str, Samples]:
    """Returns the images of "train" and "val", with their names in the split list."""
    return {
        part: replace(
            samples.subset(numbers),
            names=PackedTexts(names[i] for i in numbers),
            notes=(*samples.notes, *found.notes),
        )
        for part, numbers in (("train", found.train), ("val", found.val))
    }


def _split_groups(
    labels: Sequence[int], groups: Sequence[str], fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Divides images in two like `stratified_split`, as nearly as whole groups allow."""
    drawn = draw_parts(labels, groups, [1 - fraction, fraction], seed)
    first, second = (np.flatnonzero(drawn == part).tolist() for part in (0, 1))
    return first, second


def list_split(parts: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """Returns the image names of the parts that were split, for the run's split list."""
    return {name: parts[name].names for name in SPLIT_PARTS if parts[name].names is not None}


def number_repeats(names: Sequence[str]) -> Sequence[str]:
    """Makes names unique by appending numbers such as " (2)" to repeats."""
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


def _single_images(samples: Samples, origin: str) -> list[str]:
    """Returns a note on classes with a single image, which is then for training.

    Raises:
        UserError: fewer than two classes are left for the validation.
    """
    counts = samples.counts()
    lone = [name for name, count in counts.items() if count == 1]
    if not lone:
        return []
    shown = ", ".join(lone[:5]) + (f" and {len(lone) - 5} more" if len(lone) > 5 else "")
    if sum(count > 1 for count in counts.values()) < 2:
        raise UserError(
            f"{origin}: only one image of class {shown}, which cannot be split into train and val; "
            "add another"
        )
    return [
        f"{origin}: only one image of {len(lone)} of {len(counts)} classes ({shown}): it is for "
        "training, so the validation says nothing about the class"
    ]


def _check_divided(
    samples: Samples, divided: dict[str, Samples], origin: str, fraction: float
) -> None:
    counts = divided["train"].counts()
    present = [name for name, count in samples.counts().items() if count]
    if not all(map(len, divided.values())) or not all(counts[name] for name in present):
        raise UserError(
            f"{origin}: {len(samples)} images are too few for a val_fraction of {fraction}; "
            "add images or change it"
        )


def stratified_split(
    strata: Sequence[Hashable], fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Divides the indices of `strata` in two, with `fraction` of each stratum in the second part.

    A stratum with one member stays in the first part. Of the n members of all other strata, the
    second part gets exactly round(fraction * n). Each stratum gives its quota rounded down. The
    rest comes, one item each, first from strata that gave none, then from those that lost most by
    rounding. So every stratum is within one item of its quota, and with a fraction of at most a
    half, every stratum is in the first part.

    Args:
        strata: the stratum of each item, compared by equality.
        fraction: fraction of the second part, between 0 and 1, both excluded.
        seed: seed of the choice; the global random state is neither read nor changed.

    Returns:
        The indices of the first and of the second part, each in ascending order.

    Raises:
        ValueError: `fraction` is out of range, or `seed` is negative.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be between 0 and 1, both excluded, not {fraction}")
    groups: dict[Hashable, list[int]] = {}  # in order of appearance; a set's order is random
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
    """Rounds the quotas `fraction * size` to integers whose sum is the rounded total."""
    shares = [fraction * size for size in sizes]
    counts = [int(share) for share in shares]
    missing = round(fraction * sum(sizes)) - sum(counts)
    by_need = sorted(range(len(sizes)), key=lambda i: (counts[i] > 0, counts[i] - shares[i]))
    for i in by_need[:missing]:
        counts[i] += 1
    return counts
