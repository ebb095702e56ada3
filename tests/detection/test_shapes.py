"""The generated set: what is drawn is what is annotated, and the same bytes every time."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from spanets.detection import shapes
from spanets.detection.shapes import (
    CLASSES,
    MIN_VISIBLE,
    coco_annotations,
    draw_scene,
    write_shapes,
)
from spanets_runtime.errors import UsageError, UserError


def photograph(seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def scenes(count: int, size: int = 64):
    return [draw_scene(photograph(), size, np.random.default_rng(i)) for i in range(count)]


@pytest.fixture
def offline(monkeypatch):
    """Photographs that need no package."""
    numbers = {"train": 1, "val": 2}
    monkeypatch.setattr(shapes, "load_photographs", lambda part: [photograph(numbers[part])])


def test_scenes():
    drawn = scenes(40)
    for scene in drawn:
        assert scene.image.shape == (64, 64, 3)
        assert scene.masks.shape == (len(scene.labels), 64, 64)
        assert scene.masks.sum(axis=0).max() <= 1  # no two overlap
        assert all(mask.any() for mask in scene.masks)
    assert {label for scene in drawn for label in scene.labels} == set(range(len(CLASSES)))
    assert {len(scene.labels) for scene in drawn} >= {2, 3, 4, 5}


def test_a_shape_has_its_area():
    """Of a polygon in a circle of radius r: half n r² sin(2π/n)."""
    for count, kind in ((64, "circle"), (4, "square"), (3, "triangle")):
        corners = 40 + 30 * shapes._unit_outline(kind, angle=0.3)
        drawn = shapes._rasterise(corners, 80)
        area = count / 2 * 900 * np.sin(2 * np.pi / count)
        assert shapes._polygon_area(corners) == pytest.approx(area)
        # Pillow's polygons have their edge pixels: an eighth of a pixel along the outline, about.
        assert drawn.sum() == pytest.approx(area, rel=0.03)


def test_what_is_hidden_is_bounded():
    """No shape is left with less than its share, in scenes where some are hidden in part."""
    hidden = 0
    for scene in scenes(60):
        for label, mask in zip(scene.labels, scene.masks, strict=True):
            if CLASSES[label] != "circle":
                continue
            rows, columns = mask.any(axis=1).sum(), mask.any(axis=0).sum()
            disc = np.pi * (max(rows, columns) / 2) ** 2
            # The seen extent is at most the disc's own, within a pixel's rounding.
            assert mask.sum() >= MIN_VISIBLE * disc * 0.85
            hidden += mask.sum() < 0.9 * disc
    assert hidden > 3


def test_annotations_as_pycocotools_reads_them(offline, tmp_path):
    write_shapes(tmp_path / "set", images=10, size=48)
    coco = COCO(str(tmp_path / "set/annotations/train.json"))
    assert len(coco.imgs) == 8
    for number, image in coco.imgs.items():
        pixels = Image.open(tmp_path / "set/images/train" / image["file_name"])
        assert pixels.size == (image["width"], image["height"]) == (48, 48)
        classes = np.asarray(Image.open(tmp_path / "set/masks/train" / image["file_name"]))
        drawn = np.zeros_like(classes)
        for annotation in coco.imgToAnns[number]:
            mask = coco.annToMask(annotation)
            left, top, width, height = annotation["bbox"]
            assert mask.sum() == annotation["area"]
            assert mask[top : top + height, left : left + width].sum() == annotation["area"]
            drawn += mask * annotation["category_id"]
        assert np.array_equal(drawn, classes)
    names = [category["name"] for category in coco.dataset["categories"]]
    assert (tmp_path / "set/classes.txt").read_text().split() == ["background", *names]


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_the_same_bytes_for_the_same_seed(offline, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_shapes(tmp_path / name, images=5, size=32, seed=seed)
    first, second, other = (digest(tmp_path / name) for name in "abc")
    assert len(first) == 5 + 5 + 2 + 1
    assert first == second
    images = [name for name in first if name.startswith("images")]
    assert not any(first[name] == other[name] for name in images)


def test_scenes_do_not_depend_on_how_many_there_are(offline, tmp_path):
    for count in (5, 10):
        write_shapes(tmp_path / str(count), images=count, size=32)
    few, many = (digest(tmp_path / name) for name in ("5", "10"))
    assert all(many[name] == few[name] for name in few if "images" in name)


def test_the_drawing_is_on_record():
    """Results on the set are quoted: a change of what is drawn must not go unseen."""
    annotations = coco_annotations(scenes(2), ["a.png", "b.png"])["annotations"]
    found = [(a["image_id"], a["category_id"], *a["bbox"]) for a in annotations]
    assert found == [
        (1, 3, 22, 49, 20, 15),
        (1, 3, 29, 37, 23, 23),
        (2, 2, 26, 0, 18, 14),
        (2, 4, 19, 26, 27, 26),
    ]


def test_a_folder_is_not_written_over(offline, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="mine: exists already; name a new folder"):
        write_shapes(tmp_path / "mine", images=5)


@pytest.mark.parametrize(("images", "size"), [(0, 64), (2, 64), (5, 8), (-3, 64)])
def test_too_little_to_draw(images, size, tmp_path):
    with pytest.raises(UsageError, match="ask for 5 or more, of 32 or more"):
        write_shapes(tmp_path / "set", images, size)


def test_what_was_stopped_is_not_there(offline, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes, "coco_annotations", stop)
    with pytest.raises(KeyboardInterrupt):
        write_shapes(tmp_path / "set", images=5, size=32)
    assert not (tmp_path / "set").exists()
    monkeypatch.undo()
    monkeypatch.setattr(shapes, "load_photographs", lambda part: [photograph()])
    write_shapes(tmp_path / "set", images=5, size=32)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_without_the_package(monkeypatch):
    monkeypatch.setattr(shapes.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"run: pip install 'spanets\[demo\]'"):
        shapes.load_photographs("train")


def test_the_photographs_are_there():
    pytest.importorskip("skimage")
    for part, names in shapes.PHOTOGRAPHS.items():
        assert [min(photo.size) > 150 for photo in shapes.load_photographs(part)] == [True] * len(
            names
        )


def test_json_is_plain(offline, tmp_path):
    write_shapes(tmp_path / "set", images=5, size=32)
    read = json.loads((tmp_path / "set/annotations/val.json").read_text())
    assert [image["file_name"] for image in read["images"]] == ["00000.png"]
