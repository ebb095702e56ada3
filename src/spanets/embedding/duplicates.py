"""Finds copies of images: files with the same content, and pairs of similar vectors."""

import csv
import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spanets.embedding.vectors import UNLABELLED, Embeddings, to_unit
from spanets_runtime.errors import UserError
from spanets_runtime.files import write_atomically
from spanets_runtime.progress import progress

THRESHOLD = 0.98
"""Default cosine similarity above which a pair is a near-duplicate."""

MOST_PAIRS = 100_000
"""Largest number of near-duplicate pairs that are listed; all are counted."""

_ROUNDING = 1e-6  # of a cosine in float32: that of equal vectors may be below 1

_ROWS = 2048  # in a block; similarities of two blocks take 16 MiB

HEADER = (
    *("kind", "cosine", "first", "second"),
    *("first_part", "second_part", "first_label", "second_label"),
)


@dataclass(frozen=True)
class Pair:
    """Two images, as rows of the embeddings; the first has the smaller path.

    Attributes:
        exact: Whether the files have the same content.
        cosine: Similarity of the vectors.
        first, second: Rows.
    """

    exact: bool
    cosine: float
    first: int
    second: int


@dataclass
class Duplicates:
    """Pairs of copies.

    Of files with the same content, the first stands for all: each other is paired with it, and only
    the first is compared with other images.

    Attributes:
        threshold: Lowest cosine of a near-duplicate pair.
        pairs: Exact pairs, then near ones by descending cosine, at most `MOST_PAIRS` of these.
        exact: Number of exact pairs.
        near: Number of near-duplicate pairs, also of those that are not listed.
        leaks: Number of pairs whose images are in different parts of the data set.
        conflicts: Number of pairs whose images have different labels.
    """

    threshold: float
    pairs: list[Pair] = field(default_factory=list)
    exact: int = 0
    near: int = 0
    leaks: int = 0
    conflicts: int = 0

    def leaking(self, embeddings: Embeddings) -> list[Pair]:
        """Returns the listed pairs across two parts."""
        return [p for p in self.pairs if _differ(embeddings.parts, p, "")]

    def to_dict(self, embeddings: Embeddings) -> dict[str, Any]:
        """Returns plain values for machines; pairs across parts first."""
        leaking = self.leaking(embeddings)
        across = set(leaking)
        ordered = [*leaking, *(pair for pair in self.pairs if pair not in across)]
        return {
            **{key: value for key, value in vars(self).items() if key != "pairs"},
            "listed": len(self.pairs),
            "pairs": [dict(zip(HEADER, _row(embeddings, pair), strict=True)) for pair in ordered],
        }


def find_duplicates(embeddings: Embeddings, threshold: float = THRESHOLD) -> Duplicates:
    """Finds files with the same content, and pairs of images with similar vectors.

    Vectors are compared in blocks of 2,048 by 2,048, so memory does not grow with the number of
    images; the time does, with its square.

    Args:
        embeddings: The embeddings.
        threshold: Lowest cosine similarity of a near-duplicate pair, but for rounding.
    """
    found = Duplicates(threshold)
    groups: dict[bytes, list[int]] = {}
    contents = embeddings.contents()
    for row in embeddings.in_order_of_paths(np.arange(len(embeddings))).tolist():
        groups.setdefault(contents[row], []).append(row)
    for first, *others in groups.values():
        found.pairs += [Pair(True, 1.0, first, other) for other in others]
    found.exact = len(found.pairs)
    found.leaks = sum(_differ(embeddings.parts, pair, "") for pair in found.pairs)
    found.conflicts = sum(_differ(embeddings.labels, pair, UNLABELLED) for pair in found.pairs)
    _Search(embeddings, np.array([rows[0] for rows in groups.values()], np.intp), found).run()
    return found


def _differ(values: Any, pair: Pair, none: Any) -> bool:
    a, b = values[pair.first], values[pair.second]
    return bool(a != b and a != none and b != none)


class _Search:
    """Compares all pairs of rows by blocks and keeps the most similar ones."""

    def __init__(self, embeddings: Embeddings, rows: NDArray[np.intp], found: Duplicates) -> None:
        self.vectors, self.rows, self.found = embeddings.vectors, rows, found
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        names = {"": 0, "train": 1, "val": 2, "test": 3}
        self.parts = torch.tensor([names[embeddings.parts[row]] for row in rows])
        self.labels = torch.from_numpy(embeddings.labels[rows].astype(np.int64)) + 1  # 0: none
        self.cosines = torch.empty(0)
        self.places = torch.empty(2, 0, dtype=torch.long)

    def run(self) -> None:
        """Adds the near-duplicate pairs."""
        starts = range(0, len(self.rows), _ROWS)
        total = len(starts) * (len(starts) + 1) // 2
        with progress(None, "duplicates", total=total) as bar:
            for i in starts:
                block = self._block(i)
                for j in range(i, len(self.rows), _ROWS):
                    self._compare(block, block if i == j else self._block(j), i, j)
                    bar.update()
        self._keep_best(MOST_PAIRS)
        for cosine, first, second in zip(self.cosines.tolist(), *self.places.tolist(), strict=True):
            pair = Pair(False, min(1.0, cosine), int(self.rows[first]), int(self.rows[second]))
            self.found.pairs.append(pair)

    def _block(self, start: int) -> Tensor:
        rows = self.rows[start : start + _ROWS]
        return torch.from_numpy(to_unit(self.vectors[rows])).to(self.device)

    def _compare(self, first: Tensor, second: Tensor, i: int, j: int) -> None:
        similar = first @ second.mT
        mask = similar >= self.found.threshold - _ROUNDING
        places = (mask.triu(1) if i == j else mask).nonzero().mT  # 2 pairs
        if not places.shape[1]:
            return
        cosines = similar[places[0], places[1]].cpu()
        places = places.cpu() + torch.tensor([[i], [j]])
        self.found.near += len(cosines)
        self.found.leaks += _count_different(self.parts, places)
        self.found.conflicts += _count_different(self.labels, places)
        self.cosines = torch.cat([self.cosines, cosines])
        self.places = torch.cat([self.places, places], 1)
        if len(self.cosines) > 4 * MOST_PAIRS:
            self._keep_best(MOST_PAIRS)

    def _keep_best(self, count: int) -> None:
        """Keeps the pairs with the highest cosines; of equal ones the first."""
        order = self.cosines.argsort(descending=True, stable=True)[:count]
        self.cosines, self.places = self.cosines[order], self.places[:, order]


def _count_different(values: Tensor, places: Tensor) -> int:
    first, second = values[places[0]], values[places[1]]
    return int(((first != second) & (first > 0) & (second > 0)).sum())


def _row(embeddings: Embeddings, pair: Pair) -> list[Any]:
    rows = (pair.first, pair.second)
    return [
        "exact" if pair.exact else "near",
        round(pair.cosine, 6),
        *(embeddings.paths[row] for row in rows),
        *(embeddings.parts[row] for row in rows),
        *(embeddings.label_of(row) for row in rows),
    ]


def check_table(path: Path) -> None:
    """Raises a UserError if a file is there that `save_duplicates` did not write."""
    if not path.exists():
        return
    expected = ",".join(HEADER).encode()
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(expected)) == expected:
                return
    raise UserError(
        f"{path}: already exists, and `spanets` did not write it; move it, or name another --out"
    )


def save_duplicates(embeddings: Embeddings, found: Duplicates, path: Path) -> None:
    """Writes the listed pairs as CSV, in UTF-8; names with other bytes keep these bytes.

    Raises:
        UserError: it cannot be written, or a foreign file is there.
    """
    check_table(path)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(_row(embeddings, pair) for pair in found.pairs)
    content = text.getvalue().encode("utf-8", "surrogateescape")
    write_atomically(path, lambda file: file.write(content))


def count_copies(found: Duplicates) -> int:
    """Returns the number of files that have several copies."""
    return len(Counter(pair.first for pair in found.pairs if pair.exact))
