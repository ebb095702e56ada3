"""Keypoints of objects in COCO's format: names and skeleton of a category, points of an annotation.

Format: https://cocodataset.org/#format-data, "keypoint detection".
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spanets.formats.coco.faults import Fault, show_value
from spanets.formats.coco.segmentations import is_number

VISIBILITIES = (0, 1, 2)
"""Not labelled, labelled but covered, and visible."""

MAX_KEYPOINTS = 1000

# "left" anywhere, or "l" between other signs than letters and digits.
_LEFT = re.compile(r"left|(?<![^\W_])l(?![^\W_])")


@dataclass(frozen=True)
class Keypoints:
    """The keypoints that each object of a data set has.

    Attributes:
        names: Name of each keypoint.
        skeleton: Pairs of keypoints that a line joins, numbered from 0.
    """

    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...] = ()

    @classmethod
    def unnamed(cls, count: int) -> "Keypoints":
        """Returns keypoints for a file whose categories do not name them."""
        return cls(tuple(f"keypoint {number}" for number in range(1, 1 + count)))

    @classmethod
    def parse(cls, described: Mapping[str, Any]) -> "Keypoints":
        """Reads the result of `describe`.

        Raises:
            ValueError: it is damaged.
        """
        try:
            names = [str(name) for name in described["names"]]
            lines = [[a + 1, b + 1] for a, b in described["skeleton"]]
            return _read_names({"keypoints": names, "skeleton": lines})
        except Fault as fault:
            raise ValueError(f"its keypoints {fault.problem}") from None
        except (KeyError, TypeError) as error:
            raise ValueError(f"its keypoints: {error}") from None

    def describe(self) -> dict[str, Any]:
        """Returns plain values, for a checkpoint's metadata."""
        return {"names": list(self.names), "skeleton": [list(pair) for pair in self.skeleton]}

    def to_category(self) -> dict[str, Any]:
        """Returns the keys of a category in COCO's format, which counts keypoints from 1."""
        lines = [[a + 1, b + 1] for a, b in self.skeleton]
        return {"keypoints": list(self.names), "skeleton": lines}

    def mirrored(self) -> list[int]:
        """Returns the keypoint that each one becomes in a mirror image: left and right swap.

        Pairs are found by their names, in any case, such as left_eye and right_eye, or l_eye and
        r_eye. Other keypoints stay.
        """
        numbers = {name.casefold(): number for number, name in enumerate(self.names)}
        order = list(range(len(self.names)))
        for name, left in numbers.items():
            other = _LEFT.sub(lambda found: {"left": "right", "l": "r"}[found[0]], name)
            right = numbers.get(other, left)
            if right != left:
                order[left], order[right] = right, left
        return order

    def count_pairs(self) -> int:
        """Returns the number of pairs of left and right."""
        return sum(number < other for number, other in enumerate(self.mirrored()))


def read_names(category: Mapping[str, Any]) -> Keypoints | None:
    """Reads the names and the skeleton of a category, or returns None if it has no keypoints.

    Raises:
        Fault: a name is no text, or the skeleton is no list of pairs of keypoints from 1 on.
    """
    return _read_names(category) if category.get("keypoints") else None


def _read_names(category: Mapping[str, Any]) -> Keypoints:
    names, lines = category["keypoints"], category.get("skeleton") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Fault("keypoints", f"has the keypoints {show_value(names)}, must be a list of names")
    if not 0 < len(names) <= MAX_KEYPOINTS:
        raise Fault("keypoints", f"has {len(names)} keypoints, of 1 to {MAX_KEYPOINTS}")
    numbers = range(1, 1 + len(names))
    if not isinstance(lines, list) or not all(_is_pair(line, numbers) for line in lines):
        problem = f"has the skeleton {show_value(lines)}, must be pairs of 1 to {len(names)}"
        raise Fault("skeleton", problem)
    return Keypoints(tuple(names), tuple((a - 1, b - 1) for a, b in lines))


def _is_pair(line: Any, numbers: range) -> bool:
    is_pair = isinstance(line, list) and len(line) == 2
    return is_pair and all(type(number) is int and number in numbers for number in line)


def read_points(points: Any, count: int | None) -> tuple[float, ...]:
    """Reads an annotation's keypoints: x and y in pixels and the visibility of each, in turn.

    Args:
        points: The value in the file.
        count: Number of keypoints, or None if no category and no earlier annotation has any.

    Raises:
        Fault: another number of values, or a wrong value.
    """
    if not isinstance(points, list) or not all(map(is_number, points)):
        raise Fault("keypoints", f"has the keypoints {show_value(points)}, must be numbers")
    if len(points) % 3 or not points:
        raise Fault("keypoints", f"has {len(points)} numbers as keypoints, must be x, y and v each")
    if count is not None and len(points) != 3 * count:
        problem = f"has {len(points) // 3} keypoints, where the file has {count}"
        raise Fault("number of keypoints", problem)
    if len(points) > 3 * MAX_KEYPOINTS:
        raise Fault("keypoints", f"has {len(points) // 3} keypoints, of 1 to {MAX_KEYPOINTS}")
    if wrong := [v for v in points[2::3] if v not in VISIBILITIES]:
        raise Fault("visibility", f"has a keypoint of visibility {wrong[0]}, must be 0, 1 or 2")
    return tuple(map(float, points))


def count_labelled(points: tuple[float, ...] | None) -> int:
    """Returns the number of labelled keypoints, visible or covered."""
    return sum(v > 0 for v in points[2::3]) if points else 0
