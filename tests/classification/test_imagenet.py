"""ImageNet's evaluation sets in miniature, by a classifier whose every answer is known."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from small_runs import call
from timm.models import register_model
from torch import nn

from spanets.checkpoint import ModelInfo, save_torch
from spanets.classification.imagenet import ALEXNET_ERRORS, summarise_corruptions
from spanets.data.corruptions import KINDS
from spanets.data.sources.imagenet import LAYOUTS, find_layout, wordnet_ids

IDS = wordnet_ids()
# A checkpoint may have its classes in an order of its own.
CLASSES = IDS[::-1]


def colour(name: str) -> np.ndarray:
    """The colour that stands for a class: ten levels of three channels, 25 apart."""
    number = IDS.index(name)
    return np.array([number % 10, number // 10 % 10, number // 100]) * 25 + 12


class NearestColour(nn.Module):
    """Answers with the class whose colour is nearest to the image's mean."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("colours", torch.zeros(num_classes, 3))

    def forward(self, images):
        return -torch.cdist(images.mean((2, 3)) * 255, self.colours)


@register_model
def test_nearest_colour(pretrained=False, num_classes=1000, **_):
    return NearestColour(num_classes)


test_nearest_colour.__test__ = False  # timm's small models for tests are called so too


def write(path: Path, name: str) -> None:
    """Writes an image of a class's colour: a PNG, whatever its suffix, for the colour to stay."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), tuple(colour(name).tolist())).save(path, "PNG")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("imagenet") / "colours.ckpt"
    preprocessing = {
        "input_size": [3, 8, 8],
        "crop_pct": 0.5,
        "interpolation": "bicubic",
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
    }
    info = ModelInfo("test_nearest_colour", {}, list(CLASSES), preprocessing, {}, "0")
    colours = torch.tensor(np.array([colour(name) for name in CLASSES]), dtype=torch.float32)
    save_torch({"state_dict": {"model.colours": colours}, "spanets": info.to_dict()}, path)
    return path


@pytest.fixture
def evaluate(checkpoint, capsys):
    """Evaluates on a folder; returns the results."""

    def run(root: Path, *words: str) -> dict:
        words = ("eval", checkpoint, "--data", root, "--workers", "0", *words)
        status, printed, said = call(capsys, *words, "--json")
        assert status == 0, said
        lines = call(capsys, *words)[1]
        results = json.loads(printed)
        assert f"{results['images']} images" in lines
        return results

    return run


def test_validation_images_in_folders(evaluate, tmp_path):
    """Three of four are right."""
    for folder, seen in [(1, 1), (1, 7), (20, 20), (999, 999)]:
        write(tmp_path / "val" / IDS[folder] / f"{seen}.JPEG", IDS[seen])
    found = evaluate(tmp_path)
    assert (found["layout"], found["images"]) == ("imagenet", 4)
    assert found["metrics"]["accuracy"] == 0.75
    # The colour of class 7 is six steps off that of 1: others are nearer.
    assert found["metrics"]["accuracy_top5"] == 0.75
    assert evaluate(tmp_path / "val", "--layout", "imagenet")["metrics"] == found["metrics"]


def test_v2_has_numbers_for_names(evaluate, tmp_path):
    """Sorted as names, 10 would come before 2."""
    for number in (2, 10, 100):
        write(tmp_path / str(number) / "a.jpeg", IDS[number])
    write(tmp_path / "2/b.jpeg", IDS[10])
    found = evaluate(tmp_path)
    assert (found["layout"], found["metrics"]["accuracy"]) == ("imagenet-v2", 0.75)


@pytest.mark.parametrize("layout", ["imagenet-a", "imagenet-r"])
def test_subsets_restrict_the_answers(evaluate, tmp_path, layout):
    """An image like a class outside the subset is answered with the nearest class inside."""
    subset = wordnet_ids(layout)
    assert len(subset) == 200

    def nearest(name: str) -> str:
        return min(subset, key=lambda other: float(np.square(colour(name) - colour(other)).sum()))

    outside = next(name for name in IDS if name not in subset and IDS.index(name) > 300)
    write(tmp_path / nearest(outside) / "0.jpg", outside)
    write(tmp_path / subset[0] / "1.jpg", subset[0])
    write(tmp_path / subset[1] / "2.jpg", subset[0])
    found = evaluate(tmp_path, "--layout", layout)
    assert found["metrics"]["accuracy"] == pytest.approx(2 / 3)
    assert found["classes"] == 200
    unrestricted = evaluate(tmp_path, "--layout", "imagenet")
    assert unrestricted["metrics"]["accuracy"] == pytest.approx(1 / 3)


def test_real_takes_any_of_several_labels(evaluate, tmp_path):
    labels = [[3, 40], [5], [], [7]]
    (tmp_path / "real.json").write_text(json.dumps(labels))
    for number, seen in enumerate((40, 6, 9, 7)):  # right, wrong, without label, right
        write(tmp_path / f"any/where/ILSVRC2012_val_{number + 1:08}.JPEG", IDS[seen])
    found = evaluate(tmp_path)
    assert (found["layout"], found["images"], found["skipped"]) == ("imagenet-real", 3, 1)
    assert found["metrics"] == {"accuracy": pytest.approx(2 / 3)}


def test_real_labels_come_with_timm(evaluate, tmp_path):
    write(tmp_path / "ILSVRC2012_val_00000001.JPEG", IDS[65])
    write(tmp_path / "ILSVRC2012_val_00000002.JPEG", IDS[970])
    found = evaluate(tmp_path)
    assert (found["layout"], found["metrics"]["accuracy"]) == ("imagenet-real", 1)
    assert (found["images"], found["skipped"]) == (1, 1)  # the first image has none


def test_c_measures_kinds_and_severities(evaluate, tmp_path):
    for severity in (1, 2):
        for number in (5, 6):
            write(tmp_path / f"fog/{severity}/{IDS[number]}/a.JPEG", IDS[number])
    write(tmp_path / f"fog/2/{IDS[5]}/a.JPEG", IDS[6])
    for number in (5, 6):
        write(tmp_path / f"spatter/3/{IDS[number]}/a.JPEG", IDS[number])
    found = evaluate(tmp_path)
    assert (found["layout"], found["images"]) == ("imagenet-c", 6)
    assert found["kinds"]["fog"] == {"errors": {"1": 0, "2": 0.5}, "error": 0.25}
    assert found["kinds"]["spatter"]["errors"] == {"3": 0}
    assert found["metrics"] == {"error": None, "mce": None}  # of 15 kinds


def test_c_shows_whole_images(evaluate, tmp_path):
    """The checkpoint's crop of a half would see nothing but the middle, which is of class 0."""
    write(tmp_path / f"snow/1/{IDS[0]}/a.JPEG", IDS[0])
    ring = np.full((8, 8, 3), 0, np.uint8) + colour(IDS[0]).astype(np.uint8)
    ring[:, :, 0] = 12 + 4 * 25  # a mean of 12 + 3 * 25, the colour of class 3, with this middle
    ring[2:6, 2:6, 0] = 12
    path = tmp_path / f"snow/1/{IDS[3]}/a.JPEG"
    path.parent.mkdir()
    Image.fromarray(ring).save(path, "PNG")
    assert evaluate(tmp_path)["kinds"]["snow"]["error"] == 0


def test_mce_is_relative_to_alexnet():
    errors = {kind: {str(s): ALEXNET_ERRORS[kind] for s in range(1, 6)} for kind in KINDS}
    alexnet = summarise_corruptions(errors)
    assert alexnet["metrics"]["mce"] == pytest.approx(1)
    halved = {kind: {s: e / 2 for s, e in row.items()} for kind, row in errors.items()}
    extra = {"spatter": {str(s): 1.0 for s in range(1, 6)}}
    assert summarise_corruptions(halved | extra)["metrics"]["mce"] == pytest.approx(0.5)
    del errors["fog"]["3"]
    assert summarise_corruptions(errors)["metrics"] == {"error": None, "mce": None}


# ---- which layout


@pytest.mark.parametrize("layout", ["imagenet-a", "imagenet-r"])
def test_subsets_are_known_by_their_classes(tmp_path, layout):
    for name in wordnet_ids(layout):
        (tmp_path / name).mkdir()
    assert find_layout(tmp_path, CLASSES) == layout
    (tmp_path / wordnet_ids(layout)[0]).rmdir()
    assert find_layout(tmp_path, CLASSES) is None  # classes of the checkpoint's, as any


def test_other_peoples_folders_are_left_alone(tmp_path):
    for name in ("0", "1", "fog"):
        (tmp_path / name).mkdir()
    assert find_layout(tmp_path, ["0", "1", "fog"]) is None


def test_wrong_layouts_are_named(checkpoint, tmp_path, refused):
    write(tmp_path / "cat/a.jpg", IDS[0])

    def said(root: Path, layout: str) -> str:
        return refused(1, "eval", checkpoint, "--data", root, "--layout", layout)

    for layout, expected in LAYOUTS.items():
        found = "an image 'a.jpg'" if layout == "imagenet-real" else "a folder 'cat'"
        line = f"{tmp_path}: not laid out as {layout}: expected {expected}; found {found}"
        assert said(tmp_path, layout) == line
    (tmp_path / "cat").rename(tmp_path / "frog")
    assert said(tmp_path, "imagenet-c").endswith("found a folder 'frog'; did you mean 'fog'?")
    (tmp_path / "frog").rename(tmp_path / "fog")
    assert said(tmp_path, "imagenet-c").endswith("found no folders 1 to 5 in fog")
    (tmp_path / "empty").mkdir()
    assert said(tmp_path / "empty", "imagenet-v2").endswith("found no folders")
    assert said(tmp_path / "none", "imagenet-v2").endswith("none: no such folder")


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[[1000]]", "[[true]]", "[1]"])
def test_damaged_labels(checkpoint, tmp_path, refused, text):
    (tmp_path / "real.json").write_text(text)
    write(tmp_path / "ILSVRC2012_val_00000001.JPEG", IDS[0])
    line = refused(1, "eval", checkpoint, "--data", tmp_path)
    assert line.startswith(f"{tmp_path / 'real.json'}: damaged; must hold a list of numbers")


def test_an_image_without_a_number_of_its_own(checkpoint, tmp_path, refused):
    (tmp_path / "real.json").write_text("[[1], []]")
    write(tmp_path / "ILSVRC2012_val_00000003.JPEG", IDS[0])
    line = refused(1, "eval", checkpoint, "--data", tmp_path)
    assert line.endswith("there are labels for images 1 to 2 alone")
    (tmp_path / "ILSVRC2012_val_00000003.JPEG").rename(tmp_path / "ILSVRC2012_val_00000002.JPEG")
    line = refused(1, "eval", checkpoint, "--data", tmp_path)
    assert line == f"{tmp_path}: none of its 1 images has a reassessed label"


def test_checkpoints_of_other_classes(small_run, tmp_path, refused):
    write(tmp_path / "0/a.jpg", IDS[0])
    words = ["eval", small_run / "last.ckpt", "--data", tmp_path, "--layout"]
    line = refused(1, *words, "imagenet-v2")
    assert line == (
        "layout imagenet-v2 needs a checkpoint whose classes are WordNet ids, such as n01440764; "
        "this one's are cat, dog"
    )
    line = refused(2, *words, "imagenet-d")
    assert line.startswith("--layout is 'imagenet-d', allowed: imagenet, imagenet-real")
    line = refused(2, "eval", small_run / "last.ckpt", "--layout", "imagenet")
    assert line == "--layout imagenet needs a folder: --data DIR"


def test_checkpoints_of_too_few_classes(checkpoint, tmp_path, refused):
    content = torch.load(checkpoint, weights_only=True)
    content["spanets"]["classes"] = list(IDS[:6])
    content["state_dict"]["model.colours"] = content["state_dict"]["model.colours"][:6]
    torch.save(content, tmp_path / "six.ckpt")
    write(tmp_path / "data/0/a.jpg", IDS[0])
    line = refused(1, "eval", tmp_path / "six.ckpt", "--data", tmp_path / "data")
    assert line == (
        "layout imagenet-v2 needs all its 1000 classes, and the checkpoint lacks 994 of them, "
        f"such as {IDS[6]}"
    )


def test_the_stand_in_is_a_model_of_timms():
    assert timm.is_model("test_nearest_colour")
