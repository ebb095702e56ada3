"""Batches for detectors: boxes stay with their masks, draws depend on seed, epoch and image."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from spanets.data.sampler import isolated_seed
from spanets.detection import data as detection
from spanets.detection import shapes
from spanets.detection.data import (
    EvaluationImages,
    RandomSizeCrop,
    TrainingImages,
    evaluation_transform,
    make_loaders,
    preprocessing_of,
    train_transform,
)
from spanets.detection.reading import read_part
from spanets.detection.recipe import DetectionData
from spanets.formats.coco.bits import unpack_masks
from spanets.formats.coco.loading import load_checked
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.images import ImageError

SIDE = 64
PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory):
    """Ten images of shapes, on noise."""
    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    out = tmp_path_factory.mktemp("shapes") / "set"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "load_photographs", lambda part: [Image.fromarray(noise)])
        shapes.write_shapes(out, images=10, size=SIDE)
    return out


@pytest.fixture
def section(shapes_folder):
    """The data section of a recipe for them."""

    def section(**changes) -> DetectionData:
        parts = {
            f"{part}_{what}": f"{what}/{part}{'.json' if what == 'annotations' else ''}"
            for part in ("train", "val")
            for what in ("images", "annotations")
        }
        plain = {"short_side": SIDE, "long_side": 2 * SIDE, "train_short_sides": (SIDE, SIDE)}
        plain |= {"root": str(shapes_folder), "workers": 0}
        return DetectionData(**{**parts, **plain, **changes})

    return section


def masks_of(pixels, target) -> torch.Tensor:
    return unpack_masks(target["mask_bits"], pixels.shape[2])


def training(data: DetectionData, seed: int = 0) -> TrainingImages:
    return TrainingImages(read_part(data, "train"), train_transform(data), True, seed)


def same(a, b) -> bool:
    return a[1].keys() == b[1].keys() and all(
        torch.equal(x, y)
        for x, y in zip([a[0], *a[1].values()], [b[0], *b[1].values()], strict=True)
    )


# ---- targets


def test_targets_are_the_file_s(section):
    data = section(hflip=0.0, **PLAIN)
    part = read_part(data, "train")
    for index, image in enumerate(part.images):
        pixels, target = training(data)[index]
        expected = np.asarray(Image.open(image.path), np.float32).transpose(2, 0, 1) / 255
        # A resize to its own size leaves 8 bits as they are; the quotients are rounded apart.
        assert np.allclose(pixels.numpy(), expected, rtol=0, atol=1e-7)
        assert target["boxes"].tolist() == [list(a.box) for a in image.annotations]
        assert target["labels"].tolist() == [a.label for a in image.annotations]
        assert target["area"].tolist() == [a.area for a in image.annotations]
        assert not target["iscrowd"].any()
        assert target["image_id"].item() == image.id
        types = {name: value.dtype for name, value in target.items()}
        assert types["boxes"] == torch.float32
        assert types["labels"] == torch.int64
        assert types["mask_bits"] == torch.uint8
        assert all(type(value) is torch.Tensor for value in [pixels, *target.values()])


def boxes_of(masks) -> torch.Tensor:
    """The smallest boxes around masks (N, H, W)."""
    spans = []
    for mask in masks:
        rows, columns = (mask.any(dim).nonzero()[:, 0] for dim in (1, 0))
        spans.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return torch.tensor(spans, dtype=torch.float32)


@pytest.mark.parametrize(
    "changes",
    [
        {"hflip": 1.0},
        {"quarter_turns": True, "recolour": 1.0},
        {"train_short_sides": (96, 160), "long_side": 200},
        {"train_crop": True, "train_short_sides": (96, 160), "long_side": 200},
    ],
)
def test_boxes_move_with_masks(section, changes, monkeypatch):
    # The paper's crop is of larger images.
    monkeypatch.setattr(detection, "CROP_SHORT_SIDES", (70, 80))
    monkeypatch.setattr(detection, "CROP_SIDES", (50, 60))
    dataset = training(section(**changes))
    sides, seen = set(), 0
    for epoch in range(4):
        for index in range(len(dataset)):
            pixels, target = dataset[epoch, index]
            sides.add(pixels.shape[-1])
            assert masks_of(pixels, target).shape[1:] == pixels.shape[1:]
            assert len(masks_of(pixels, target)) == len(target["boxes"]) == len(target["labels"])
            if not len(masks_of(pixels, target)):
                continue
            seen += 1
            around = boxes_of(masks_of(pixels, target))
            # Masks are resized to the nearest pixel, boxes exactly: at 2.5 times the size they part
            # by up to 2.5 pixels, with a resize before it by twice that.
            beyond = torch.cat(
                [target["boxes"][:, :2] - around[:, :2], around[:, 2:] - target["boxes"][:, 2:]]
            )
            if "train_crop" in changes:  # which may leave a box larger than what is in it
                assert beyond.max() <= 5
            else:
                assert beyond.abs().max() <= 2.5
            assert torch.equal(target["area"], masks_of(pixels, target).sum((1, 2)).float())
    assert seen > 25
    assert len(sides) >= (3 if "train_short_sides" in changes else 1)


def test_a_flip_is_a_flip(section):
    plain, flipped = (training(section(hflip=p, **PLAIN))[0] for p in (0.0, 1.0))
    assert torch.equal(flipped[0], plain[0].flip(2))
    assert torch.equal(masks_of(*flipped), masks_of(*plain).flip(2))
    assert torch.equal(flipped[1]["boxes"][:, 0], SIDE - plain[1]["boxes"][:, 2])


def test_scales_of_the_recipes(section):
    data = section(train_short_sides=(480, 800), long_side=1333)
    dataset = TrainingImages(read_part(data, "train"), train_transform(data), False, 0)
    sides = {dataset[epoch, 0][0].shape[1] for epoch in range(40)}
    assert sides <= set(range(480, 801, 32))
    assert len(sides) > 8
    short, long = evaluation_transform(preprocessing_of(DetectionData()))(
        Image.new("RGB", (640, 200))
    ).shape[1:]
    assert (short, long) == (416, 1333)


def test_crops():
    pixels = torch.arange(30 * 40).reshape(1, 30, 40)
    torch.manual_seed(0)
    shapes_seen = {tuple(RandomSizeCrop(10, 50)(pixels).shape[1:]) for _ in range(200)}
    heights, widths = zip(*shapes_seen, strict=True)
    assert (min(heights), max(heights)) == (10, 30)
    assert min(widths) in (10, 11)
    assert max(widths) in (39, 40)


@pytest.mark.parametrize("size", [(4000, 2), (2, 3000), (1000, 1), (1, 1), (8, 8)])
@pytest.mark.parametrize("crop", [False, True])
def test_images_of_a_few_rows_or_columns(section, tmp_path, size, crop):
    """Whatever the recipe does, a pixel is left of them."""
    Image.new("RGB", size).save(tmp_path / "a.png")
    part = read_part(section(), "train")
    box = (0.0, 0.0, float(size[0]), float(size[1]))
    runs = {"size": size[::-1], "counts": [0, size[0] * size[1]]}
    one = replace(part.images[0].annotations[0], box=box, segmentation=runs)
    image = replace(
        part.images[0], path=tmp_path / "a.png", width=size[0], height=size[1], annotations=(one,)
    )
    data = section(train_crop=crop, quarter_turns=True)
    dataset = TrainingImages(replace(part, images=[image]), train_transform(data), True, 0)
    for epoch in range(6):
        pixels, target = dataset[epoch, 0]
        assert min(pixels.shape) >= 1
        assert masks_of(pixels, target).shape[1:] == pixels.shape[1:]
        assert masks_of(pixels, target).all()
        assert len(target["labels"]) == 1
    seen = evaluation_transform(preprocessing_of(data))(Image.open(tmp_path / "a.png"))
    assert min(seen.shape) >= 1
    assert max(seen.shape) <= data.long_side


def test_crops_and_sizes_are_drawn_as_before(section, monkeypatch):
    """Images and boxes of a run that is resumed are those that torchvision's transforms draw."""
    monkeypatch.setattr(detection, "CROP_SHORT_SIDES", (70, 80))
    monkeypatch.setattr(detection, "CROP_SIDES", (50, 60))
    data = section(train_crop=True, quarter_turns=True, train_short_sides=(64, 128), **PLAIN)
    ours = TrainingImages(read_part(data, "train"), train_transform(data), False, 0)
    scale = v2.RandomShortestSize([64, 96, 128], data.long_side)
    cut = v2.Compose([v2.RandomShortestSize((70, 80)), RandomSizeCrop(50, 60), scale])
    peer = v2.Compose(
        [
            v2.RandomHorizontalFlip(0.5),
            PlainTurn(),
            v2.RandomChoice([scale, cut]),
            v2.ClampBoundingBoxes(),
            v2.SanitizeBoundingBoxes(),
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
        ]
    )
    for epoch in range(2):
        for index, image in enumerate(ours.data.images):
            boxes = torch.tensor([a.box for a in image.annotations])
            given = {
                "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(SIDE, SIDE)),
                "labels": torch.tensor([a.label for a in image.annotations]),
            }
            with isolated_seed(0, epoch, index):
                expected, target = peer(v2.functional.to_image(load_checked(image)), given)
            pixels, found = ours[epoch, index]
            assert torch.equal(pixels, expected.as_subclass(torch.Tensor))
            assert torch.equal(found["labels"], target["labels"])
            torch.testing.assert_close(found["boxes"], target["boxes"].as_subclass(torch.Tensor))


class PlainTurn(v2.Transform):
    """A quarter turn by torchvision alone."""

    def make_params(self, flat_inputs):
        return {"angle": 90.0 * int(torch.randint(4, ()))}

    def transform(self, inpt, params):
        return v2.functional.rotate(inpt, **params, expand=True)


# ---- draws


def test_draws_depend_on_seed_epoch_and_image(section):
    data = section(train_short_sides=(64, 128))
    first, again, other = training(data), training(data), training(data, seed=1)
    assert all(same(first[1, i], again[1, i]) for i in reversed(range(8)))
    assert not all(same(first[1, i], first[2, i]) for i in range(8))
    assert not all(same(first[1, i], other[1, i]) for i in range(8))
    state = torch.get_rng_state()
    first[3, 0]
    assert torch.equal(state, torch.get_rng_state())


def test_batches(section):
    loaders = make_loaders(section(), masks=True, seed=0, batch_size=3)
    assert loaders.classes == list(shapes.CLASSES)
    batches = list(loaders.train)
    assert [len(images) for images, _ in batches] == [3, 3]  # of eight
    images, targets = next(iter(loaders.val))
    assert images[0].shape == (3, SIDE, SIDE)
    assert [target["image_id"].item() for target in targets] == [1, 2]
    assert targets[0]["size"].tolist() == [SIDE, SIDE]
    boxes = make_loaders(section(), masks=False, seed=0, batch_size=3)
    assert "mask_bits" not in next(iter(boxes.train))[1][0]


def test_workers_change_nothing(section):
    batches = [
        [pair for images, targets in loader for pair in zip(images, targets, strict=True)]
        for workers in (0, 2)
        for loader in [make_loaders(section(workers=workers), True, 0, 2).train]
    ]
    assert all(same(a, b) for a, b in zip(*batches, strict=True))


def test_evaluation_keeps_the_aspect_and_the_size_of_the_file(section):
    data = section(short_side=96, long_side=100)
    dataset = EvaluationImages(read_part(data, "val"), preprocessing_of(data))
    image, target = dataset[0]
    assert image.shape == (3, 96, 96)
    assert type(image) is torch.Tensor
    assert target["size"].tolist() == [SIDE, SIDE]
    assert len(dataset) == 2


def test_normalisation(section):
    data = section(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    white = evaluation_transform(preprocessing_of(data))(Image.new("RGB", (80, 80), "white"))
    assert white.amax((1, 2)).tolist() == white.amin((1, 2)).tolist() == [1, 3, 0.5]


# ---- bad input


def test_an_image_of_another_size(section):
    image = replace(read_part(section(), "train").images[0], width=SIDE + 1)
    with pytest.raises(
        ImageError, match=r"00000.png: has 64x64 pixels, .* are for 65x64; annotate this"
    ):
        load_checked(image)


def turned_photo(section, tmp_path, orientation: int, size=(30, 20)):
    """A photograph stored as it came from the sensor, annotated as it is stored."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", size).save(tmp_path / "a.jpg", exif=exif)
    first = read_part(section(), "train").images[0]
    return replace(first, path=tmp_path / "a.jpg", width=size[0], height=size[1])


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_photograph_that_was_annotated_before_it_is_turned(section, tmp_path, orientation):
    image = turned_photo(section, tmp_path, orientation)
    with pytest.raises(ImageError) as caught:
        load_checked(image)
    assert str(caught.value) == (
        f"{tmp_path}/a.jpg: has 20x30 pixels, its annotations are for 30x20: for the image before "
        f"it is turned upright (EXIF orientation {orientation}); turn the annotations, or remove "
        "the orientation from the file"
    )
    load_checked(replace(image, width=20, height=30))


def test_other_reasons_for_another_size(section, tmp_path):
    image = turned_photo(section, tmp_path, 1)
    with pytest.raises(ImageError, match=r"20x30: width and height are exchanged in one of them$"):
        load_checked(replace(image, width=20, height=30))
    with pytest.raises(ImageError, match="60x40; annotate this file, or scale the annotations to"):
        load_checked(replace(image, width=60, height=40))
    assert load_checked(image).size == (30, 20)


def test_a_damaged_image(section, tmp_path):
    image = replace(read_part(section(), "train").images[0], path=tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png: no such file; remove or replace this file"):
        load_checked(image)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"root": None}, UsageError, r"data\.root is not set; give .*: --data\.root DIR"),
        ({"root": "/nowhere"}, UserError, r"/nowhere: no such folder"),
        ({"train_annotations": "x.json"}, UserError, r"x\.json: cannot be read"),
        (
            {"train_images": "x"},
            UserError,
            r"no image with objects .*00000\.png: no such image and",
        ),
        ({"val_images": "x"}, UserError, r"x/00000\.png: no such image and 1 more; add what is"),
    ],
)
def test_data_that_is_not_there(section, changes, kind, message):
    with pytest.raises(kind, match=message):
        make_loaders(section(**changes), True, 0, 2)


def test_too_few_images(section):
    with pytest.raises(UserError, match="8 training images are too few for 9 devices"):
        make_loaders(section(), True, 0, 2, processes=9)


def test_a_class_without_training(section, shapes_folder, tmp_path):
    content = json.loads((shapes_folder / "annotations/val.json").read_text())
    content["categories"][2]["name"] = "hexagon"
    path = tmp_path / "val.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"val\.json: has objects of class 'hexagon', which the"):
        make_loaders(section(val_annotations=str(path)), True, 0, 2)


@pytest.mark.parametrize("part", ["train", "val"])
def test_an_object_without_a_mask_is_told_before_training(section, shapes_folder, tmp_path, part):
    content = json.loads((shapes_folder / f"annotations/{part}.json").read_text())
    number, count = content["annotations"][-1]["id"], len(content["annotations"])
    del content["annotations"][-1]["segmentation"]
    path = tmp_path / "lacking.json"
    path.write_text(json.dumps(content))
    data = section(**{f"{part}_annotations": str(path)})
    said = rf"lacking\.json: annotation {number} has no segmentation \(1 of {count} have none\)"
    with pytest.raises(UserError, match=said):
        make_loaders(data, True, 0, 2)
    make_loaders(data, False, 0, 2)  # a detector of boxes has no need of it


@pytest.fixture
def changed_part(section, shapes_folder, tmp_path):
    """Writes a part's annotations after a change, and returns the section with them."""

    def change(part: str, change, **more) -> DetectionData:
        content = json.loads((shapes_folder / f"annotations/{part}.json").read_text())
        change(content)
        path = tmp_path / f"{part}.json"
        path.write_text(json.dumps(content))
        return section(**{f"{part}_annotations": str(path)}, **more)

    return change


def notes_of(data: DetectionData) -> list[str]:
    """Without paths and numbers."""
    notes = make_loaders(data, True, 0, 2).notes
    return [re.sub(r"^\S*/|\d+", "", note) for note in notes]


def test_what_is_left_out_is_told(changed_part):
    def empty_boxes(content):
        first = content["images"][0]["id"]
        for annotation in content["annotations"]:
            if annotation["image_id"] == first:
                annotation["bbox"][2] = 0

    data = changed_part("train", empty_boxes)
    assert notes_of(data) == [
        "train.json: of the annotations, skipped  with an empty box (id , …)",
        "images without objects, left out of training: ",
    ]
    loaders = make_loaders(data, True, 0, 2)
    assert len(loaders.train.dataset) == 7
    assert len(make_loaders(replace(data, keep_empty=True), True, 0, 2).train.dataset) == 8


def test_classes_without_objects_are_told(changed_part, section):
    def drop(label):
        def change(content):
            kept = [a for a in content["annotations"] if a["category_id"] != label]
            content["annotations"] = kept

        return change

    assert notes_of(section()) == []
    first = shapes.CLASSES[0]
    assert notes_of(changed_part("train", drop(1))) == [
        f"train.json: no object to learn  of  classes ({first!r}) from;  of them in validation"
    ]
    assert notes_of(changed_part("val", drop(1))) == [
        f"val.json: no object to measure  of  classes ({first!r}) on"
    ]


def test_images_of_both_parts_or_none_are_told(section, shapes_folder, tmp_path):
    data = section(
        val_images="images/train", val_annotations="annotations/train.json", keep_empty=True
    )
    assert notes_of(data) == [
        "train.json:  of  image files are trained on as well ('.png'); measured on them, a "
        "detector looks better than it is"
    ]
    root = tmp_path / "copy"
    shutil.copytree(shapes_folder, root)
    for place in ("images/val/extra.png", "images/val/deep/extra.jpg", "images/val/.hidden.png"):
        (root / place).parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9)).save(root / place)
    (note,) = make_loaders(section(root=str(root)), True, 0, 2).notes
    assert note == (
        f"{root}/images/val: 2 of 4 images are in no annotation file ('extra.jpg'), left out"
    )


def shrink(objects: slice):
    """Makes some objects' boxes three tenths of a pixel wide."""

    def change(content):
        for annotation in content["annotations"][objects]:
            annotation["bbox"][2] = 0.3
            x, y, w, h = annotation["bbox"]
            annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]

    return change


def test_objects_of_less_than_a_pixel_are_told(changed_part, section):
    total = sum(len(image.annotations) for image in read_part(section(), "train").images)
    data = changed_part("train", shrink(slice(3)), train_short_sides=(64, 256), long_side=256)
    (note,) = make_loaders(data, True, 0, 2).notes
    assert note.endswith(
        f"train.json: of {total} objects, 3 at a short side of 64, 0 at a short side of 256 are "
        "less than a pixel wide or high, and left out of training there; raise "
        "data.train_short_sides, or cut the images into parts"
    )
    part = read_part(data, "train")
    left = []
    for side in data.train_short_sides:
        transform = train_transform(replace(data, train_short_sides=(side, side)))
        left.append(len(TrainingImages(part, transform, False, 0)[0, 0][1]["labels"]))
    assert left[0] < left[1]
    data = changed_part("train", shrink(slice(None)))
    with pytest.raises(UserError, match="a pixel wide or high, and none is left to train on; rai"):
        make_loaders(data, True, 0, 2)
    make_loaders(replace(data, train_crop=True), True, 0, 2)  # which may enlarge them
    (note,) = make_loaders(changed_part("val", shrink(slice(2))), True, 0, 2).notes
    assert "2 of " in note
    assert note.endswith("a detector sees, a short side of 64, and can hardly be found")


@pytest.mark.parametrize("epoch", range(4))
def test_an_image_without_objects_has_an_empty_target(section, tmp_path, epoch):
    """Whichever way it is turned, also where it is no square."""
    Image.new("RGB", (50, 30)).save(tmp_path / "a.png")
    part = read_part(section(), "train")
    image = replace(part.images[0], path=tmp_path / "a.png", width=50, height=30, annotations=())
    data = section(train_crop=True, quarter_turns=True, keep_empty=True)
    dataset = TrainingImages(replace(part, images=[image]), train_transform(data), True, 0)
    pixels, target = dataset[epoch, 0]
    assert target["boxes"].shape == (0, 4)
    assert masks_of(pixels, target).shape[0] == target["labels"].shape[0] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_short_sides": (128, 64)}, r"train_short_sides is \[128, 64\], the first must"),
        ({"long_side": 32}, r"data\.long_side is 32, less than a short side of 64"),
    ],
)
def test_sides_in_order(section, changes, message):
    with pytest.raises(UsageError, match=message):
        section(**changes).check()


@pytest.mark.parametrize(
    "changes", [{"std": [0, 1, 1]}, {"mean": "x"}, {"mean": [1]}, {"short_side": 9999}]
)
def test_damaged_preprocessing(changes):
    with pytest.raises(UserError, match="the checkpoint's preprocessing is damaged"):
        evaluation_transform({**preprocessing_of(DetectionData()), **changes})
    with pytest.raises(UserError, match="the checkpoint's preprocessing is damaged"):
        evaluation_transform({})
