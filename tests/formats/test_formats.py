"""Each format is read as its tool means it, and goes round through COCO and back."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from annotated_sets import (
    CLASSES,
    IMAGES,
    MASKS,
    NAMES,
    OBJECTS,
    cvat_video,
    darknet,
    dsb2018,
    instances,
    livecell,
    mask_numbers,
)

from spanets.data.run_data import RunData
from spanets.data.split_list import read_split, write_split
from spanets.formats.coco.rle import decode_runs
from spanets.formats.reading import (
    check_part,
    convert,
    find_formats,
    read_dataset,
    read_objects,
    with_validation,
)
from spanets_runtime.errors import UserError

# The makers write six decimals of a share, and two of a pixel, as the tools do.
TOLERANCE = 1e-4

FOUND = {
    "yolo_polygons": "yolo",
    "darknet": "yolo",
    "roboflow": "coco",
    "livecell": "coco",
    "label_studio": "labelstudio",
}
BOXES = ("yolo", "darknet", "voc")
"""Formats without polygons."""


def objects_of(dataset):
    """Class, box and polygon of the objects by part and image, with names as IMAGES has them."""
    found = {}
    for name, part in dataset.parts.items():
        data = check_part(part)
        for image in data.images:
            rows = [
                (
                    data.classes[a.label - 1],
                    list(a.box),
                    a.segmentation[0] if isinstance(a.segmentation, list) else a.segmentation,
                )
                for a in image.annotations
            ]
            found[name, image.path.name.removeprefix("0a1b2c3d-")] = rows
            assert image.path.is_file()
    return found


def expected(parts=("train", "val"), polygons=True):
    return {
        (part if part in parts else "train", name): [
            (label, box, polygon if polygons else None) for label, box, polygon in objects
        ]
        for part, name, _, _, objects in IMAGES
    }


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for key, rows in wanted.items():
        assert [row[0] for row in found[key]] == [row[0] for row in rows]
        for (_, box, polygon), (_, wanted_box, wanted_polygon) in zip(
            found[key], rows, strict=True
        ):
            np.testing.assert_allclose(box, wanted_box, atol=TOLERANCE)
            if wanted_polygon is None:
                assert polygon is None
            else:
                np.testing.assert_allclose(polygon, wanted_polygon, atol=TOLERANCE)


@pytest.mark.parametrize("name", OBJECTS)
def test_read(name, tmp_path):
    OBJECTS[name](tmp_path)
    assert find_formats(tmp_path) == [FOUND.get(name, name)]
    dataset = read_dataset(tmp_path)
    parts = ("train",) if name == "label_studio" else ("train", "val")
    assert_equal(objects_of(dataset), expected(parts, name not in BOXES))
    for part in dataset.parts.values():
        assert [c["name"] for c in part.content["categories"]] == CLASSES
    said = dataset.describe()
    assert str(tmp_path) in said
    assert "train 4 images with 4 objects" in said or "train 2 images with 3 objects" in said


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
@pytest.mark.parametrize("name", OBJECTS)
def test_round(name, to, tmp_path):
    """Any format, to another, and back to COCO: equal boxes and, where it has them, polygons."""
    OBJECTS[name](tmp_path / "in")
    there = convert(tmp_path / "in", to, tmp_path / "there")
    convert(tmp_path / "there", "coco", tmp_path / "back")
    parts = ("train",) if name == "label_studio" else ("train", "val")
    polygons = name not in BOXES and to != "voc"
    assert_equal(objects_of(read_dataset(tmp_path / "back")), expected(parts, polygons))
    assert there["classes"] == CLASSES
    told = " ".join(there["notes"])
    assert ("lose their masks" in told) == (to == "voc" and name not in BOXES)
    assert ("lose their ids" in told) == (to != "coco")


def test_tracks_of_a_video(tmp_path):
    """Shapes as CVAT wrote them; those outside are counted, frames without objects stay."""
    cvat_video(tmp_path)
    (tmp_path / "images/cover.png").write_bytes((tmp_path / "images/frame_000000.png").read_bytes())
    dataset = read_dataset(tmp_path)
    content = dataset.parts["train"].content
    assert [image["id"] for image in content["images"]] == [0, 1, 2, 3, 4]
    assert [a["image_id"] for a in content["annotations"]] == [0, 1, 3]
    assert [a["bbox"][0] for a in content["annotations"]] == [4, 5, 7]
    assert {a["attributes"]["track_id"] for a in content["annotations"]} == {"7"}
    notes = " ".join(dataset.notes)
    assert "outside of their frame, left out: 1 (first: track 7)" in notes
    assert "images that are no frame of their own, left out: 1" in notes
    assert "between key frames, as CVAT interpolated them: 1" in notes
    (tmp_path / "images").rename(tmp_path.parent / f"{tmp_path.name}-away")
    content = read_dataset(tmp_path).parts["train"].content  # frames are named by their numbers
    assert [image["file_name"] for image in content["images"]][-1] == "frame_000003.png"


def test_a_mask_an_object(tmp_path):
    """DSB2018: areas of the masks, and through COCO and back to instance masks."""
    dataset = read_dataset(dsb2018(tmp_path / "in"))
    assert find_formats(tmp_path / "in") == ["dsb2018"]
    assert list(dataset.parts) == ["train"]
    assert "images without a folder of masks, left out: 1" in " ".join(dataset.notes)
    data = check_part(dataset.parts["train"])
    assert [[a.area for a in image.annotations] for image in data.images] == [[25, 81], [9]]
    assert data.images[0].annotations[0].box == (4, 2, 9, 7)
    convert(tmp_path / "in", "coco", tmp_path / "out")
    again = check_part(read_dataset(tmp_path / "out").parts["train"])
    assert [[a.area for a in image.annotations] for image in again.images] == [[25, 81], [9]]


def test_darknet_without_its_data_file(tmp_path):
    darknet(tmp_path)
    for wrong, said in (("classes = 3\nnames = obj.names\ntrain = train.txt", "classes is 3"),):
        (tmp_path / "obj.data").write_text(wrong)
        with pytest.raises(UserError, match=said):
            read_dataset(tmp_path)
    (tmp_path / "obj.data").unlink()
    assert_equal(objects_of(read_dataset(tmp_path)), expected(polygons=False))


def test_annotations_by_another_id(tmp_path):
    livecell(tmp_path)
    path = tmp_path / "annotations/LIVECell/livecell_coco_val.json"
    content = json.loads(path.read_text())
    content["annotations"] = {"5": next(iter(content["annotations"].values()))}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="the annotation '5' has the id 70000; make them equal"):
        read_dataset(tmp_path)


def test_coco_keeps_ids_and_keys(tmp_path):
    OBJECTS["coco"](tmp_path / "in")
    path = tmp_path / "in/annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    content["licenses"] = [{"id": 1, "name": "CC0"}]
    content["annotations"][0] |= {"attributes": {"occluded": False}, "score": 0.25}
    content["images"][1]["coco_url"] = "http://x/b.png"
    path.write_text(json.dumps(content))
    convert(tmp_path / "in", "coco", tmp_path / "out")
    assert json.loads((tmp_path / "out/annotations/instances_train.json").read_text()) == content


def test_ids_of_cvat_and_label_studio_stay(tmp_path):
    for name, numbers in (("cvat", {5, 6, 7, 8}), ("label_studio", {21, 22, 23, 24})):
        dataset = read_dataset(OBJECTS[name](tmp_path / name))
        images = [image for part in dataset.parts.values() for image in part.content["images"]]
        assert {image["id"] for image in images} == numbers


def test_flags_of_voc_and_attributes_of_cvat(tmp_path):
    OBJECTS["voc"](tmp_path / "voc")
    convert(tmp_path / "voc", "coco", tmp_path / "coco")
    convert(tmp_path / "coco", "voc", tmp_path / "again")
    part = read_dataset(tmp_path / "again").parts["val"].content
    assert [a.get("difficult") for a in part["annotations"]] == [1]
    cvat = read_dataset(OBJECTS["cvat"](tmp_path / "cvat"))
    assert cvat.parts["val"].content["annotations"][0]["attributes"] == {"fur": "long"}
    told = convert(tmp_path / "cvat", "yolo", tmp_path / "yolo")["notes"]
    assert "annotations lose their attributes, YOLO has none: 4" in told


def classes_of(dataset, ignored=255):
    """The class number of each pixel by part and stem."""
    found = {}
    for name, part in dataset.parts.items():
        images = {image["id"]: image for image in part.content["images"]}
        place = {c["id"]: c["name"] for c in part.content["categories"]}
        for number, image in images.items():
            size = image["height"], image["width"]
            pixels = np.full(size, "", object)
            for a in part.content["annotations"]:
                if a["image_id"] == number:
                    counts = a["segmentation"]["counts"]
                    pixels[decode_runs(counts, *size).astype(bool)] = place[a["category_id"]]
            found[name, image["file_name"].split("/")[-1].split(".")[0]] = pixels
    return found


@pytest.mark.parametrize("name", MASKS)
def test_masks(name, tmp_path):
    """Masks in each layout are read alike, and go round through COCO and back."""
    MASKS[name](tmp_path / "in")
    assert find_formats(tmp_path / "in") == ["masks"]
    names = {"cityscapes": ["road", "sidewalk", "car"], "ade20k": ["1", "2", "3"]}.get(name, NAMES)
    first = convert(tmp_path / "in", "coco", tmp_path / "coco")
    convert(tmp_path / "coco", "masks", tmp_path / "back")
    for dataset in (read_dataset(tmp_path / "in"), read_dataset(tmp_path / "back")):
        found = classes_of(dataset)
        for part, stem, numbers in mask_numbers():
            wanted = np.array([*names, ""], object)[np.where(numbers == 255, 3, numbers)]
            if name == "roboflow_masks":  # it has no number to ignore
                wanted[numbers == 255] = names[0]
            stem = f"aachen_{stem}_000019_leftImg8bit" if name == "cityscapes" else stem
            assert (found[part, stem] == wanted).all()
    assert first["parts"]["train"]["images"] == 2


def test_instances(tmp_path):
    """One number an object, with large numbers; objects become classes in masks, with a note."""
    dataset = read_dataset(instances(tmp_path / "in"))
    counts = [len(part.content["annotations"]) for part in dataset.parts.values()]
    assert counts == [3, 2]
    assert any("each number of a mask is taken as an object" in note for note in dataset.notes)
    told = convert(tmp_path / "in", "masks", tmp_path / "out")["notes"]
    assert any("not told apart" in line for line in told)
    found = classes_of(read_dataset(tmp_path / "out"))
    for part, stem, numbers in mask_numbers():
        objects = (numbers == 1) | (numbers == 2)
        assert ((found[part, stem] == "object") == objects).all()


def test_instances_become_polygons(tmp_path):
    """Run lengths to YOLO's polygons and back: the same pixels."""
    pytest.importorskip("faster_coco_eval")
    instances(tmp_path / "in")
    told = convert(tmp_path / "in", "yolo", tmp_path / "yolo")["notes"]
    assert any("masks of run lengths become polygons" in line for line in told)
    convert(tmp_path / "yolo", "masks", tmp_path / "out")
    found = classes_of(read_dataset(tmp_path / "out"))
    for part, stem, numbers in mask_numbers():
        objects = (numbers == 1) | (numbers == 2)
        assert ((found[part, stem] == "object") == objects).all()


@pytest.mark.parametrize("top", [1, 255])
def test_masks_of_two_numbers(top, tmp_path):
    from annotated_sets import picture, save

    picture(tmp_path / "images/a.jpg", 9, 6)
    mask = np.zeros((6, 9), np.uint8)
    mask[2:4, 3:7] = top
    save(tmp_path / "masks/a.png", mask)
    dataset = read_dataset(tmp_path)
    (pixels,) = classes_of(dataset).values()
    assert ((pixels == "foreground") == (mask > 0)).all()
    assert any("two numbers" in note for note in dataset.notes)


def test_validation_is_drawn_by_name(tmp_path):
    """An image keeps its part when others come."""
    from annotated_sets import picture, text

    def make(count):
        root = tmp_path / str(count)
        for i in range(count):
            picture(root / "images" / f"{i}.png", 8, 8)
            text(root / "labels" / f"{i}.txt", "0 0.5 0.5 0.5 0.5\n")
        text(root / "classes.txt", "thing\n")
        out = tmp_path / f"out{count}"
        told = convert(root, "yolo", out, images="copy", val_share=0.3)
        return told, {p.name for p in (out / "images/val").iterdir()}

    told, few = make(20)
    _, more = make(30)
    assert few == {name for name in more if int(name.split(".")[0]) < 20}
    assert any("no part for validation" in line for line in told["notes"])


def labelled(root, *names):
    from annotated_sets import picture, text

    for name in names:
        picture(root / "images" / f"{name}.png", 8, 8)
        text(root / "labels" / f"{name}.txt", "0 0.5 0.5 0.5 0.5\n")
    text(root / "classes.txt", "thing\n")
    return root


def parts_of(dataset):
    """The paths of the images by part."""
    return {
        name: {str(part.folder / image["file_name"]) for image in part.content["images"]}
        for name, part in dataset.parts.items()
    }


def test_an_image_keeps_its_part_when_one_comes_in_another_folder(tmp_path):
    root = labelled(tmp_path, *(f"may/{i}" for i in range(30)))
    before = parts_of(with_validation(read_dataset(root)))
    labelled(root, "june/0", "1")
    after = parts_of(with_validation(read_dataset(root)))
    assert before["val"] <= after["val"] and before["train"] <= after["train"]


def test_a_run_keeps_its_images_in_their_parts(tmp_path):
    root = labelled(tmp_path / "data", *(f"may/{i}" for i in range(30)))
    expected = root / "labels/train.json"
    run = tmp_path / "run"
    run.mkdir()
    (train, val), split = read_objects(
        root, ("train", "val"), expected, run_data=RunData(run, True)
    )
    assert [len(part.images) for part in (train, val)] == [len(split["train"]), len(split["val"])]
    moved = {"train": [*split["train"], split["val"][0]], "val": split["val"][1:]}
    write_split(run, moved)
    (root / "images" / moved["train"][0].removeprefix("images/")).unlink()
    labelled(root, "june/0")
    resumed = RunData(run, split=read_split(run))
    (train, val), again = read_objects(root, ("train", "val"), expected, run_data=resumed)
    assert {part: set(names) for part, names in again.items()} == {
        "train": set(moved["train"][1:]),
        "val": set(moved["val"]),
    }
    told = " ".join(train.notes)
    assert f"{len(val.images)} of 30 images are taken for it, as {run / 'split.csv'} says" in told
    assert "1 image is not in" in told and "1 image is gone that" in told


def test_a_run_of_an_earlier_version_draws_as_it_did(tmp_path):
    root = labelled(tmp_path, *(f"may/{i}" for i in range(30)))
    (_, val), _ = read_objects(root, ("val", "val"), root / "x", run_data=RunData(tmp_path))
    by_name = {f"{i}.png" for i in range(30) if draw_by_name(f"{i}.png") < 0.2}
    assert {image.path.name for image in val.images} == by_name != set()


def draw_by_name(name):
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32


def test_all_images_of_another_folder_are_measured(tmp_path):
    root = labelled(tmp_path, *map(str, range(7)))
    (val,), split = read_objects(root, ("val",), root / "x", draw=False)
    assert len(val.images) == 7 and split == {}
    assert any("no part for validation; all 7 images are measured" in note for note in val.notes)


def test_a_part_that_came_later_is_refused(tmp_path):
    root = labelled(tmp_path / "data", *(f"train/{i}" for i in range(9)), "val/0")
    write_split(tmp_path, {"train": ["images/train/0.png"], "val": ["images/train/1.png"]})
    resumed = RunData(tmp_path, split=read_split(tmp_path))
    with pytest.raises(UserError, match="has a part for validation now"):
        read_objects(root, ("train", "val"), root / "x", run_data=resumed)
    # A run that began with parts lists no image.
    write_split(tmp_path, {})
    _, split = read_objects(
        root, ("train", "val"), root / "x", run_data=RunData(tmp_path, split=read_split(tmp_path))
    )
    assert split == {}


BESIDE = {
    "yolo": "images",
    "roboflow": ".",
    "labelme": ".",
    "masks": "images",
    "coloured": "images",
    "roboflow_masks": ".",
}
"""Formats with folders for the parts, and where these folders lie."""


@pytest.mark.parametrize("name", BESIDE)
def test_what_lies_beside_the_parts_is_counted(name, tmp_path):
    import annotated_sets
    from annotated_sets import picture, text

    root = getattr(annotated_sets, name)(tmp_path)
    if name == "yolo":
        (root / "data.yaml").unlink()
        text(root / "classes.txt", "cat\ndog\n")
    known = parts_of(read_dataset(root))
    whole = root / BESIDE[name]
    for place in ("extra/deep/1", "extra/2", "3"):
        picture(whole / f"{place}.jpg", 9, 6)
        text(whole / f"{place}.json", "{}")
    dataset = read_dataset(root)
    assert parts_of(dataset) == known
    kind = "JSON files" if name == "labelme" else "images"
    told = [note for note in dataset.notes if "in no part, left out" in note]
    assert len(told) == 2
    assert f"1 {kind} loose beside" in told[0] and f"2 {kind} in extra beside" in told[1]


@pytest.mark.parametrize("name", ["voc", "labelme"])
def test_no_image_stands_in_for_one_of_its_name(name, tmp_path):
    """Parts repeat names; where an image is gone, that of the other part is not taken."""
    from annotated_sets import OBJECTS, picture

    OBJECTS[name](tmp_path / "made")
    for part in ("train", "valid"):
        (tmp_path / part).mkdir()
        for path in (tmp_path / "made").rglob("*.*"):
            if path.suffix in (".xml", ".json", ".jpg", ".png"):
                (tmp_path / part / path.name).write_bytes(path.read_bytes())
    shutil.rmtree(tmp_path / "made")
    whole = read_dataset(tmp_path)
    lost = sorted(path for path in (tmp_path / "train").iterdir() if path.suffix != PLAIN[name])[0]
    lost.unlink()
    dataset = read_dataset(tmp_path)
    there = parts_of(dataset)
    assert there["val"] == parts_of(whole)["val"]
    assert there["train"] == parts_of(whole)["train"] - {str(lost)}
    assert any("whose names only files of other entries have" in note for note in dataset.notes)
    # A file elsewhere that no other entry has is the image, and a line says so.
    stem = lost.stem
    for path in (tmp_path / "valid").glob(f"{stem}.*"):
        path.unlink()
    picture(tmp_path / "elsewhere" / lost.name, 64, 48)
    dataset = read_dataset(tmp_path)
    assert str(tmp_path / "elsewhere" / lost.name) in parts_of(dataset)["train"]
    assert any("in another folder, by their names: 1" in note for note in dataset.notes)


PLAIN = {"voc": ".xml", "labelme": ".json"}


def test_a_test_part_that_is_not_there_is_told(tmp_path):
    from annotated_sets import OBJECTS, text

    OBJECTS["yolo"](tmp_path)
    config = tmp_path / "data.yaml"
    text(config, config.read_text().replace("test:", "test: ../test/images"))
    dataset = read_dataset(tmp_path)
    assert set(dataset.parts) == {"train", "val"}
    assert any("which is not there; no part for tests" in note for note in dataset.notes)


def test_a_subset_that_is_no_folder_is_told(tmp_path):
    cvat_video(tmp_path)
    path = tmp_path / "annotations.xml"
    path.write_text(path.read_text().replace("<task>", "<task><subset>day/1</subset>"))
    with pytest.raises(UserError, match="has the part 'day/1', which is no name of a folder"):
        read_dataset(tmp_path)


def test_mixed_and_unknown(tmp_path):
    OBJECTS["yolo"](tmp_path / "two")
    OBJECTS["cvat"](tmp_path / "two")
    with pytest.raises(UserError, match=r"looks like YOLO \(yolo\) and CVAT \(cvat\)"):
        read_dataset(tmp_path / "two")
    assert len(read_dataset(tmp_path / "two", "cvat").parts) == 2
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"no known format; looked for YOLO: data\.yaml.*labelme"):
        read_dataset(tmp_path / "none")
