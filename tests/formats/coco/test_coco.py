"""COCO's format: what is read, what is left out with a word, and what is refused with its place."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as peer

from spanets.formats.coco.filling import fill
from spanets.formats.coco.objects import (
    Annotation,
    CocoData,
    check_files,
    map_classes,
    select_for_training,
    to_coco,
)
from spanets.formats.coco.reader import read_coco, read_listing
from spanets.formats.coco.rle import encode_runs
from spanets_runtime.errors import UserError

WIDTH, HEIGHT = 20, 12
TRIANGLE = [2.0, 2.0, 12.0, 2.0, 2.0, 10.0]


def disc() -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (x - 8) ** 2 + (y - 6) ** 2 < 16


def content(**changes: Any) -> dict[str, Any]:
    """Two images, two classes, and one annotation of each form of mask."""
    runs = {"size": [HEIGHT, WIDTH], "counts": encode_runs(disc())}
    text = peer.encode(np.asfortranarray(disc(), np.uint8))["counts"].decode()
    # Copies, because tests change what they are given.
    shapes = [[list(TRIANGLE)], dict(runs), {**runs, "counts": text}]
    annotations = [
        {
            "id": 100 + i,
            "image_id": 5,
            "category_id": 30 if i else 10,
            "bbox": [2, 2, 10, 8],
            "area": 40.5,
            "iscrowd": int(i == 2),
            "segmentation": shape,
        }
        for i, shape in enumerate(shapes)
    ]
    base = {
        "images": [
            {"id": number, "width": WIDTH, "height": HEIGHT, "file_name": f"deep/{number}.png"}
            for number in (5, 6)
        ],
        "categories": [{"id": 10, "name": "cat"}, {"id": 30, "name": "dog"}],
        "annotations": annotations,
    }
    return {**base, **changes}


def mask_of(annotation: Annotation, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    size = (height, width)
    return fill(annotation.segmentation, size, np.eye(2, 3), size)


@pytest.fixture
def read(tmp_path) -> Callable[[Any], CocoData]:
    def read(value: Any) -> CocoData:
        path = tmp_path / "a.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return read_coco(path, tmp_path / "images")

    return read


@pytest.fixture
def refused(read) -> Callable[[Any], str]:
    def refused(value: Any) -> str:
        with pytest.raises(UserError) as caught:
            read(value)
        line = str(caught.value)
        assert "\n" not in line
        assert "a.json: " in line
        return line.split("a.json: ")[1]

    return refused


def changed(section: str, index: int = 0, **values: Any) -> dict[str, Any]:
    """The content with keys of one entry changed; `...` takes a key away."""
    data = content()
    entry = {**data[section][index], **values}
    data[section][index] = {key: value for key, value in entry.items() if value is not ...}
    return data


# ---- what is read


def test_images_classes_and_objects(read, tmp_path):
    data = read(content())
    assert data.classes == ["cat", "dog"]
    assert data.category_ids == [10, 30]
    assert data.notes == ()
    first, second = data.images
    assert (first.id, first.width, first.height) == (5, WIDTH, HEIGHT)
    assert first.path == tmp_path / "images/deep/5.png"
    assert [(a.id, a.label, a.crowd) for a in first.annotations] == [
        (100, 1, False),
        (101, 2, False),
        (102, 2, True),
    ]
    assert first.annotations[0].box == (2, 2, 12, 10)
    assert first.annotations[0].area == 40.5
    assert second.annotations == ()


def test_masks_are_those_of_pycocotools(read):
    polygon, runs, text = (mask_of(a) for a in read(content()).images[0].annotations)
    assert np.array_equal(runs, disc())
    assert np.array_equal(text, disc())
    expected = peer.merge(peer.frPyObjects([TRIANGLE], HEIGHT, WIDTH))
    assert peer.encode(np.asfortranarray(polygon)) == expected


def test_polygons_are_united_and_cut_at_the_border(read):
    shapes = [[0, 0, 4, 0, 4, 4, 0, 4], [16, 8, 30, 8, 30, 20, 16, 20]]
    annotation = read(changed("annotations", segmentation=shapes)).images[0].annotations[0]
    mask = mask_of(annotation)
    expected = np.zeros((HEIGHT, WIDTH))
    expected[:4, :4] = expected[8:, 16:] = 1
    assert np.array_equal(mask, expected)


def test_areas_that_are_not_given(read):
    areas = [
        read(changed("annotations", i, area=...)).images[0].annotations[i].area for i in (0, 1)
    ]
    polygon = mask_of(read(content()).images[0].annotations[0])
    assert areas == [polygon.sum(), disc().sum()]
    bare = read(changed("annotations", area=..., segmentation=...)).images[0].annotations[0]
    assert (bare.area, bare.crowd, bare.segmentation) == (80, False, None)


def test_back_into_cocos_format(read):
    written = to_coco(read(content()))
    assert written["categories"] == content()["categories"]
    for found, given in zip(written["annotations"], content()["annotations"], strict=True):
        assert {**found, "id": given["id"]} == given
    assert [a["id"] for a in written["annotations"]] == [1, 2, 3]


def test_classes_are_mapped_by_name(read):
    data = map_classes(read(content()), ["dog", "cow", "cat"])
    assert [a.label for a in data.images[0].annotations] == [3, 1, 1]
    assert data.category_ids == [30, 31, 10]  # a cow, of which the file knows nothing
    said = r"a\.json: has objects of class 'cat', which the model does not know; it has dog$"
    with pytest.raises(UserError, match=said):
        map_classes(read(content()), ["dog"])
    one = content(annotations=content()["annotations"][1:])
    assert map_classes(read(one), ["dog"]).images[0].annotations[0].label == 1


# ---- what is left out


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ([2, 2, 10, 8], (2, 2, 12, 10)),
        ([-0.4, 2, 10, 10.4], (-0.4, 2, 9.6, 12.4)),  # a rounding
        ([-5, -5, 10, 40], (0, 0, 5, 12)),
        ([18, 2, 100, 4], (18, 2, 20, 6)),
    ],
)
def test_boxes_within_the_image(read, box, kept):
    data = read(changed("annotations", bbox=box))
    assert data.images[0].annotations[0].box == pytest.approx(kept)
    clipped = box[0] in (-5, 18)
    assert ("clipped 1 that reach beyond their image (id 100)" in str(data.notes)) == clipped


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"bbox": [2, 2, 0, 8]}, "1 with an empty box (id 100)"),
        ({"bbox": [2, 2, 3, -8]}, "1 with an empty box (id 100)"),
        ({"bbox": [20, 2, 5, 8]}, "1 with a box outside the image (id 100)"),
        ({"bbox": [2, -8, 5, 8]}, "1 with a box outside the image (id 100)"),
        ({"image_id": 77}, "1 of an image that is not listed (id 100)"),
    ],
)
def test_what_is_skipped(read, changes, note):
    data = read(changed("annotations", **changes))
    assert [a.id for a in data.images[0].annotations] == [101, 102]
    (line,) = data.notes
    assert line.endswith(f"a.json: of the annotations, skipped {note}")


def test_everything_skipped_is_one_line(read):
    data = content()
    boxes = [[0, 0, 0, 0], [0, 0, 0, 1], [-9, 0, 30, 5]]
    for annotation, box in zip(data["annotations"], boxes, strict=True):
        annotation["bbox"] = box
    (line,) = read(data).notes
    assert line.endswith(
        "skipped 2 with an empty box (id 100, …), clipped 1 that reach beyond their image (id 102)"
    )


def place_images(tmp_path: Path, *numbers: int) -> None:
    (tmp_path / "images/deep").mkdir(parents=True)
    for number in numbers:
        (tmp_path / f"images/deep/{number}.png").write_bytes(b"")


def test_training_has_no_crowds_and_no_empty_images(read, tmp_path):
    place_images(tmp_path, 5, 6)
    data = read(content())
    chosen = select_for_training(data, keep_empty=False)
    assert [(i.id, [a.id for a in i.annotations]) for i in chosen.images] == [(5, [100, 101])]
    assert chosen.notes == (
        "images without objects, left out of training: 1",
        "crowd regions, left out of training: 1",
    )
    kept = select_for_training(data, keep_empty=True)
    assert [image.id for image in kept.images] == [5, 6]
    assert kept.notes == ("crowd regions, left out of training: 1",)
    check_files(data)


def test_missing_images(read, tmp_path):
    place_images(tmp_path, 6)
    data = read(content())
    missing = re.escape(f"{tmp_path}/images/deep/5.png: no such image")
    with pytest.raises(UserError, match=rf"^{missing}; add what is missing"):
        check_files(data)
    with pytest.raises(UserError, match=rf"no image with objects to train on \({missing}; images"):
        select_for_training(data, keep_empty=False)
    (note,) = select_for_training(data, keep_empty=True).notes
    assert re.fullmatch(f"{missing}; training goes on without", note)
    (tmp_path / "images/deep/6.png").unlink()
    said = "no image with objects to train on .*no such image and 1 more.$"  # nor does it go on
    with pytest.raises(UserError, match=said):
        select_for_training(data, keep_empty=True)
    with pytest.raises(UserError, match="no such image and 1 more; add"):
        check_files(data)


NOTHING = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}
LINE, BOW_TIE = [1.0, 1, 3, 3, 9, 9], [2.0, 2, 10, 8, 10, 2, 2, 8]


@pytest.mark.parametrize(
    ("shapes", "kept"),
    [
        ([[1, 2, 9, 8], TRIANGLE], [TRIANGLE]),  # two points, which COCO's tools take for a box
        ([TRIANGLE, []], [TRIANGLE]),
        ([LINE, TRIANGLE, [5, 5]], [TRIANGLE]),
        ([[4, 4] * 5, BOW_TIE], [BOW_TIE]),
        ([[1, 2, 9, 8]], NOTHING),
        ([[]], NOTHING),
        ([LINE, [0.1, 0.1, 0.2, 0.2, 0.3, 0.3]], NOTHING),
    ],
)
def test_polygons_without_an_area(read, shapes, kept):
    data = read(changed("annotations", segmentation=shapes))
    found = data.images[0].annotations[0]
    assert (found.segmentation, found.box, found.area) == (kept, (2, 2, 12, 10), 40.5)
    assert data.notes[0].endswith(
        "a.json: of the annotations, left out polygons without an area of 1 (id 100)"
    )
    assert bool(mask_of(found).any()) == (kept is not NOTHING)


def test_their_objects_are_measured_as_pycocotools_measures_them(read):
    """As a mask without a pixel: what COCO's tools make of three points on a line."""
    found = read(changed("annotations", segmentation=[LINE])).images[0].annotations[0]
    theirs = peer.merge(peer.frPyObjects([LINE], HEIGHT, WIDTH))
    assert peer.area(theirs) == mask_of(found).sum() == 0
    unmeasured = read(changed("annotations", segmentation=[LINE], area=...))
    assert unmeasured.images[0].annotations[0].area == 0


def test_what_stands_beside_run_lengths_is_left_out(read):
    runs = {"size": [HEIGHT, WIDTH], "counts": encode_runs(disc())}
    data = read(changed("annotations", segmentation={**runs, "more": [1]}))
    assert data.images[0].annotations[0].segmentation == runs


def test_a_file_of_two_ids(read, tmp_path):
    place_images(tmp_path, 5)
    (tmp_path / "images/deep/6.png").symlink_to("5.png")
    said = "1 image file is listed under several ids (5.png, 6.png: 5, 6)"
    (note,) = read(content()).notes
    assert f"a.json: {said}" in note
    one = content()
    one["images"] += [{**one["images"][0], "id": 7}, {**one["images"][0], "id": -8}]
    (note,) = read(one).notes
    assert "1 image file is listed under several ids (5.png, 6.png: 5, 6, 7, -8)" in note
    (tmp_path / "images/deep/6.png").unlink()
    assert "(5.png: 5, 7, -8)" in read(one).notes[0]


@pytest.mark.parametrize("number", [-1, 0, -(2**40), 2**40, 2**53])
def test_ids_of_any_sign(read, number):
    data = changed("images", id=number)
    for annotation in data["annotations"]:
        annotation |= {"image_id": number, "id": number + annotation["id"] - 2**50}
    found = read(data)
    assert found.images[0].id == number
    assert len(found.images[0].annotations) == 3


def test_names_of_files_are_found(read, tmp_path):
    place_images(tmp_path, 5, 6)
    data = content()
    for image in data["images"]:
        image["file_name"] = image["file_name"].replace("/", "\\")
    found = read(data)
    assert [image.path.name for image in found.images] == ["5.png", "6.png"]
    assert found.images[0].path.is_file()
    (note,) = found.notes
    assert "a.json: 2 file names are not quite those of the files (backslashes: 2)" in note


def test_a_listing_needs_no_annotations(tmp_path):
    path = tmp_path / "a.json"
    data = content()
    del data["annotations"]
    path.write_text(json.dumps(data))
    listing = read_listing(path)
    assert [image.path.as_posix() for image in listing.images] == ["deep/5.png", "deep/6.png"]
    assert listing.category_ids == [10, 30]


# ---- what is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [\n{"id": 1,}]}', "is not JSON (line 2, column "),
        ("", "is not JSON (line 1, column 1: "),
        ("[" * 100_000, "is not JSON ("),
        ("[1]", "the file holds no keys; it must have images and annotations"),
        ("{}", "the file has no list of images"),
        ('{"images": [], "images": [1]}', "the key 'images' stands twice in one object"),
        ('{"images": [{"id": 1, "id": 2}]}', "the key 'id' stands twice in one object"),
        ('{"images": [1e400]' + "}" * 2000, "is not JSON (line 1, column "),
        ('{"images": [' + "9" * 5000 + "]}", "is not JSON (Exceeds the limit (4300 digits)"),
        ('{"images": {}}', "the file has no list of images"),
    ],
)
def test_no_annotation_file(refused, text, message):
    assert refused(text).startswith(message)


def test_no_text(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(UserError, match=r"a\.json: cannot be read \(No such file"):
        read_coco(path, tmp_path)
    path.write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(UserError, match=r"a\.json: is not JSON"):
        read_coco(path, tmp_path)
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory"):
        read_coco(tmp_path, tmp_path)


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(UserError, match=r"a\.json: cannot be read \(it is a pipe, no file\)"):
        read_coco(tmp_path / "a.json", tmp_path)


@pytest.mark.parametrize("key", ["bbox", "segmentation", "iscrowd", "area", "id", "category_id"])
def test_values_as_deep_as_json_goes(refused, key):
    """Which `repr` would not return from."""
    depth, text = 900, json.dumps(changed("annotations", **{key: "HERE"}))
    line = refused(text.replace('"HERE"', "[" * depth + "]" * depth))
    assert line.startswith("annotations[0] has ")
    assert len(line) < 300


RUNS = {"size": [HEIGHT, WIDTH], "counts": [240]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (content(categories=[]), "the file has an empty list of categories"),
        (content(annotations=[7]), "annotations[0] is no object with keys"),
        (changed("images", 1, width=...), "images[1] has no width"),
        (changed("images", 1, width="20"), "images[1] has the width '20', must be a whole number"),
        (changed("images", id=True), "images[0] has the id True, must be a whole number"),
        (changed("images", id=2**70), f"images[0] has the id {2**70}, must be a whole number"),
        (changed("images", height=0), "images[0] is 20x0 pixels"),
        (changed("images", height=10**8), "images[0] is 20x100000000 pixels"),
        (changed("images", 1, id=5), "images[1] has the same id as [0]: 5"),
        (changed("categories", 1, id=10), "categories[1] has the same id as [0]: 10"),
        (changed("categories", name="\ud800"), "has the name '\\ud800', which is no text"),
        (changed("categories", name="a" * 1001), "has a name of 1001 bytes, of at most 1000"),
        (changed("categories", 1, name="cat"), "categories[1] has the same name as [0]: 'cat'"),
        (changed("annotations", 1, id=100), "annotations[1] has the same id as [0]: 100"),
        (changed("annotations", category_id=4), "has the category_id 4, which is not listed"),
        (changed("annotations", category_id=...), "annotations[0] has no category_id"),
        (changed("annotations", bbox=...), "annotations[0] has no bbox"),
        (changed("annotations", bbox=[1, 2, 3]), "has the bbox [1, 2, 3], must be x, y, width"),
        (changed("annotations", bbox=[1, 2, 3, float("nan")]), "has the bbox [1, 2, 3, nan]"),
        (changed("annotations", bbox=[1, 2, 3, 10**400]), "has the bbox [1, 2, 3, 1000"),
        (changed("annotations", area=-1), "has the area -1, must be a number of 0 or more"),
        (changed("annotations", iscrowd="no"), "has iscrowd 'no', must be 0 or 1"),
        (changed("annotations", segmentation="x"), "a segmentation that is no polygons"),
        (changed("annotations", segmentation=[3.0] * 6), "that is no list of polygons"),
        (changed("annotations", segmentation=[[1] * 7]), "has a polygon of 7 numbers"),
        (changed("annotations", segmentation=[[1e9] * 6]), "a polygon far outside its image"),
        (
            changed("annotations", segmentation=[[0, 0, 40, 24, -20, -12] * 999]),
            "has polygons whose outlines are longer than any object's",
        ),
        (
            changed("annotations", segmentation={**RUNS, "size": [WIDTH, HEIGHT]}),
            "has a mask of size [20, 12], its image [12, 20]",
        ),
        (changed("annotations", segmentation={**RUNS, "counts": [241]}), "has a damaged mask: run"),
        (changed("annotations", segmentation={**RUNS, "counts": "z"}), "has a damaged mask: run"),
        (changed("annotations", segmentation={**RUNS, "counts": 9}), "has a mask without counts"),
    ],
)
def test_what_contradicts_itself(refused, change, message):
    line = refused(change)
    assert message in line
    assert re.match(r"the file|(images|categories|annotations)\[\d\] ", line)


def test_all_faults_are_in_one_line(refused):
    """Each kind once, with its count; what follows from another fault is none."""
    data = content()
    data["categories"].append({"id": 77, "name": 5})
    data["images"].append({"id": 9, "width": 20, "height": 12, "file_name": "../a.png"})
    first, second, third = data["annotations"]
    data["annotations"] = [
        {**first, "bbox": [1, 2, 3]},
        {**second, "bbox": [1, 2, 3, 4, 5]},
        {**third, "image_id": 9},
        {**third, "id": 7, "category_id": 77},
        {**third, "id": 8, "category_id": 78},
        {**third, "id": 8, "area": -1},
        {**first, "id": 10, "segmentation": [[1] * 7]},
    ]
    assert refused(data).split("; ") == [
        "categories[2] has the name 5, must be a text",
        "images[2] has the file_name '../a.png', which leaves the folder",
        "annotations[0] has the bbox [1, 2, 3], must be x, y, width and height "
        "(and 1 more like it)",
        "annotations[4] has the category_id 78, which is not listed",
        "annotations[5] has the area -1, must be a number of 0 or more",
        "annotations[6] has a polygon of 7 numbers, must be pairs of x and y",
        "7 faults in all",
    ]


def test_a_line_has_an_end(refused):
    data = content()
    for i, annotation in enumerate(data["annotations"] * 5):
        data["annotations"].append({**annotation, "id": 1000 + i})
    for i, entry in enumerate(data["annotations"]):
        entry[list(entry)[i % len(entry)]] = {"a" * 10**4: ["b" * 10**4] * 9}
    line = refused(data)
    assert len(line) < 3000
    assert line.endswith("faults in all")


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x.png", "a/../../x.png", "C:\\x.png", "..\\x.png", "\\\\host\\x"]
)
def test_file_names_stay_in_the_folder(refused, name):
    line = refused(changed("images", file_name=name))
    assert line == f"images[0] has the file_name {name!r}, which leaves the folder"


@pytest.mark.parametrize("name", ["", ".", "a\0b"])
def test_file_names_that_name_nothing(refused, name):
    assert "which names no file" in refused(changed("images", file_name=name))


JUNK = [None, -1, float("inf"), 10**400, "x", [[]], {}]


def spots(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of nested values, of lists the first three."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value[:3])
    inner = [(value, key, child) for key, child in pairs]
    found = [(container, key) for container, key, _ in inner]
    for _, _, child in inner:
        found += spots(child) if isinstance(child, dict | list) else []
    return found


def test_junk_anywhere_is_read_or_refused(read):
    """Whatever stands in the place of whatever, no other error comes, and masks can be made."""
    outcomes = {"read": 0, "refused": 0}
    for place in range(len(spots(content()))):
        for junk in JUNK:
            data = content()
            container, key = spots(data)[place]
            container[key] = junk
            try:
                images = read(data).images
            except UserError:
                outcomes["refused"] += 1
                continue
            outcomes["read"] += 1
            for image in images:
                for annotation in image.annotations:
                    if annotation.segmentation is not None:
                        mask_of(annotation, image.height, image.width)
    assert min(outcomes.values()) > 10
