"""Folders whose text files list images, classes and parts."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spanets.data.sources.folder import folder_parts, folder_splits
from spanets.data.sources.labelled import gather_labelled
from spanets_cli import main
from spanets_runtime.errors import UserError

NAMES = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]


def write_lists(root: Path, each: int = 6, trained: int = 4, side: int = 8) -> Path:
    """Writes a small set as CUB-200-2011 is laid out; colours tell its classes apart."""
    rng = np.random.default_rng(0)
    images, labels, split = [], [], []
    for label, name in enumerate(NAMES):
        (root / "images" / name).mkdir(parents=True)
        for number in range(each):
            images.append(f"{name}/{number}.png")
            labels.append(label + 1)
            split.append(int(number < trained))
            pixels = rng.integers(0, 60, (side, side, 3), dtype=np.uint8)
            pixels[..., label] += 180
            Image.fromarray(pixels).save(root / "images" / images[-1])
    for file, values in (
        ("images.txt", images),
        ("image_class_labels.txt", labels),
        ("train_test_split.txt", split),
        ("classes.txt", NAMES),
    ):
        lines = [f"{number} {value}\n" for number, value in enumerate(values, start=1)]
        (root / file).write_text("".join(lines))
    return root


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    return write_lists(tmp_path / "birds")


def rewrite(path: Path, change) -> None:
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def failure(root: Path) -> str:
    with pytest.raises(UserError) as caught:
        folder_parts(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_lists_say_class_and_part(birds):
    parts = folder_parts(birds)
    assert parts.keys() == {"train", "test"}
    for part, numbers in (("train", range(4)), ("test", range(4, 6))):
        expected = [birds / "images" / name / f"{i}.png" for name in NAMES for i in numbers]
        assert parts[part].images == expected
        assert parts[part].classes == NAMES
        assert parts[part].labels == [c for c in range(3) for _ in numbers]
        assert "list 12 for train, 6 for test, of 3 classes" in parts[part].notes[0]


def test_the_order_of_the_lists_does_not_matter(birds):
    before = folder_parts(birds)
    rewrite(birds / "image_class_labels.txt", lambda lines: lines[::-1])
    rewrite(birds / "train_test_split.txt", lambda lines: lines[::2] + lines[1::2])
    assert folder_parts(birds) == before


def test_test_images_are_not_for_validation(birds):
    split = folder_splits(birds, 0.25)
    assert split.keys() == {"train", "val", "test"}
    assert split["test"].images == folder_parts(birds)["test"].images
    assert [len(split[part]) for part in ("train", "val")] == [9, 3]


def test_words_as_numbers_spaces_in_names_and_parents_without_images(birds):
    """As NABirds has them."""
    for name in ("images.txt", "image_class_labels.txt", "train_test_split.txt"):
        rewrite(birds / name, lambda lines: [f"0000139e-21dc\t{line}" for line in lines])
        rewrite(
            birds / name,
            lambda lines: [line.replace("\t", "-").replace(" ", "  ", 1) for line in lines],
        )
    (birds / "classes.txt").write_text("0 Birds\n1 Dark-eyed Junco (Slate-colored)\n3 B\n2 C\n")
    parts = folder_parts(birds)
    assert parts["train"].classes == ["Dark-eyed Junco (Slate-colored)", "B", "C"]
    assert parts["train"].labels == [0] * 4 + [2] * 4 + [1] * 4
    assert any("1 classes of classes.txt left out" in note for note in parts["train"].notes)


def test_without_classes_and_split(birds):
    (birds / "classes.txt").unlink()
    (birds / "train_test_split.txt").unlink()
    parts = folder_parts(birds)
    assert parts.keys() == {"train"}
    assert parts["train"].classes == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("images.txt", lambda lines: [*lines, "1 a.png"], "line 19: 1 has a line already"),
        ("images.txt", lambda lines: [*lines, "19"], "line 19: '19' needs a number and a value"),
        ("images.txt", lambda lines: [*lines, "19 no/x.png"], "has no line for image 19"),
        ("images.txt", lambda lines: lines[1:], "image 1 is not in images.txt"),
        ("images.txt", lambda lines: ["1 ../../etc/x.png", *lines[1:]], "leads out of"),
        ("images.txt", lambda lines: ["1 gone/x.png", *lines[1:]], "gone/x.png is not in"),
        ("images.txt", lambda lines: ["1 " + lines[1].split()[1], *lines[1:]], "twice"),
        ("image_class_labels.txt", lambda lines: ["1 7", *lines[1:]], "class 7 is not in"),
        ("train_test_split.txt", lambda lines: ["1 2", *lines[1:]], "'2', allowed: 1"),
        (
            "train_test_split.txt",
            lambda lines: [f"{i} 0" if i < 7 else line for i, line in enumerate(lines, start=1)],
            "'001.Black_footed_Albatross' has no training images",
        ),
        (
            "train_test_split.txt",
            lambda lines: [line[:-1] + "0" for line in lines],
            "lists no image for training",
        ),
        ("classes.txt", lambda lines: ["1 x", "2 x", *lines[2:]], "1 and 2 are both 'x'"),
        ("classes.txt", lambda lines: [""], "is empty"),
    ],
)
def test_damaged_lists(birds, name, change, said):
    rewrite(birds / name, change)
    message = failure(birds)
    assert said in message and ".txt" in message


def test_lists_that_are_no_text(birds):
    (birds / "classes.txt").write_bytes(b"1 \xff\xfe\n")
    assert "is not text in UTF-8" in failure(birds)


def test_images_that_are_not_listed_are_counted(birds):
    Image.new("RGB", (8, 8)).save(birds / "images" / NAMES[0] / "more.png")
    notes = folder_parts(birds)["train"].notes
    assert any("1 images left out that images.txt does not list" in note for note in notes)


def test_the_folders_beside_say_where_the_lists_are(birds):
    assert f"name {birds}" in failure(birds.parent)
    notes = folder_parts(birds / "images")["train"].notes
    assert any(f"listed in {birds}" in note for note in notes)
    of_statistics = gather_labelled([birds / "images"]).notes
    assert any(f"listed in {birds}" in note for note in of_statistics)


def test_statistics_take_the_parts_of_the_lists(birds):
    listed = gather_labelled([birds])
    assert listed.parts == ["train"] * 12 + ["test"] * 6
    assert set(listed.classes) == set(NAMES)
    assert listed.names[0] == f"images/{NAMES[0]}/0.png"


def test_training_then_measuring_the_test_images(tmp_path, capsys):
    birds, run = write_lists(tmp_path / "birds", 10, 7, side=40), tmp_path / "run"
    settings = {
        "data.root": birds, "model.name": "spanet_nano", "model.pretrained": False,
        "data.image_size": 32, "data.workers": 0, "data.val_fraction": 0.3,
        "optim.batch_size": 8, "trainer.epochs": 1, "optim.warmup_epochs": 0,
    }  # fmt: skip
    words = [
        str(word)
        for k, v in settings.items()
        for word in (f"--{k}", str(v).lower() if isinstance(v, bool) else v)
    ]
    assert main(["train", "finegrained", *words, "--out", str(run)]) == 0
    capsys.readouterr()
    for named in ([], ["--data", str(birds)]):
        assert main(["eval", str(run / "last.ckpt"), "--workers", "0", "--json", *named]) == 0
        out = capsys.readouterr()
        results = json.loads(out.out)
        assert results["images"] == 9
        assert not any("trained on" in note for note in results["notes"])
