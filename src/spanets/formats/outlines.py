"""Outlines of masks as polygons along the edges of pixels, exactly."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spanets.formats.coco.filling import fill_polygons
from spanets.formats.coco.rle import decode_runs
from spanets.formats.coco.segmentations import bounds

Point = tuple[int, int]


def outline_of(shape: Any, height: int, width: int) -> list[float] | None:
    """Returns one polygon for an object's polygons or run lengths, or None for an empty mask.

    Parts and holes are joined by bridges without an area; a program that fills by the even-odd
    rule, as COCO's tools and OpenCV do, gets the same pixels.

    Args:
        shape: Polygons or run lengths in COCO's format.
        height, width: Size of the image.

    Raises:
        UserError: filling overlapping polygons needs the extra `detection`.
    """
    if isinstance(shape, list) and len(shape) == 1:
        return shape[0]
    if isinstance(shape, list):
        loops = shape
        if _overlap([bounds([polygon]) for polygon in shape]):
            loops = trace(fill_polygons(shape, (height, width)))
    else:
        loops = trace(decode_runs(shape["counts"], height, width))
    return join(loops) if loops else None


def trace(mask: NDArray[Any]) -> list[list[float]]:
    """Returns the outlines of a mask (H, W): clockwise around regions, the other way in holes.

    Pixels that touch at a corner alone belong to two regions.
    """
    exits = _edges(np.pad(np.asarray(mask, bool), 1))
    loops = []
    while exits:
        start = next(iter(exits))
        loops.append(_follow(exits, start))
    return loops


def join(loops: Sequence[list[float]]) -> list[float]:
    """Joins closed polygons to one, by going to and from the nearest point of each next one."""
    joined = np.array(loops[0], np.float64).reshape(-1, 2)
    for loop in loops[1:]:
        points = np.array(loop, np.float64).reshape(-1, 2)
        distances = np.abs(joined[:, None] - points[None]).sum(2)
        here, there = np.unravel_index(distances.argmin(), distances.shape)
        around = np.roll(points, -int(there), axis=0)
        parts = joined[: here + 1], around, around[:1], joined[here:]
        joined = np.concatenate(parts)
    return joined.ravel().tolist()


def _edges(padded: NDArray[np.bool_]) -> dict[Point, list[Point]]:
    """Returns the steps along edges that begin at each corner, with the region on their right."""
    exits: dict[Point, list[Point]] = {}
    above, below = padded[:-1, 1:-1], padded[1:, 1:-1]
    left, right = padded[1:-1, :-1], padded[1:-1, 1:]
    sides: list[tuple[NDArray[np.bool_], Point, Point]] = [
        (below & ~above, (0, 0), (1, 0)),
        (above & ~below, (1, 0), (-1, 0)),
        (right & ~left, (0, 1), (0, -1)),
        (left & ~right, (0, 0), (0, 1)),
    ]
    for edges, begin, step in sides:
        for y, x in np.argwhere(edges).tolist():
            exits.setdefault((x + begin[0], y + begin[1]), []).append(step)
    return exits


def _follow(exits: dict[Point, list[Point]], start: Point) -> list[float]:
    """Takes one closed outline out of the edges, and returns its corners."""
    place, first = start, exits[start][-1]
    corners: list[float] = []
    before: Point | None = None
    while True:
        steps = exits[place]
        step = first
        if before is not None:  # of two exits, the one to the right stays with the region
            right = (-before[1], before[0])
            step = right if right in steps else steps[0]
        steps.remove(step)
        if not steps:
            del exits[place]
        if step != before:
            corners += place
        place, before = (place[0] + step[0], place[1] + step[1]), step
        if place == start and (-step[1], step[0]) not in exits.get(start, ()):
            break
    if before == first:  # the start is in the middle of an edge
        corners = corners[2:]
    return [float(value) for value in corners]


def _overlap(boxes: list[tuple[float, ...]]) -> bool:
    """Whether any two boxes x1, y1, x2, y2 share an area."""
    values = np.array(boxes)
    start = np.maximum(values[:, None, :2], values[None, :, :2])
    end = np.minimum(values[:, None, 2:], values[None, :, 2:])
    shared = (end - start).clip(0).prod(2)
    np.fill_diagonal(shared, 0)
    return bool((shared > 0).any())
