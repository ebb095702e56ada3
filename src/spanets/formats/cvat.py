"""CVAT's XML for images and for videos (version 1.1): one file for all, beside `images/`.

annotations.xml         <annotations><image id name width height subset> with <box>, <polygon>,
images/a.jpg            <mask>, <ellipse>; the labels of the task name the classes

annotations.xml         <annotations><track id label> with <box frame outside keyframe>, ...
images/frame_000012.png the frames, if images were exported

Between the key frames of a track, CVAT writes what it interpolated. Nothing is interpolated here.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from spanets.formats.coco.faults import Fault, show_value
from spanets.formats.dataset import Collector, Content, Dataset, number_of, whole_number
from spanets.formats.image_finder import ImageFinder
from spanets.formats.labelme import ellipse, place_mask, turn
from spanets.formats.part_folders import name_part
from spanets.formats.xml_file import read_xml, root_tag
from spanets_runtime.listing import list_images

NAME = "CVAT"
LOOKED_FOR = "annotations.xml of CVAT"

_SHAPES = ("box", "polygon", "mask", "ellipse")


def detect(path: Path) -> bool:
    """Whether a folder, or an XML file, has this format."""
    return _find(path) is not None


def read(path: Path) -> Dataset:
    """Reads a data set.

    Raises:
        UserError: the file is no XML or has a DOCTYPE, has numbers that are none, or there are no
            images.
    """
    file = _find(path)
    assert file is not None
    tree, root = read_xml(file), file.parent
    labels = [n.text.strip() for n in tree.iterfind("meta//labels/label/name") if n.text]
    found, images = Collector(NAME, root, list(dict.fromkeys(labels)) or None), ImageFinder(root)
    if tree.find("image") is None and tree.find("track") is not None:
        _add_frames(found, tree)
    else:
        for track in tree.iterfind("track"):
            found.count("tracks beside images, left out", f"track {track.get('id')}")
    for entry in tree.iterfind("image"):
        name = entry.get("name") or ""
        with found.faults.of(f"image[{entry.get('id')}]"):
            _add(found, images, entry, name)
    return found.finish()


def _find(path: Path) -> Path | None:
    file = path / "annotations.xml" if path.is_dir() else path
    is_xml = file.suffix == ".xml" and file.is_file()
    return file if is_xml and root_tag(file) == "annotations" else None


def _add(found: Collector, images: ImageFinder, entry: ElementTree.Element, name: str) -> None:
    subset, folder = entry.get("subset") or "", found.root / "images"
    part = name_part(subset)
    file = images.find([name], folder, folder / subset, found.root) if name else None
    width, height = (whole_number(entry.get(key), key) for key in ("width", "height"))
    number = whole_number(entry.get("id"), "the id")
    image = found.add_image(part, file, (width, height), number, name)
    if image is None:
        return
    for index, shape in enumerate(entry):
        if shape.tag not in _SHAPES:
            found.count(f"shapes of kind {show_value(shape.tag)}, left out", name)
            continue
        with found.faults.of(f"{shape.tag}[{index}] of image {number}"):
            _shape(found, part, image, shape)


def _size_of(width: str | None, height: str | None) -> tuple[int, int] | None:
    if width is None or height is None:
        return None
    return whole_number(width, "original_size"), whole_number(height, "original_size")


def _add_frames(found: Collector, tree: ElementTree.Element) -> None:
    """Adds the frames of a video: those with objects, and those whose images are there."""
    files, part, size = _frame_files(found), "", None
    with found.faults.of("meta"):
        part = name_part((tree.findtext("meta//subset") or "").strip())
        sides = (tree.findtext(f"meta//original_size/{key}") for key in ("width", "height"))
        size = _size_of(*sides)
    found.faults.check()
    shapes: dict[int, list[tuple[str, ElementTree.Element]]] = {number: [] for number in files}
    for track in tree.iterfind("track"):
        name = f"track {track.get('id')}"
        for shape in track:
            with found.faults.of(f"{shape.tag} of {name}"):
                _take(found, track, shape, shapes)
    for number in sorted(shapes):
        image = found.add_image(part, files.get(number), size, number, f"frame_{number:06d}.png")
        if image is None:
            continue
        for name, shape in shapes[number]:
            with found.faults.of(f"{shape.tag} of {name} in frame {number}"):
                _shape(found, part, image, shape, {"track_id": name.removeprefix("track ")})


def _take(
    found: Collector,
    track: ElementTree.Element,
    shape: ElementTree.Element,
    shapes: dict[int, list[tuple[str, ElementTree.Element]]],
) -> None:
    """Adds a shape of a track to those of its frame."""
    name = f"track {track.get('id')}"
    if shape.tag not in _SHAPES:
        found.count(f"shapes of kind {show_value(shape.tag)}, left out", name)
        return
    if shape.get("outside") == "1":
        found.count("shapes of tracks that are outside of their frame, left out", name)
        return
    if shape.get("keyframe") == "0":
        found.count("shapes between key frames, as CVAT interpolated them", name)
    shape.set("label", track.get("label") or "")
    shapes.setdefault(whole_number(shape.get("frame"), "the frame"), []).append((name, shape))


def _frame_files(found: Collector) -> dict[int, Path]:
    """Returns the image of each frame by the number in its name, such as frame_000012.png."""
    root, files = found.root, dict[int, Path]()
    for path in list_images(root / "images" if os.path.isdir(root / "images") else root).images:
        name = re.fullmatch(r"frame_([0-9]{1,15})", path.stem)
        if name is None or int(name[1]) in files:
            found.count("images that are no frame of their own, left out", path)
        else:
            files[int(name[1])] = path
    return files


def _shape(
    found: Collector,
    part: str,
    image: Content,
    shape: ElementTree.Element,
    own: Mapping[str, str] | None = None,
) -> None:
    """Adds a shape with its attributes, and `own` ones, to an image."""
    label = (shape.get("label") or "").strip()
    if not label:
        raise Fault("no label", "has no label")
    more: dict[str, Any] = {}
    attributes = {a.get("name", ""): a.text or "" for a in shape.iterfind("attribute")}
    attributes |= own or {}
    if shape.get("occluded") == "1":
        attributes["occluded"] = "1"
    if attributes:
        more["attributes"] = attributes
    if shape.tag == "box":
        x1, y1, x2, y2 = (number_of(shape.get(key), key) for key in ("xtl", "ytl", "xbr", "ybr"))
        degrees = number_of(shape.get("rotation") or 0, "rotation")
        if not degrees:
            found.add_object(part, image, label, (x1, y1, x2, y2), **more)
            return
        found.count("turned boxes, read as polygons of four corners", image["file_name"])
        w, h = (x2 - x1) / 2, (y2 - y1) / 2
        corners = turn(np.array([[-w, -h], [w, -h], [w, h], [-w, h]]), degrees)
        polygon = (corners + np.array([x1 + w, y1 + h])).ravel().tolist()
        found.add_object(part, image, label, None, [polygon], **more)
    elif shape.tag == "polygon":
        polygon = [
            number_of(value, "points")
            for point in (shape.get("points") or "").split(";")
            for value in point.split(",")
        ]
        found.add_object(part, image, label, None, [polygon], **more)
    elif shape.tag == "ellipse":
        found.count("ellipses, read as polygons", image["file_name"])
        keys = ("cx", "cy", "rx", "ry")
        x, y, across, down = (number_of(shape.get(key), key) for key in keys)
        degrees = number_of(shape.get("rotation") or 0, "rotation")
        outline = ellipse(x, y, across, down, degrees)
        found.add_object(part, image, label, None, [outline], **more)
    else:
        found.add_object(part, image, label, None, _runs(shape, image), **more)


def _runs(shape: ElementTree.Element, image: Content) -> dict[str, Any]:
    """Returns COCO's run lengths of a mask, which CVAT writes row by row within a box."""
    keys = ("left", "top", "width", "height")
    left, top, width, height = (whole_number(shape.get(key), key) for key in keys)
    lengths = [whole_number(text, "rle") for text in (shape.get("rle") or "").split(",")]
    if sum(lengths) != width * height:
        raise Fault("rle", f"has run lengths of {sum(lengths)}, not {width}x{height} pixels")
    small = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(height, width)
    return place_mask(small, left, top, image)
