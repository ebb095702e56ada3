"""Detects boxes in a wrong format from a file's statistics: relative, corners, another size."""

from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spanets.formats.coco.faults import Fault

# Smallest number of boxes for a judgement.
FEW = 3

# Fraction of the image by which an imprecise box may exceed it.
SLACK = 0.1


class Boxes:
    """The boxes of a file, and the boxes around the objects' polygons."""

    def __init__(self) -> None:
        self._written = array("d")
        self._polygons = array("d")

    def add(self, box: list[float], width: int, height: int) -> None:
        """Adds an object's x, y, width and height, with the width and height of its image."""
        self._written.extend((*box, width, height))

    def add_polygons(self, box: tuple[float, ...], around: tuple[float, ...]) -> None:
        """Adds an object's box and the box around its polygons, both as x1, y1, x2, y2."""
        self._polygons.extend((*box, *around))

    def check(self) -> None:
        """Raises a Fault if the boxes are not x, y, width and height in pixels of their image."""
        written = np.frombuffer(self._written).reshape(-1, 6)  # x, y, width, height of each, image
        if len(written):
            _check_shares(written)
        if len(written) >= FEW:
            _check_corners(written)
            _check_size(written)
        polygons = np.frombuffer(self._polygons).reshape(-1, 8)
        if len(polygons):
            _check_polygons(polygons)

    def notes(self) -> list[str]:
        """Returns warnings about suspicious boxes, to be prefixed by the file's name."""
        written = np.frombuffer(self._written).reshape(-1, 6)
        notes = []
        shares = int(_are_shares(written[:, :4], written[:, 4:]).sum())
        if shares:
            notes.append(f"{shares} of {len(written)} boxes lie within 0..1, less than a pixel")
        corners, images = written[:, :2] + written[:, 2:4], written[:, 4:]
        if len(written) >= 4 * FEW and (corners < images / 2).all():
            notes.append(
                f"all {len(written)} boxes lie in the upper left quarter of their images; are they "
                "for smaller images, or in percent?"
            )
        return notes


def _are_shares(values: NDArray[Any], images: NDArray[Any]) -> NDArray[np.bool_]:
    """Returns which rows have only numbers within 0..1, in images larger than a pixel."""
    within = ((values >= -0.01) & (values <= 1.01)).all(1)
    return within & (images.max(1) > 1)


def _check_shares(written: NDArray[Any]) -> None:
    shares = _are_shares(written[:, :4], written[:, 4:])
    found, total = int(shares.sum()), len(written)
    # An object may be the first pixel of an image; its box then has whole numbers.
    whole = (written[:, :4] == written[:, :4].round()).all()
    if 2 * found <= total or (whole and total < FEW):
        return
    raise Fault(
        "shares",
        f"has boxes that are shares of the image: {_of(found, total)} lie within 0..1; multiply x "
        "and width by the image's width, y and height by its height, and polygons likewise",
    )


def _check_corners(written: NDArray[Any]) -> None:
    start, size, images = written[:, :2], written[:, 2:4], written[:, 4:]
    fits = ((start >= -1) & (size > start) & (size <= images + 1)).all(1)
    leaves = fits & _leaves(written)
    if fits.mean() < 0.95 or leaves.mean() < 0.2:
        return
    raise Fault(
        "corners",
        f"has boxes that are x1, y1, x2, y2: {_of(int(leaves.sum()), len(written))} leave their "
        "image as x, y, width and height; subtract x1 from x2 and y1 from y2",
    )


def _check_size(written: NDArray[Any]) -> None:
    leaves = _leaves(written)
    if leaves.mean() <= 0.5:
        return
    raise Fault(
        "another size",
        f"has boxes for images of another size: {_of(int(leaves.sum()), len(written))} leave "
        "their image by more than a tenth of it; scale them to its width and height",
    )


def _leaves(written: NDArray[Any]) -> NDArray[np.bool_]:
    start, size, images = written[:, :2], written[:, 2:4], written[:, 4:]
    below, above = start < -SLACK * images, start + size > (1 + SLACK) * images
    return (below | above).any(1)


def _check_polygons(pairs: NDArray[Any]) -> None:
    """Compares boxes with the boxes around polygons; a row has x1, y1, x2, y2 of both."""
    box, around = pairs[:, :4], pairs[:, 4:]
    start, end = np.maximum(box[:, :2], around[:, :2]), np.minimum(box[:, 2:], around[:, 2:])
    shared = (end - start).clip(0).prod(1)
    both = sum((one[:, 2:] - one[:, :2]).prod(1) for one in (box, around))
    apart = shared < 0.5 * (both - shared)
    if len(pairs) < FEW or 2 * apart.sum() <= len(pairs):
        return
    raise Fault(
        "polygons",
        f"has boxes that are not around their polygons: {_of(int(apart.sum()), len(pairs))} share "
        "less than half of their area with that box; both must be in pixels, boxes x, y, width "
        "and height",
    )


def _of(found: int, total: int) -> str:
    return f"all {total}" if found == total else f"{found} of {total}"
