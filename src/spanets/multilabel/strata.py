"""Strata of images with several labels, for splits in which every label has its share."""

from collections import Counter

import numpy as np

_FEWEST = 4  # images of a stratum of its own


def stratify(values: np.ndarray) -> list[str]:
    """Returns the stratum of each image: its combination of labels.

    Images of a rare combination join those of others that have the same rarest label, so that a
    rare label is divided as well; if these are still few, they join all others.

    Args:
        values: (images, labels), 1 for a label that an image has.
    """
    numbers = number_rows(values)
    _, first, counts = np.unique(numbers, return_index=True, return_counts=True)
    totals = values.sum(0)
    strata, sizes = [], Counter[str]()
    for row, count in zip(values[first], counts.tolist(), strict=True):
        labels = np.flatnonzero(row).tolist()
        if count >= _FEWEST or not labels:
            stratum = " ".join(map(str, labels))
        else:
            stratum = f"rare {min(labels, key=lambda label: (totals[label], label))}"
        strata.append(stratum)
        sizes[stratum] += count
    strata = [stratum if sizes[stratum] >= _FEWEST else "rare" for stratum in strata]
    return [strata[number] for number in numbers.tolist()]


def number_rows(values: np.ndarray) -> np.ndarray:
    """Returns a number for each row of an array of 0 and 1; equal rows have the same."""
    bits = np.packbits(values > 0, axis=1)  # (rows, bytes)
    padded = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8)))
    words = np.ascontiguousarray(padded).view(np.uint64)
    if words.shape[1] == 1:  # much faster than rows
        return np.unique(words[:, 0], return_inverse=True)[1]
    return np.unique(words, axis=0, return_inverse=True)[1].reshape(-1)
