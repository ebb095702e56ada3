"""`spanets stats` of annotated images in every format, and of tables."""

import json
import shutil

import annotated_sets
import numpy as np
import pytest
from annotated_sets import IMAGES, MASKS, OBJECTS
from PIL import Image
from small_runs import call, make_photos

from spanets.data.statistics.tables import TableKeys
from spanets.formats.statistics import describe_objects, describe_source
from spanets_cli import make_parser

SIZES = {
    "cat": {"images": 2, "small": 2, "medium": 0, "large": 0},
    "dog": {"images": 2, "small": 1, "medium": 1, "large": 0},
}


@pytest.mark.parametrize("name", OBJECTS)
def test_objects(name, tmp_path):
    """Classes, parts, sizes and empty images are the same in every format."""
    OBJECTS[name](tmp_path / "in")
    found = describe_source(str(tmp_path / "in"))
    objects, has_parts = found["objects"], name != "label_studio"
    assert found["images"] == len(IMAGES) and objects["count"] == 4
    assert list(objects["classes"]) == ["cat", "dog"]
    for label, sizes in SIZES.items():
        row = objects["classes"][label]
        parts = {"train": 2, "val": 0} if label == "cat" else {"train": 1, "val": 1}
        assert row.pop("objects") == (parts if has_parts else {"": 2})
        assert row == sizes
    assert objects["empty_images"] == ({"train": 0, "val": 1} if has_parts else {"": 1})
    assert found["classes"][""] == ({"train": 2, "val": 2} if has_parts else {"": 4})
    assert "--source folder reads it as images in class folders" in found["notes"][0]


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_classes(name, tmp_path):
    MASKS[name](tmp_path)
    found = describe_source(str(tmp_path))["objects"]
    assert found["is_pixels"] and sum(found["empty_images"].values()) == 0
    shares = [row["share"] for row in found["classes"].values() if row["share"]]
    numbers = np.concatenate([pixels.ravel() for *_, pixels in annotated_sets.mask_numbers()])
    if name == "roboflow_masks":  # has no pixels to ignore
        numbers = np.where(numbers == 255, 0, numbers)
    assert shares == pytest.approx([(numbers == number).mean() for number in range(3)])


def yolo(root):
    """YOLO with pictures that differ, so that nothing is odd but what a test adds."""
    annotated_sets.yolo(root)
    noise = np.random.default_rng(0)
    for path in (root / "images").rglob("*.png"):
        width, height = Image.open(path).size
        Image.fromarray(noise.integers(0, 255, (height, width, 3), np.uint8)).save(path)
    return root


ODD = {
    "leak: 1 image of val also in train": lambda r: shutil.copy(
        r / "images/train/a.png", r / "images/val/x.png"
    ),
    "1 class without objects in val: 'cat'": lambda r: None,
    "2 classes with fewer than 10 training objects": lambda r: None,
    "1 object with a shorter side below 2 pixels": lambda r: (r / "labels/val/d.txt").write_text(
        "0 0.5 0.5 0.02 0.5\n"
    ),
    "classes 'dog' and 'Dog' differ only in letter case": lambda r: (r / "data.yaml").write_text(
        "train: images/train\nval: images/val\nnames: [cat, dog, Dog]\n"
    ),
}


@pytest.mark.parametrize("line", ODD)
def test_odd_things(line, tmp_path):
    ODD[line](yolo(tmp_path))
    odd = describe_objects(tmp_path)["odd"]
    assert [found for found in odd if found.startswith(line)], odd


def test_boxes_outside_missing_images_and_other_sizes(tmp_path):
    annotated_sets.coco(tmp_path)
    path = tmp_path / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    box = content["annotations"][0]
    content["annotations"] += [{**box, "id": 1, "bbox": [38.0, 6.0, 20.0, 20.0]}]
    content["annotations"] += [{**box, "id": 2}]
    path.write_text(json.dumps(content))
    Image.new("RGB", (48, 64)).save(tmp_path / "train2017/b.png")
    (tmp_path / "val2017/d.png").unlink()
    odd = "\n".join(describe_objects(tmp_path)["odd"])
    assert "clipped 1 that reach beyond their image" in odd
    assert "1 object with the class and box of another one" in odd
    assert "1 image of another size than their annotations say" in odd
    assert "1 image of val missing, such as" in odd


def test_the_sheet_and_the_text(tmp_path, capsys, refused):
    yolo(tmp_path / "in")
    out = tmp_path / "out"
    status, printed, _ = call(capsys, "stats", tmp_path / "in", "--out", out, "--workers", "0")
    assert status == 0
    first, *lines = printed.splitlines()
    assert first.endswith("YOLO, 4 images (without objects: 1 of val), 4 objects, 2 classes")
    assert "class  train  val  images  small  medium  large" in lines
    assert "dog        1    1       2      1       1      0" in lines
    sheet = np.asarray(Image.open(out / "sheet.png").convert("RGB"))
    distance = np.abs(sheet.astype(int) - (0xE6, 0x9F, 0x00)).max(-1)
    assert (distance < 40).sum() > 100  # boxes in the colour of the row
    assert json.loads((out / "stats.json").read_text())["stats"]["objects"]["count"] == 4
    assert "--images is for --source table" in refused(2, "stats", tmp_path / "in", "--images", "x")


@pytest.fixture
def table(tmp_path):
    make_photos(tmp_path / "img", cat=12, dog=12)
    rows = [
        f"{name}/{i}.png,{name},{'val' if i > 9 else 'train'},p{i // 4},{i % 3}"
        for name in ("cat", "dog")
        for i in range(12)
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["file,species,split,patient,fold", *rows]))
    return tmp_path


def test_tables(table, capsys, refused):
    words = ["stats", table / "labels.csv", "--workers", "0", "--json"]
    words += ["--images", table / "img", "--columns", "{label: species}"]
    status, printed, said = call(capsys, *words)
    found = json.loads(printed)
    assert status == 0
    assert found["classes"] == {name: {"train": 10, "val": 2} for name in ("cat", "dog")}
    assert found["folds"]["cat"] == {"0": 4, "1": 4, "2": 4}
    assert [
        line for line in found["odd"] if "in several parts, such as 'p2' (train and val)" in line
    ]
    assert [
        line for line in found["odd"] if line.startswith("leak: 3 groups of 3 in several folds")
    ]
    assert "columns: path 'file', label 'species'" in said
    assert "--data.images" in found["command"] and "label" in found["command"]
    assert found["groups"] == 3
    shutil.copy(table / "img/cat/0.png", table / "img/cat/1.png")
    line = "leak: 1 content in several folds, such as cat/0.png and cat/1.png"
    assert line in json.loads(call(capsys, *words)[1])["odd"]
    (table / "img/cat/0.png").unlink()
    assert "1 file, cat/0.png (row 2), is missing" in refused(1, *words)
    assert "must be names by purpose" in refused(2, *words[:-1], "{label: [1]}")


def test_keys_that_messages_name_are_options(refused):
    words = ["stats", "x", "--data.source", "table", "--data.images", "i"]
    words += ["--data.columns", "{}", "--data.separator", ";", "--data.label_columns", "[a]"]
    words += ["--data.targets", "[b]", "--data.channels", "2", "--data.value_range", "0,4095"]
    told = make_parser().parse_args([*words, "--data.bands", "a,b"])
    assert (told.source, told.separator, told.targets) == ("table", ";", "[b]")
    assert (told.channels, told.value_range, told.bands) == (2, (0, 4095), "a,b")
    line = refused(2, "stats", "x", "--bands", "a,b", "--channels", "3")
    assert line == "--bands: 2 bands, and channels is 3"


def test_a_test_part_without_labels(table):
    text = (table / "labels.csv").read_text().replace("cat/11.png,cat,val", "cat/11.png,,test")
    (table / "labels.csv").write_text(text)
    found = describe_source(
        str(table / "labels.csv"), table=TableKeys(str(table / "img"), {"label": "species"})
    )
    assert found["images"] == 23
    assert any("the 1 images of test have no labels, left out" in note for note in found["notes"])
