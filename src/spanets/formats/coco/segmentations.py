"""Validates an object's polygons or run lengths, and limits the cost of filling them."""

import math
from typing import Any

import numpy as np

from spanets.formats.coco.faults import Fault, show_value
from spanets.formats.coco.rle import read_lengths

# Integers up to this are exact in float64.
MAX_NUMBER = 2**53

# Largest number of pixels along an object's outline; filling it takes about 40 bytes for each.
MAX_OUTLINE = 2**22


def read_segmentation(shape: Any, height: int, width: int) -> tuple[Any, bool]:
    """Checks an object's polygons or run lengths in an image of this size.

    Returns:
        Polygons, run lengths or None, and whether all polygons have an area. Polygons without an
        area are left out. If none is left, empty run lengths are returned, as COCO's own tools
        would fill it.

    Raises:
        Fault: the shape is neither polygons nor run lengths, or does not fit the image.
    """
    if not shape:
        return None, True
    if isinstance(shape, dict):
        return _read_runs(shape, height, width), True
    if not isinstance(shape, list):
        raise Fault("segmentation", "has a segmentation that is no polygons and no run lengths")
    for polygon in shape:
        _check_polygon(polygon, height, width)
    if sum(map(_outline, shape)) > min(MAX_OUTLINE, 8 * (width + 8) * (height + 8)):
        raise Fault("outline", "has polygons whose outlines are longer than any object's")
    kept = [polygon for polygon in shape if _has_area(polygon)]
    nothing = {"size": [height, width], "counts": [height * width]}
    return kept or nothing, len(kept) == len(shape)


def bounds(polygons: list[list[float]]) -> tuple[float, ...]:
    """Returns the bounding box of polygons as x1, y1, x2, y2."""
    points = np.concatenate([np.array(polygon).reshape(-1, 2) for polygon in polygons])
    return (*points.min(0).tolist(), *points.max(0).tolist())


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that is not too large."""
    return type(value) in (int, float) and abs(value) <= MAX_NUMBER and math.isfinite(value)


def _read_runs(shape: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """Returns validated run lengths, without other keys."""
    size, counts = shape.get("size"), shape.get("counts")
    if size != [height, width]:
        problem = f"has a mask of size {show_value(size)}, its image {[height, width]}"
        raise Fault("mask size", problem)
    if not isinstance(counts, list | str):
        raise Fault("mask counts", "has a mask without counts")
    try:
        read_lengths(counts, height, width)
    except ValueError as error:
        raise Fault("mask", f"has a damaged mask: {error}") from None
    return {"size": size, "counts": counts}


def _check_polygon(polygon: Any, height: int, width: int) -> None:
    if not isinstance(polygon, list) or not all(map(is_number, polygon)):
        raise Fault("polygons", "has a segmentation that is no list of polygons")
    if len(polygon) % 2:
        problem = f"has a polygon of {len(polygon)} numbers, must be pairs of x and y"
        raise Fault("pairs", problem)
    points = _points(polygon)
    limits = np.array([width, height])
    if not ((points >= -limits) & (points <= 2 * limits)).all():
        raise Fault("far", "has a polygon far outside its image")


def _outline(polygon: list[float]) -> float:
    """Returns the length of a closed polygon in pixel steps."""
    points = _points(polygon)
    return float(np.abs(points - np.roll(points, 1, axis=0)).max(1, initial=0).sum())


def _has_area(polygon: list[float]) -> bool:
    """Whether a polygon has an area, that is, its points do not lie on one line."""
    if len(polygon) < 6:
        return False
    from_first = _points(polygon) - polygon[:2]
    x, y = from_first[np.abs(from_first).sum(1).argmax()]  # the furthest
    beside = np.abs(from_first[:, 0] * y - from_first[:, 1] * x)
    return bool(beside.max() > 1e-9 * (1 + x**2 + y**2))  # above float64 rounding errors


def _points(polygon: list[float]) -> Any:
    return np.array(polygon, dtype=np.float64).reshape(-1, 2)
