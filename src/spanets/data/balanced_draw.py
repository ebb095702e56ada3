"""Draws parts of fixed shares, balanced by class, that keep groups of images together.

Each group, or each single image, prefers the parts in an order that depends on its own name and the
seed alone. Groups take the first preferred part that has room for them in all of their classes; the
few that find none go to the emptiest part. So the order of the images does not matter, and few
images change their part when others come or go. A run's lists keep all of them where they are.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np


def draw_parts(
    labels: Sequence[int], groups: Sequence[str], shares: Sequence[float], seed: int
) -> np.ndarray:
    """Returns the part of each image, as an index of `shares`.

    Without groups of several images, every part gets the share of each class, to within one image.

    Args:
        labels: The class of each image.
        groups: The group of each image; images of a group are in the same part.
        shares: Fraction of the images for each part; their sum is 1.
        seed: Seed of the draw.
    """
    numbers: dict[str, int] = {}
    units = np.fromiter(
        (numbers.setdefault(group, len(numbers)) for group in groups), np.int64, len(groups)
    )
    preferred, order = _preferences(list(numbers), units, shares, seed)
    contents = _count_classes(np.asarray(labels, np.int64), units, len(numbers))
    totals = np.bincount(labels).astype(float)
    return _place(contents, order, preferred, totals, shares)[units]


def _preferences(
    names: list[str], units: np.ndarray, shares: Sequence[float], seed: int
) -> tuple[np.ndarray, list[int]]:
    """Returns each unit's order of the parts, and the order in which units choose: large first."""
    key = seed.to_bytes(8, "little")
    digests = b"".join(
        blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16, key=key).digest()
        for name in names
    )
    words = np.frombuffer(digests, np.uint64).reshape(-1, 2)  # (units, 2)
    multipliers = np.arange(1, 2 * len(shares), 2, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = words[:, :1] * multipliers
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    uniform = ((mixed >> np.uint64(11)).astype(float) + 0.5) / 2**53  # (units, parts), in 0..1
    # The smallest of exponential times: a part is first with a probability equal to its share.
    preferred = np.argsort(-np.log(uniform) / np.asarray(shares), axis=1)
    sizes = np.bincount(units, minlength=len(names))
    return preferred, np.lexsort((words[:, 1], -sizes)).tolist()


def _count_classes(
    labels: np.ndarray, units: np.ndarray, count: int
) -> list[list[tuple[int, int]]]:
    """Returns the classes of each unit with their numbers of images."""
    classes = int(labels.max(initial=0)) + 1
    pairs, images = np.unique(units * classes + labels, return_counts=True)
    contents: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for pair, number in zip(pairs.tolist(), images.tolist(), strict=True):
        contents[pair // classes].append((pair % classes, number))
    return contents


def _place(
    contents: list[list[tuple[int, int]]],
    order: list[int],
    preferred: np.ndarray,
    totals: np.ndarray,
    shares: Sequence[float],
) -> np.ndarray:
    """Returns the part of each unit."""
    wanted = [[share * total for total in totals] for share in shares]
    rooms = [[int(number + 1e-9) for number in part] for part in wanted]
    filled = [[0] * len(totals) for _ in shares]
    parts, left = np.full(len(contents), -1), []

    def put(unit: int, part: int) -> None:
        parts[unit] = part
        for label, number in contents[unit]:
            filled[part][label] += number

    def fill(unit: int, part: int) -> float:
        return max((filled[part][c] + n) / wanted[part][c] for c, n in contents[unit])

    for unit in order:
        for part in preferred[unit].tolist():
            if all(filled[part][c] + n <= rooms[part][c] for c, n in contents[unit]):
                put(unit, part)
                break
        else:
            left.append(unit)
    for unit in left:
        put(unit, min(preferred[unit].tolist(), key=lambda part: fill(unit, part)))
    return parts
