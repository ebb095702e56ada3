"""Wrong files: refused in one line with all kinds of faults, or counted."""

import base64
import io
import json
from contextlib import suppress

import numpy as np
import pytest
from annotated_sets import (
    cityscapes,
    coloured,
    cvat,
    label_studio,
    labelme,
    masks,
    picture,
    roboflow,
    roboflow_masks,
    text,
    voc,
    voc_masks,
    yolo,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spanets.detection.reading import read_parts
from spanets.detection.recipe import DetectionData
from spanets.formats.coco.faults import Fault
from spanets.formats.coco.rle import decode_runs
from spanets.formats.label_studio import decode_brush
from spanets.formats.labelme import ellipse
from spanets.formats.outlines import join, trace
from spanets.formats.reading import check_part, convert, read_dataset
from spanets.segmentation.data import check_parts
from spanets.segmentation.masks.reading import folder_parts
from spanets_runtime.errors import UsageError, UserError

LABEL = "labels/train/a.txt"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2 .5 .5 .1 .1", "has the class 2, but there are 2 classes"),
        ("-1 .5 .5 .1 .1", "has the class '-1', must be 0 or more"),
        ("cat .5 .5 .1 .1", "has the class 'cat'"),
        ("0 .5 .5 1.2 .1", r"has the coordinate 1\.2, must be within 0 and 1"),
        ("0 200 100 20 20", "has the coordinate 200"),
        ("0 -.2 .5 .1 .1", r"has the coordinate -0\.2"),
        ("0 nan .5 .1 .1", "has a coordinate 'nan', must be a number"),
        ("0 1e999 .5 .1 .1", "has a coordinate '1e999', must be a number"),
        ("0 .5 .5 .1", "has 3 numbers after the class"),
        ("0 .1 .1 .2 .2 .3 .3 .4", "has 7 numbers after the class"),
    ],
)
def test_yolo_lines(line, said, tmp_path):
    yolo(tmp_path)
    text(tmp_path / LABEL, f"0 .5 .5 .1 .1\n{line}\n")
    with pytest.raises(UserError, match=rf"labels/train/a\.txt line 2 {said}"):
        read_dataset(tmp_path)


def test_yolo_names_all_faults_at_once(tmp_path):
    yolo(tmp_path)
    text(tmp_path / LABEL, "9 .5 .5 .1 .1\n9 .4 .5 .1 .1\n0 7 7 7 7\n")
    with pytest.raises(UserError, match=r"class 9.*and 1 more like it.*coordinate 7.*3 faults"):
        read_dataset(tmp_path)


def test_yolo_counts(tmp_path):
    yolo(tmp_path)
    text(tmp_path / LABEL, "\n0 .5 .5 .1 .1\n0  .5 .5 .1 .1 \n1 .5 .5 .1 .1 .93\n")
    text(tmp_path / "labels/train/gone.txt", "0 .5 .5 .1 .1\n")
    (tmp_path / "images/train/empty.png").touch()
    (tmp_path / "labels/val/c.txt").unlink()
    text(tmp_path / "images/train/notes.docx", "x")
    dataset = read_dataset(tmp_path)
    told = "\n".join(dataset.notes)
    for line in (
        "label files without an image, left out: 1",
        "lines that stand twice, the second left out: 1",
        "confidences in label files, left out: 1",
        "images that cannot be read: 1",
        "images without a label file, taken as without objects: 2",
        "1 file left out, not known as images (1 .docx)",
    ):
        assert line in told
    assert [len(p.content["annotations"]) for p in dataset.parts.values()] == [4, 0]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("names: [a, a]\ntrain: images/train", "names has 'a' twice"),
        ("names: [yes, no]\ntrain: images/train", "which is no text in YAML; quote it"),
        ("names: {1: a, 2: b}\ntrain: images/train", "must be 0 to 1, each once"),
        ("names: [a, b]\nnc: 3\ntrain: images/train", "nc is 3, but names has 2 classes"),
        ("names: []\ntrain: images/train", "must be a list of class names"),
        ("names: [a, b]\ntrain: images/nowhere", "has no such folder or file"),
        ("names: [a, b]\ntrain: ../../../../etc", "has no such folder or file"),
        ("names: [a, b]\ntrain: /etc/passwd", "has no such folder or file"),
        ("names: [a, b]\ntrain: 7", "must be a path"),
        ("names: !!python/object:os.x {}\ntrain: a", "is not allowed"),
    ],
)
def test_data_yaml(config, said, tmp_path):
    yolo(tmp_path / "set")
    text(tmp_path / "set/data.yaml", config)
    with pytest.raises(UserError, match=said):
        read_dataset(tmp_path / "set")


@pytest.mark.parametrize(
    ("path", "train"),
    [
        ("/home/me/datasets/animals", "images/train"),
        ("../datasets/animals", "images/train"),
        (".", "../train/images"),
        (".", "/content/animals/images/train"),
        (".", "train.txt"),
        (".", "[images/train]"),
    ],
)
def test_data_yaml_of_another_computer(path, train, tmp_path):
    """Paths that lead elsewhere are read within the folder."""
    yolo(tmp_path)
    if train.endswith("/images"):  # Roboflow's layout
        for kind in ("images", "labels"):
            (tmp_path / "train").mkdir(exist_ok=True)
            (tmp_path / kind / "train").rename(tmp_path / "train" / kind)
    text(tmp_path / "train.txt", "./images/train/a.png\n/elsewhere/images/train/b.png\n\n")
    text(tmp_path / "data.yaml", f"path: {path}\ntrain: {train}\nval: images/val\nnames: [a, b]")
    counts = [len(p.content["annotations"]) for p in read_dataset(tmp_path).parts.values()]
    assert counts == [3, 1]


def test_oriented_boxes_and_pose(tmp_path):
    yolo(tmp_path)
    for path in tmp_path.glob("labels/*/*.txt"):
        path.write_text("0 .5 .1 .9 .5 .5 .9 .1 .5\n")
    dataset = read_dataset(tmp_path)
    assert any("3 oriented boxes (four corners each)" in note for note in dataset.notes)
    box = dataset.parts["train"].content["annotations"][0]["bbox"]
    np.testing.assert_allclose(box, [4, 3, 32, 24], atol=1e-9)
    text(
        tmp_path / "data.yaml",
        "train: images/train\nval: images/val\nnames: [a]\nkpt_shape: [2, 3]\n",
    )
    for path in tmp_path.glob("labels/*/*.txt"):
        path.write_text("0 .5 .5 .2 .2 .5 .5 2 0 0 0\n")
    dataset = read_dataset(tmp_path)
    found = dataset.parts["train"].content["annotations"][0]
    assert found["keypoints"] == [20, 15, 2, 0, 0, 0]
    assert found["num_keypoints"] == 1
    assert any("objects with key points" in note for note in dataset.notes)


ENTITY = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
LAUGHS = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;">]>'


@pytest.mark.parametrize("entity", [ENTITY, LAUGHS, "<!DOCTYPE annotation>"])
@pytest.mark.parametrize(("make", "file"), [(voc, "Annotations/a.xml"), (cvat, "annotations.xml")])
def test_no_document_type(make, file, entity, tmp_path):
    path = make(tmp_path) / file
    start, tag, rest = path.read_text().partition("<annotation")
    path.write_text(f"{start}{entity}{tag}{rest}".replace(">cat<", ">&x;<"))
    with pytest.raises(UserError, match="declares a DOCTYPE, which is not read"):
        read_dataset(tmp_path)
    path.write_text(path.read_text()[:-20].replace(entity, "").replace("&x;", "x"))
    with pytest.raises(UserError, match=r"is not XML|no known format"):
        read_dataset(tmp_path)


def test_voc(tmp_path):
    voc(tmp_path)
    path = tmp_path / "Annotations/a.xml"
    whole = path.read_text()
    path.write_text(whole.replace("<xmin>5<", "<xmin>nan<"))
    with pytest.raises(UserError, match=r"Annotations/a\.xml\] has a corner 'nan', must be a numb"):
        read_dataset(tmp_path)
    path.write_text(whole.replace("<name>cat</name>", ""))
    with pytest.raises(UserError, match="has an object without a name"):
        read_dataset(tmp_path)
    path.write_text(whole.replace("<width>40<", "<width>0<"))
    assert read_dataset(tmp_path).parts["train"].content["images"][0]["width"] == 40
    path.write_text(whole.replace("<xmin>5<", "<xmin>0<"))
    dataset = read_dataset(tmp_path)
    assert any("counted from 0, not from 1" in note for note in dataset.notes)
    assert dataset.parts["train"].content["annotations"][1]["bbox"][0] == 31.5
    path.write_text(whole)
    (tmp_path / "JPEGImages/a.png").unlink()
    text(tmp_path / "Annotations/unlisted.xml", whole)
    text(tmp_path / "ImageSets/Main/val.txt", "c 1\nd -1\nnowhere\n")
    told = convert(tmp_path, "coco", tmp_path / "out")["notes"]
    for line in (
        "images that are missing, left out with 1 objects: 1",
        "names in val.txt without",
        "XML files in no list",
    ):
        assert any(line in note for note in told)


def test_labelme_shapes(tmp_path):
    """Groups, circles, rectangles and masks; the rest is counted."""
    labelme(tmp_path)
    path = tmp_path / "train/b.json"
    content = json.loads(path.read_text())
    png = io.BytesIO()
    Image.fromarray(np.array([[1, 0], [1, 1]], bool)).save(png, "PNG")
    part = {"label": "cat", "group_id": 1, "shape_type": "polygon", "flags": {"wet": True}}
    content["shapes"] = [
        {**part, "points": [[0, 0], [4, 0], [4, 4]]},
        {**part, "points": [[8, 8], [12, 8], [12, 12]]},
        {"label": "dog", "shape_type": "circle", "points": [[30, 20], [30, 30]]},
        {"label": "dog", "shape_type": "rectangle", "points": [[9, 8], [3, 2]]},
        {
            "label": "dog",
            "shape_type": "mask",
            "points": [[5, 6], [6, 7]],
            "mask": base64.b64encode(png.getvalue()).decode(),
        },
        {"label": "dog", "shape_type": "line", "points": [[9, 8], [3, 2]]},
    ]
    path.write_text(json.dumps(content))
    dataset = read_dataset(tmp_path)
    _, group, circle, rectangle, mask = dataset.parts["train"].content["annotations"]
    assert len(group["segmentation"]) == 2
    assert group["flags"] == {"wet": True}
    assert rectangle["bbox"] == [3, 2, 6, 6]
    assert "segmentation" not in rectangle
    pixels = decode_runs(mask["segmentation"]["counts"], 48, 64)
    assert np.argwhere(pixels).tolist() == [[6, 5], [7, 5], [7, 6]]
    np.testing.assert_allclose(circle["bbox"], [20, 10, 20, 20], atol=0.03)
    told = "\n".join(dataset.notes)
    assert "circles, read as polygons: 1" in told
    assert "shapes of kind 'line', left out: 1" in told
    (tmp_path / "train/b.png").unlink()
    with pytest.raises(UserError, match="is no PNG in base64"):
        content["shapes"][4]["mask"] = "AAAA"
        path.write_text(json.dumps(content))
        read_dataset(tmp_path)
    content["shapes"] = [{**part, "points": [[0, float("nan")], [4, 0], [4, 4]]}]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"shapes\[0\] of train/b\.json has a point nan"):
        read_dataset(tmp_path)


def test_an_image_inside_its_json_is_named(tmp_path):
    labelme(tmp_path)
    (tmp_path / "train/b.png").unlink()
    told = "\n".join(convert(tmp_path, "coco", tmp_path / "out")["notes"])
    assert "images are only inside their JSON (imageData)" in told
    assert "images that are missing, left out with 2 objects: 1" in told


def test_the_ellipse_has_its_area():
    points = np.array(ellipse(10, 20, 5, 3, 30)).reshape(-1, 2)
    x, y = points.T
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    np.testing.assert_allclose(area, np.pi * 15, rtol=1e-9)
    np.testing.assert_allclose(points.mean(0), [10, 20])


def test_cvat_shapes(tmp_path):
    cvat(tmp_path)
    path = tmp_path / "annotations.xml"
    shapes = (
        '<box label="cat" occluded="1" xtl="2" ytl="3" xbr="8" ybr="9"/>'
        '<box label="cat" xtl="10" ytl="10" xbr="20" ybr="14" rotation="90"/>'
        '<mask label="dog" rle="1, 2, 1" left="3" top="4" width="2" height="2"/>'
        '<ellipse label="dog" cx="20" cy="15" rx="4" ry="2"/>'
        '<polyline label="dog" points="1,1;2,2"/><tag label="dog"/></image>'
    )
    whole = path.read_text().replace("</image>", shapes, 1)
    path.write_text(whole)
    dataset = read_dataset(tmp_path)
    _, box, turned, mask, _, *_ = dataset.parts["train"].content["annotations"]
    assert box["bbox"] == [2, 3, 6, 6]
    assert box["attributes"] == {"occluded": "1"}
    np.testing.assert_allclose(turned["bbox"], [13, 7, 4, 10])
    pixels = decode_runs(mask["segmentation"]["counts"], 30, 40)
    assert np.argwhere(pixels).tolist() == [[4, 4], [5, 3]]
    told = "\n".join(dataset.notes)
    for line in ("turned boxes", "ellipses", "kind 'polyline', left out", "kind 'tag'"):
        assert line in told
    for old, new, said in (
        ('rle="1, 2, 1"', 'rle="1, 2"', "run lengths of 3, not 2x2 pixels"),
        ('left="3"', 'left="39"', "beyond its image"),
        ('xtl="2"', 'xtl="two"', "has xtl 'two', must be a number"),
        ('subset="Train"', 'subset="../../x"', "which is no name of a folder"),
    ):
        path.write_text(whole.replace(old, new, 1))
        with pytest.raises(UserError, match=said):
            read_dataset(tmp_path)


def test_cvat_video(tmp_path):
    text(tmp_path / "annotations.xml", "<annotations><track id='0' label='a'/></annotations>")
    with pytest.raises(UserError, match="CVAT without an image"):
        read_dataset(tmp_path)


def encode_brush(mask):
    """Packs an opaque brush as Label Studio does: runs and single values of eight bits."""
    values = np.zeros((*mask.shape, 4), np.uint8)
    values[..., 3] = mask * 255
    flat, sizes = values.ravel().tolist(), [3, 4, 8, 16]
    bits = f"{len(flat):032b}{8 - 1:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    place = 0
    while place < len(flat):
        end = place
        while end < len(flat) and flat[end] == flat[place] and end - place < 60_000:
            end += 1
        count = end - place - 1
        which = next(i for i, size in enumerate(sizes) if count < 2**size)
        is_run = count > 0
        bits += f"{int(is_run)}{which:02b}{count:0{sizes[which]}b}{flat[place]:08b}"
        place = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def test_label_studio_shapes(tmp_path):
    label_studio(tmp_path)
    (path,) = tmp_path.glob("*.json")
    tasks = json.loads(path.read_text())
    mask = np.random.default_rng(0).random((30, 40)) < 0.4
    size = {"original_width": 40, "original_height": 30, "image_rotation": 0}

    def shape(kind, **value):
        return {**size, "type": kind, "value": {**value, kind: ["cat"]}}

    tasks[0]["annotations"][0]["result"] = [
        shape("rectanglelabels", x=10, y=10, width=50, height=20, rotation=0),
        shape("rectanglelabels", x=50, y=50, width=10, height=10, rotation=90),
        shape("brushlabels", format="rle", rle=encode_brush(mask)),
        shape("ellipselabels", x=50, y=50, radiusX=10, radiusY=10, rotation=0),
        shape("keypointlabels", x=5, y=5, width=1),
        {"type": "choices", "value": {"choices": ["good"]}},
    ]
    tasks[1]["annotations"] = []
    tasks[2]["annotations"] *= 2
    path.write_text(json.dumps(tasks))
    dataset = read_dataset(tmp_path)
    box, turned, brush, _, *_ = dataset.parts["train"].content["annotations"]
    np.testing.assert_allclose(box["bbox"], [4, 3, 20, 6])
    np.testing.assert_allclose(turned["bbox"], [17, 15, 3, 4])
    assert (decode_runs(brush["segmentation"]["counts"], 30, 40) == mask).all()
    told = "\n".join(dataset.notes)
    for line in (
        "turned boxes",
        "ellipses",
        "kind 'keypointlabels', left out",
        "tasks without an annotation",
        "tasks with several annotations",
    ):
        assert line in told
    tasks[0]["annotations"][0]["result"][2]["value"]["rle"] = encode_brush(mask)[:40]
    path.write_text(json.dumps(tasks))
    with pytest.raises(UserError, match=r"tasks\[0\] has a brush that is cut short"):
        read_dataset(tmp_path)


@given(st.binary(max_size=60))
@settings(max_examples=60, deadline=None)
def test_any_brush(data):
    with suppress(Fault):
        assert len(decode_brush((400).to_bytes(4) + data, 400)) == 400


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_outlines_are_exact(seed):
    """Outlines of noise, joined to one polygon, fill the same pixels."""
    filling = pytest.importorskip("spanets.formats.coco.filling")
    pytest.importorskip("faster_coco_eval")
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 20, 2)) < rng.random()
    loops = trace(mask)
    assert bool(loops) == mask.any()
    if loops:
        assert (filling.fill_polygons([join(loops)], mask.shape) == mask).all()


def test_convert_refuses(tmp_path):
    yolo(tmp_path / "in")
    with pytest.raises(UsageError, match=r"--to cocoo: allowed are .*; did you mean 'coco'"):
        convert(tmp_path / "in", "cocoo", tmp_path / "out")
    with pytest.raises(UsageError, match="--from yoloo: allowed are"):
        convert(tmp_path / "in", "coco", tmp_path / "out", "yoloo")
    with pytest.raises(UsageError, match="is there already and not empty"):
        convert(tmp_path / "in", "coco", tmp_path / "in")
    with pytest.raises(UserError, match="no object has a mask, only boxes"):
        convert(tmp_path / "in", "masks", tmp_path / "out")
    with pytest.raises(UserError, match="is not Pascal VOC; looked for"):
        convert(tmp_path / "in", "coco", tmp_path / "out", "voc")
    roboflow(tmp_path / "r")
    path = tmp_path / "r/train/_annotations.coco.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content).replace('"width": 40', '"width": 44'))
    with pytest.raises(UserError, match=r"another size than .* say: 1 .*40x30, not 44x30"):
        convert(tmp_path / "r", "yolo", tmp_path / "out")
    content["images"].append({**content["images"][0], "id": 77, "file_name": "a.jpg"})
    picture(tmp_path / "r/train/a.jpg", 40, 30)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"a\.png and a\.jpg would share one label file"):
        convert(tmp_path / "r", "yolo", tmp_path / "out2")


def test_what_yolo_cannot_hold_is_counted(tmp_path):
    roboflow(tmp_path / "in")
    path = tmp_path / "in/train/_annotations.coco.json"
    content = json.loads(path.read_text())
    content["annotations"][0] |= {
        "iscrowd": 1,
        "segmentation": {"size": [30, 40], "counts": [1200]},
    }
    content["annotations"][1]["segmentation"] += [[1.0, 1, 3, 1, 3, 3]]
    path.write_text(json.dumps(content))
    told = "\n".join(convert(tmp_path / "in", "yolo", tmp_path / "out")["notes"])
    for line in (
        "crowd regions left out",
        "objects of several polygons become one",
        "category ids become places in a list: 17 'cat' is 0, 4 'dog' is 1",
        "the category 'animals' of Roboflow, above all others",
    ):
        assert line in told


def test_detectors_read_formats(tmp_path):
    """`data.root` alone is enough, and a note names the format and counts."""
    yolo(tmp_path)
    (train, val), _ = read_parts(DetectionData(root=str(tmp_path)), "train", "val")
    assert [len(train.images), len(val.images)] == [2, 2]
    assert train.notes[0] == (
        f"no annotations/instances_train2017.json; read instead: {tmp_path}: YOLO; train 2 images "
        "with 3 objects, val 2 images with 1 objects; classes 0 'cat', 1 'dog'"
    )


def test_no_image_has_labels(tmp_path):
    yolo(tmp_path)
    (tmp_path / "labels").rename(tmp_path / "annotations")
    with pytest.raises(UserError, match=r"no image has a label file, such as \S+train/a\.txt"):
        read_dataset(tmp_path)


def test_pascal_voc_with_both(tmp_path):
    """Boxes and masks in one folder: a detector takes the boxes. Names may hold spaces."""
    voc(tmp_path)
    (tmp_path / "SegmentationClass").mkdir()
    for kind, suffix in (("Annotations", "xml"), ("JPEGImages", "png")):
        (tmp_path / kind / f"c.{suffix}").rename(tmp_path / kind / f"c d.{suffix}")
    text(tmp_path / "ImageSets/Main/val.txt", "c d\n")
    with pytest.raises(UserError, match="looks like Pascal VOC"):
        read_dataset(tmp_path)
    (train, val), _ = read_parts(DetectionData(root=str(tmp_path)), "train", "val")
    assert [len(train.images), len(val.images)] == [2, 1]


def test_detectors_refuse_masks_of_classes(tmp_path):
    masks(tmp_path / "masks")
    with pytest.raises(UserError, match="objects are not told apart"):
        read_parts(DetectionData(root=str(tmp_path / "masks")), "train")
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"no such file, and .* has no other known format; looked"):
        read_parts(DetectionData(root=str(tmp_path / "none")), "val")


@pytest.mark.parametrize("names", ["labelmap.txt", "class_dict.csv", "label_colors.txt"])
def test_segmenters_read_colours(names, tmp_path):
    parts = folder_parts(coloured(tmp_path, names))
    plain = folder_parts(masks(tmp_path / "plain"))
    assert parts["train"].classes == plain["train"].classes
    for index in range(2):
        found = parts["train"].load_mask(index, (6, 9))
        assert (found == plain["train"].load_mask(index, (6, 9))).all()
    assert "colours of" in check_parts(parts, is_training=True)[0]
    assert (
        f"{tmp_path}: masks, colours of {names}; train 2 images, val 1 images"
        in (parts["train"].notes[0])
    )


@pytest.mark.parametrize("make", [voc_masks, roboflow_masks, cityscapes])
def test_segmenters_read_layouts(make, tmp_path):
    """Each layout gives the classes of the plain folder."""
    parts, plain = folder_parts(make(tmp_path)), folder_parts(masks(tmp_path / "plain"))
    numbers = [0, 1, 13] if make is cityscapes else [0, 1, 2]
    for part, wanted in plain.items():
        assert len(parts[part]) == len(wanted)
        for index in range(len(wanted)):
            rows = wanted.load_mask(index, (6, 9))
            ignored = 0 if make is roboflow_masks else 255  # it has no number to ignore
            expected = np.select([rows == i for i in range(3)], numbers, ignored)
            assert (parts[part].load_mask(index, (6, 9)) == expected).all()
    with pytest.raises(UsageError, match=r"data\.num_classes does not go with"):
        folder_parts(tmp_path, num_classes=7)


def test_a_colour_that_is_not_listed(tmp_path):
    coloured(tmp_path)
    path = tmp_path / "labelmap.txt"
    path.write_text(path.read_text().replace("10,200,30", "10,200,31"))
    parts = folder_parts(tmp_path)
    with pytest.raises(UserError, match=r"9 pixels have colours .* such as \(10, 200, 30\)"):
        parts["train"].load_mask(0, (6, 9))
    path.write_text("ground:0,0,0::\nsquare 0 0\n")
    with pytest.raises(UserError, match="line 2 is 'square 0 0', must be a name and three numbers"):
        folder_parts(tmp_path)
    path.write_text("ground:0,0,0::\nsquare:0,0,0::\n")
    with pytest.raises(UserError, match="line 2 repeats a name or colour"):
        folder_parts(tmp_path)


def test_check_part_counts(tmp_path):
    """A box beyond its image is cut with a note, as in COCO's files."""
    labelme(tmp_path)
    path = tmp_path / "train/a.json"
    content = json.loads(path.read_text())
    content["shapes"][0]["points"][0] = [-9.0, 6.0]
    path.write_text(json.dumps(content))
    data = check_part(read_dataset(tmp_path).parts["train"])
    assert "clipped 1 that reach beyond their image" in data.notes[0]
