"""Label Studio's JSON export: a list of tasks, with shapes in percent of the image.

    export.json    [{"id", "data": {"image"}, "annotations": [{"result": [{"type", "value"}]}]}]
    images/a.jpg   the files, whose names are the last parts of the addresses in `data`

Its exports in COCO's and YOLO's format are read as those.
"""

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from spanets.formats.coco.faults import Fault, show_value
from spanets.formats.coco.json_file import read_json, sniff
from spanets.formats.coco.rle import encode_runs
from spanets.formats.dataset import (
    Collector,
    Content,
    Dataset,
    list_classes,
    number_of,
    whole_number,
)
from spanets.formats.image_finder import ImageFinder
from spanets.formats.labelme import ellipse, turn
from spanets_runtime.images import MAX_PIXELS
from spanets_runtime.listing import is_image_name

NAME = "Label Studio"
LOOKED_FOR = "a JSON export of Label Studio"

# Label Studio puts eight characters and a dash before the name of an uploaded file.
_PREFIX = re.compile(r"[0-9a-f]{8}-")


def detect(path: Path) -> bool:
    """Whether a folder, or a JSON file, has this format."""
    return _find(path) is not None


def read(path: Path) -> Dataset:
    """Reads a data set; of several annotations of a task the first counts.

    Raises:
        UserError: the file is not JSON, a shape is damaged, or there are no images.
    """
    file = _find(path)
    assert file is not None
    root, tasks = file.parent, read_json(file)
    found = Collector(NAME, root, list_classes(root, "classes.txt"))
    images = ImageFinder(root)
    for index, task in enumerate(tasks):
        with found.faults.of(f"tasks[{index}]"):
            _add(found, images, task)
    return found.finish()


def _find(path: Path) -> Path | None:
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    return next((f for f in files if f.suffix == ".json" and sniff(f) == "label_studio"), None)


def _add(found: Collector, images: ImageFinder, task: Any) -> None:
    if not isinstance(task, dict):
        raise Fault("no object", "is no object with keys")
    drawn = task.get("annotations", task.get("completions"))
    if not isinstance(drawn, list) or not isinstance(task.get("data"), dict):
        raise Fault("keys", "has no data or no annotations; export as JSON, not as JSON-MIN")
    name = _name_image(task["data"])
    done = [a for a in drawn if isinstance(a, dict) and not a.get("was_cancelled")]
    if not done:
        found.count("tasks without an annotation, left out", name)
        return
    if len(done) > 1:
        found.count("tasks with several annotations, of which the first counts", name)
    results = [r for r in done[0].get("result") or [] if isinstance(r, dict)]
    sides: list[Any] = [(r.get("original_width"), r.get("original_height")) for r in results]
    sizes = [size for size in sides if all(type(side) is int and side > 0 for side in size)]
    folders = (found.root / "images", found.root)
    file = images.find([name, _PREFIX.sub("", name, count=1)], *folders)
    number = task.get("id") if type(task.get("id")) is int else None
    image = found.add_image("train", file, sizes[0] if sizes else None, number, name)
    if image is None:
        return
    for result in results:
        _shape(found, image, result)


def _name_image(data: dict[str, Any]) -> str:
    """Returns the name of a task's image file from its address."""
    texts = [value for key, value in data.items() if isinstance(value, str)]
    for text in (data.get("image"), *texts):
        if not isinstance(text, str):
            continue
        parts = urlsplit(text)
        local = parse_qs(parts.query).get("d")  # /data/local-files/?d=photos/a.jpg
        name = unquote(local[0] if local else parts.path)
        if is_image_name(name):
            return name if local else re.split(r"[/\\]", name)[-1]
    raise Fault("no image", f"has no image in its data: {show_value(data)}")


def _shape(found: Collector, image: Content, result: dict[str, Any]) -> None:
    kind, value = result.get("type"), result.get("value")
    value = value if isinstance(value, dict) else {}
    labels = value.get(str(kind))
    if not isinstance(labels, list) or not labels or not isinstance(labels[0], str):
        if kind not in ("choices", "textarea", "rating"):
            found.count(
                f"results of kind {show_value(kind)} without a label, left out", image["id"]
            )
        return
    if result.get("image_rotation"):
        found.count("shapes on images turned in the tool, left out", image["file_name"])
        return
    if len(labels) > 1:
        found.count("objects with several labels, of which the first counts", image["file_name"])
    box, shape = None, None
    if kind == "rectanglelabels":
        box, shape = _rectangle(found, image, value)
    elif kind == "polygonlabels":
        points = np.array([[number_of(v, "points") for v in p] for p in value.get("points") or []])
        shape = [_pixels(points.reshape(-1, 2), image).ravel().tolist()]
    elif kind == "ellipselabels":
        found.count("ellipses, read as polygons", image["file_name"])
        x, y, across, down = _numbers(value, image, "x", "y", "radiusX", "radiusY")
        shape = [ellipse(x, y, across, down, number_of(value.get("rotation") or 0, "rotation"))]
    elif kind == "brushlabels":
        shape = _runs(value.get("rle"), image)
    else:
        found.count(f"results of kind {show_value(kind)}, left out", image["file_name"])
        return
    found.add_object("train", image, labels[0], box, shape)


def _rectangle(found: Collector, image: Content, value: dict[str, Any]) -> tuple[Any, Any]:
    """Returns the box, or the polygon of a rectangle turned about its upper left corner."""
    x, y, width, height = _numbers(value, image, "x", "y", "width", "height")
    degrees = number_of(value.get("rotation") or 0, "rotation")
    if not degrees:
        return (x, y, x + width, y + height), None
    found.count("turned boxes, read as polygons of four corners", image["file_name"])
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]])
    return None, [(turn(corners, degrees) + np.array([x, y])).ravel().tolist()]


def _numbers(value: dict[str, Any], image: Content, *keys: str) -> list[float]:
    """Returns numbers in pixels: x, y, and two lengths along them."""
    percent = np.array([number_of(value.get(key), key) for key in keys]).reshape(2, 2)
    return _pixels(percent, image).ravel().tolist()


def _pixels(percent: NDArray[np.float64], image: Content) -> NDArray[np.float64]:
    return percent * [image["width"] / 100, image["height"] / 100]


def _runs(rle: Any, image: Content) -> dict[str, Any]:
    """Returns COCO's run lengths of a brush; its pixels are RGBA, and opaque where it painted."""
    height, width = image["height"], image["width"]
    if height * width > MAX_PIXELS:
        raise Fault("size", f"is {width}x{height} pixels, of at most {MAX_PIXELS}")
    if not isinstance(rle, list):
        raise Fault("rle", "has a brush without rle")
    data = bytes(min(whole_number(byte, "rle"), 255) for byte in rle)
    values = decode_brush(data, 4 * height * width)
    mask = values.reshape(height, width, 4)[:, :, 3] > 0
    return {"size": [height, width], "counts": encode_runs(mask)}


def decode_brush(data: bytes, count: int) -> NDArray[np.uint8]:
    """Decodes a brush: bits of runs and of single values, each of a length by four word sizes.

    Args:
        data: The packed bits.
        count: Number of values that must come out.

    Raises:
        Fault: they are cut short, or of another number.
    """
    bits = _Bits(data)
    found, word = bits.take(32), bits.take(5) + 1
    sizes = [bits.take(4) + 1 for _ in range(4)]
    if found != count or word > 8:
        raise Fault("rle", f"has a brush of {found} values, must be {count}")
    out, place = np.zeros(count, np.uint8), 0
    while place < count:
        is_run = bits.take(1)
        end = place + 1 + bits.take(sizes[bits.take(2)])
        if end > count:
            raise Fault("rle", "has a brush that is longer than its image")
        if is_run:
            out[place:end] = bits.take(word)
        else:
            out[place:end] = [bits.take(word) for _ in range(end - place)]
        place = end
    return out


class _Bits:
    """Reads whole numbers from bits, the highest first."""

    def __init__(self, data: bytes) -> None:
        self.text = (np.unpackbits(np.frombuffer(data, np.uint8)) + ord("0")).tobytes().decode()
        self.place = 0

    def take(self, size: int) -> int:
        """Returns the next number of `size` bits."""
        end = self.place + size
        if end > len(self.text):
            raise Fault("rle", "has a brush that is cut short")
        value = int(self.text[self.place : end], 2)
        self.place = end
        return value
