"""Embeddings: one vector for each image, with all that is needed to use them later.

Shape legend: `N` images, `D` numbers in a vector.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spanets_runtime.errors import UserError

UNLABELLED = -1

DIGEST_BYTES = 16

_BLOCK = 2**22  # numbers in a block of vectors: 16 MiB in float32


@dataclass(frozen=True)
class Origin:
    """How vectors were computed. Only vectors with the same origin can be compared.

    Attributes:
        model: Name or path of the model that the user gave.
        layer: Layer whose output is pooled over space.
        weights: Digest of all weights and buffers.
        preprocessing: Values of the preprocessing.
        normalized: Whether the vectors have length 1.
        version: Version of this package.
    """

    model: str
    layer: str
    weights: str
    preprocessing: dict[str, Any]
    normalized: bool
    version: str

    def check_same(self, other: "Origin", where: str) -> None:
        """Raises a UserError, which names the file `where`, if vectors of `other` do not fit."""
        if self.weights != other.weights:
            raise UserError(
                f"{where}: was made by {self.model}, and {other.model} has other weights; name the "
                "model that made it, or embed the images again"
            )
        for key in ("layer", "preprocessing"):
            own, given = getattr(self, key), getattr(other, key)
            if own != given:
                raise UserError(
                    f"{where}: was made with {key} {own}, not {given}; embed the images again"
                )


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Vectors of images.

    The vectors take 4·N·D bytes: 2 GB for a million vectors of 512 numbers. Saving, loading and all
    measurements read them in blocks of 16 MiB, so there is never a second copy.

    Attributes:
        paths: Path of each image.
        vectors: Vectors (N, D), float32.
        labels: Index into `classes` for each image (N,), or -1 without a class folder.
        classes: Names of the class folders.
        parts: "train", "val" or "test" for each image, or "" in a data set without parts.
        digests: BLAKE2 digest of each file's content (N, 16), uint8.
        origin: How the vectors were computed.
        notes: Lines about the listing and the model; not stored.
        left_out: A line for each image that was left out; not stored.
    """

    paths: list[str]
    vectors: NDArray[np.float32]
    labels: NDArray[np.int32]
    classes: list[str]
    parts: list[str]
    digests: NDArray[np.uint8]
    origin: Origin
    notes: tuple[str, ...] = field(default=())
    left_out: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def dimensions(self) -> int:
        """Numbers in a vector."""
        return self.vectors.shape[1]

    def label_of(self, row: int) -> str:
        """Returns the class name of an image, "" if it has none."""
        label = int(self.labels[row])
        return "" if label == UNLABELLED else self.classes[label]

    def contents(self) -> list[bytes]:
        """Returns the digest of each image's file as bytes."""
        return [row.tobytes() for row in self.digests]

    def in_order_of_paths(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Sorts rows by path, so that results do not depend on the order of the images."""
        return np.array(sorted(rows.tolist(), key=self.paths.__getitem__), dtype=np.intp)


def blocks_of(
    vectors: NDArray[np.float32], rows: NDArray[np.intp], numbers: int = _BLOCK
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yields the vectors of some rows in blocks.

    Args:
        vectors: Vectors (N, D).
        rows: Rows to read, in any order.
        numbers: Limit of numbers in a block.

    Yields:
        The block's place in `rows`, and its vectors.
    """
    size = max(1, numbers // max(1, vectors.shape[1]))
    for first in range(0, len(rows), size):
        place = slice(first, min(first + size, len(rows)))
        yield place, vectors[rows[place]]


def to_unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns vectors (N, D) with length 1; a vector of zeros stays one."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    return (vectors / np.maximum(lengths, 1e-30)[:, None]).astype(np.float32)
