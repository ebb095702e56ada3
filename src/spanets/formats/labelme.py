"""labelme's JSON: a file an image, beside it, with shapes in pixels.

    a.jpg   a.json      {"shapes": [{"label", "shape_type", "points", "group_id"}], "imagePath",
                         "imageHeight", "imageWidth"}

Shapes of one label and `group_id` are one object. `train/`, `val/` and `test/` are parts.
"""

import base64
import binascii
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spanets.formats.coco.faults import Fault, show_value
from spanets.formats.coco.json_file import read_json, sniff
from spanets.formats.coco.rle import encode_runs
from spanets.formats.dataset import Collector, Content, Dataset, list_classes, number_of
from spanets.formats.image_finder import ImageFinder
from spanets.formats.part_folders import describe_beside, part_folders
from spanets_runtime.errors import UserError
from spanets_runtime.images import MAX_PIXELS
from spanets_runtime.progress import progress

NAME = "labelme"
LOOKED_FOR = "labelme's .json files beside images"

CIRCLE_POINTS = 64
"""Corners of the polygon that stands for a circle."""

_IGNORED = ("__ignore__", "_background_")
"""Lines of labelme's labels.txt that are no classes of objects."""


def detect(root: Path) -> bool:
    """Whether a folder has this format."""
    if not root.is_dir():
        return False
    first = (next(_files(folder), None) for folder in part_folders(root).values())
    return any(path is not None and sniff(path) == "labelme" for path in first)


def read(root: Path) -> Dataset:
    """Reads a data set.

    Raises:
        UserError: a file is no JSON, has no shapes, or has points that are no numbers; or there are
            no images.
    """
    classes = list_classes(root, "labels.txt", "classes.txt")
    if classes is not None:
        classes = [name for name in classes if name not in _IGNORED]
    found, images = Collector(NAME, root, classes), ImageFinder(root)
    parts = part_folders(root)
    found.notes += describe_beside(root, parts.values(), {".json"})
    for part, folder in parts.items():
        files = list(_files(folder))
        for path in progress(files, f"read {part}"):
            if sniff(path) == "labelme":
                _add(found, images, part, path)
            else:
                found.count("JSON files without shapes, left out", path)
    return found.finish()


def _files(folder: Path) -> Iterator[Path]:
    return iter(sorted(folder.rglob("*.json")))


def _add(found: Collector, images: ImageFinder, part: str, path: Path) -> None:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise UserError(f"{path}: has no list of shapes")
    name = content.get("imagePath")
    name = name if isinstance(name, str) and name else f"{path.stem}.jpg"
    # The name is that of the file, or of one beside the JSON file if both were moved.
    last = PureWindowsPath(name).name
    file = images.find([name, last], path.parent)
    if file is None and content.get("imageData"):
        found.count("images are only inside their JSON (imageData); save them as files", path)
    sides = content.get("imageWidth"), content.get("imageHeight")
    size = sides if all(type(side) is int and side > 0 for side in sides) else None
    image = found.add_image(part, file, size, name=last)  # type: ignore[arg-type]
    if image is None:
        return
    groups: dict[Any, _Object] = {}
    for index, shape in enumerate(content["shapes"]):
        with found.faults.of(f"shapes[{index}] of {path.relative_to(found.root).as_posix()}"):
            _shape(found, image, shape, index, groups)
    for one in groups.values():
        more = {"flags": one.flags} if one.flags else {}
        if one.masks and len(one.masks) + len(one.polygons) > 1:
            found.count("objects of a group with masks, each mask taken as an object", path)
        if one.box is not None and len(one.polygons) == 1:
            found.add_object(part, image, one.label, one.box, **more)
        elif one.polygons:
            found.add_object(part, image, one.label, None, one.polygons, **more)
        for runs in one.masks:
            found.add_object(part, image, one.label, None, runs, **more)


@dataclass
class _Object:
    """An object: the shapes of one label and group."""

    label: str
    polygons: list[list[float]] = field(default_factory=list)
    masks: list[dict[str, Any]] = field(default_factory=list)
    box: list[float] | None = None
    flags: dict[str, bool] = field(default_factory=dict)


def _shape(
    found: Collector, image: Content, shape: Any, index: int, groups: dict[Any, _Object]
) -> None:
    """Adds a shape to its object."""
    if not isinstance(shape, dict) or not isinstance(label := shape.get("label"), str):
        raise Fault("no label", "has no label")
    kind = shape.get("shape_type") or "polygon"
    points = _points(shape.get("points"))
    number = shape.get("group_id")
    one = _Object(label)
    if kind == "rectangle" and len(points) >= 2:  # two corners, or all four since version 5.5
        (x1, y1), (x2, y2) = points.min(0).tolist(), points.max(0).tolist()
        one.box, one.polygons = [x1, y1, x2, y2], [[x1, y1, x2, y1, x2, y2, x1, y2]]
    elif kind == "circle" and len(points) == 2:
        found.count("circles, read as polygons", image["file_name"])
        one.polygons = [_circle(points)]
    elif kind == "mask" and len(points) == 2:
        one.masks = [_runs(shape.get("mask"), points, image)]
    elif kind == "polygon":
        one.polygons = [points.ravel().tolist()]
    else:
        found.count(f"shapes of kind {show_value(kind)}, left out", image["file_name"])
        return
    one.flags = {key: True for key, value in (shape.get("flags") or {}).items() if value is True}
    known = groups.setdefault((label, number) if number is not None else index, one)
    if known is not one:
        known.polygons += one.polygons
        known.masks += one.masks
        known.flags |= one.flags


def _points(points: Any) -> NDArray[np.float64]:
    if not isinstance(points, list) or any(not isinstance(p, list) or len(p) != 2 for p in points):
        raise Fault("points", f"has points {show_value(points)}, must be pairs of x and y")
    values = [[number_of(value, "a point") for value in point] for point in points]
    return np.array(values, np.float64).reshape(-1, 2)


def _circle(points: NDArray[np.float64]) -> list[float]:
    """Returns a polygon in place of a circle, given by its centre and a point on it."""
    radius = float(np.hypot(*(points[1] - points[0])))
    return ellipse(float(points[0, 0]), float(points[0, 1]), radius, radius)


def ellipse(x: float, y: float, across: float, down: float, degrees: float = 0) -> list[float]:
    """Returns a polygon of the same area as an ellipse with these radii, turned clockwise."""
    angles = np.arange(CIRCLE_POINTS) * (2 * math.pi / CIRCLE_POINTS)
    grown = math.sqrt(angles[1] / math.sin(angles[1]))  # corners lie outside, edges inside
    points = np.stack([grown * across * np.cos(angles), grown * down * np.sin(angles)], 1)
    return (turn(points, degrees) + np.array([x, y])).ravel().tolist()


def turn(points: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    """Turns points (N, 2) about 0, clockwise in an image."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return points @ np.array([[cosine, sine], [-sine, cosine]])


def _runs(text: Any, points: NDArray[np.float64], image: Content) -> dict[str, Any]:
    """Returns the run lengths of a mask: a PNG in base64, between two corners of the image."""
    try:
        content = base64.b64decode(text, validate=True)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as file:
            if file.width * file.height > MAX_PIXELS:
                raise ValueError(f"{file.width}x{file.height} pixels")
            small = np.asarray(file.convert("L")) > 0
    except (TypeError, ValueError, OSError, binascii.Error, Image.DecompressionBombError) as error:
        raise Fault("mask", f"has a mask that is no PNG in base64 ({error})") from None
    return place_mask(small, round(float(points[0, 0])), round(float(points[0, 1])), image)


def place_mask(small: NDArray[np.bool_], left: int, top: int, image: Content) -> dict[str, Any]:
    """Returns the run lengths of a mask (h, w) whose upper left pixel is at `left`, `top`.

    Raises:
        Fault: it lies beyond the image.
    """
    height, width = small.shape
    if left < 0 or top < 0 or left + width > image["width"] or top + height > image["height"]:
        raise Fault("mask place", "has a mask that lies beyond its image")
    whole = np.zeros((image["height"], image["width"]), bool)
    whole[top : top + height, left : left + width] = small
    return {"size": list(whole.shape), "counts": encode_runs(whole)}
