"""Folders as people have them, and what is said of those that cannot be used."""

import os
import unicodedata
from pathlib import Path

import pytest

from spanets.data.sources.folder import folder_parts, folder_splits, scan_folder
from spanets_runtime.errors import UserError


def fill(root: Path, **counts: int) -> Path:
    """Makes a folder of class folders with as many (empty) image files as asked."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / name / f"{number}.png").touch()
    return root


def failure(function, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names(samples, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in samples.images]


# ---- scan_folder


def test_classes_and_images_are_sorted(tmp_path):
    for name in ["dog/b.png", "dog/a.JPG", "cat/deep/er/x.jpeg", "cat/y.webp", "Ant/z.tif"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    samples = scan_folder(str(tmp_path))
    assert samples.classes == ["Ant", "cat", "dog"]
    expected = ["Ant/z.tif", "cat/deep/er/x.jpeg", "cat/y.webp", "dog/a.JPG", "dog/b.png"]
    assert names(samples, tmp_path) == expected
    assert samples.labels == [0, 1, 1, 2, 2]
    assert samples.targets is None and samples.strata is None


def test_hidden_and_other_files_are_skipped(tmp_path):
    fill(tmp_path, cat=1, dog=1)
    fill(tmp_path, **{".cache": 1, "dog/.thumbnails": 1})
    for name in ["cat/._0.png", "cat/notes.txt", "cat/png", "preview.png", "README"]:
        (tmp_path / name).touch()
    assert names(scan_folder(tmp_path), tmp_path) == ["cat/0.png", "dog/0.png"]


def test_links_to_images_and_class_folders_are_followed_and_loops_are_not(tmp_path):
    store = fill(tmp_path / "store", dog=2)
    root = fill(tmp_path / "root", cat=1)
    (root / "cat/link.png").symlink_to(store / "dog/1.png")
    (root / "dog").symlink_to(store / "dog")
    (root / "cat/loop").symlink_to(root)
    expected = ["cat/0.png", "cat/link.png", "dog/0.png", "dog/1.png"]
    assert names(scan_folder(root), root) == expected


def test_home_folder_in_a_recipe(tmp_path, monkeypatch):
    fill(tmp_path / "pets", cat=1, dog=1)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # the same on Windows
    assert len(scan_folder("~/pets")) == 2


def test_missing_folder(tmp_path):
    assert failure(scan_folder, tmp_path / "pets") == f"{tmp_path / 'pets'}: no such folder"


def test_file_instead_of_a_folder(tmp_path):
    path = tmp_path / "pets.zip"
    path.touch()
    assert failure(scan_folder, path).startswith(f"{path}: is a file; give the folder")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "the folder is empty; put the images in one folder a class"),
        ("1.png", "images, but no class folders; put the images in one folder a class"),
        ("data.csv", "no class folders; put the images in one folder a class"),
    ],
)
@pytest.mark.parametrize("function", [scan_folder, folder_splits])
def test_no_class_folders(tmp_path, function, name, message):
    if name:
        (tmp_path / name).touch()
    assert failure(function, tmp_path) == f"{tmp_path}: {message}"


def test_only_one_class(tmp_path):
    fill(tmp_path, cat=3)
    assert failure(scan_folder, tmp_path).startswith(f"{tmp_path}: only one class, 'cat'")


def test_class_folders_without_images_are_named(tmp_path):
    fill(tmp_path, cat=3, cow=0, dog=0)
    assert "no images in class folder cow, dog;" in failure(scan_folder, tmp_path)


@pytest.mark.parametrize("unreadable", ["root", "root/cat"])
def test_folders_that_may_not_be_read_are_not_skipped(tmp_path, monkeypatch, unreadable):
    """By a stand-in for the system call: root, who may run this, reads all."""
    root = fill(tmp_path / "root", cat=1, dog=1)
    refused = tmp_path / unreadable

    def refuse(function):
        def call(path):
            if Path(path) == refused:
                raise PermissionError(13, "Permission denied", str(path))
            return function(path)

        return call

    monkeypatch.setattr(os, "scandir", refuse(os.scandir))
    monkeypatch.setattr(os, "listdir", refuse(os.listdir))
    assert failure(scan_folder, root) == f"{refused}: cannot be read (Permission denied)"


# ---- folder_splits


def test_one_folder_of_classes_is_split_by_class(tmp_path):
    parts = folder_splits(fill(tmp_path, cat=8, dog=4))
    assert list(parts) == ["train", "val"]
    assert parts["train"].counts() == {"cat": 6, "dog": 3}
    assert parts["val"].counts() == {"cat": 2, "dog": 1}
    assert sorted(parts["train"].images + parts["val"].images) == scan_folder(tmp_path).images


def test_the_split_depends_on_fraction_and_seed(tmp_path):
    fill(tmp_path, cat=40, dog=40)
    parts = folder_splits(tmp_path, val_fraction=0.1, seed=3)
    assert len(parts["val"]) == 8
    assert parts == folder_splits(tmp_path, val_fraction=0.1, seed=3)
    assert parts != folder_splits(tmp_path, val_fraction=0.1, seed=4)


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_folders_for_the_parts_are_used(tmp_path, val):
    fill(tmp_path / "train", cat=2, cow=1, dog=1)
    fill(tmp_path / val, dog=1, cat=1)
    fill(tmp_path / "test", dog=2)
    fill(tmp_path / "annotations", xml=0)
    parts = folder_splits(tmp_path)
    assert {name: len(part) for name, part in parts.items()} == {"train": 4, "val": 2, "test": 2}
    assert all(part.classes == ["cat", "cow", "dog"] for part in parts.values())
    assert parts["val"].labels == [0, 2]  # "cow" is missing, and "dog" keeps its number
    assert names(parts["val"], tmp_path) == [f"{val}/cat/0.png", f"{val}/dog/0.png"]


def test_test_images_are_never_used_for_validation(tmp_path):
    fill(tmp_path / "train", cat=4, dog=4)
    fill(tmp_path / "test", cat=5, dog=5)
    parts = folder_splits(tmp_path)
    assert {name: len(part) for name, part in parts.items()} == {"train": 6, "val": 2, "test": 10}
    assert all("train" in path.parts for path in parts["val"].images)


def test_a_train_folder_alone_is_split(tmp_path):
    parts = folder_splits(fill(tmp_path / "train", cat=4, dog=4).parent)
    assert parts["val"].classes == ["cat", "dog"]
    assert (len(parts["train"]), len(parts["val"])) == (6, 2)


def test_train_may_be_a_class(tmp_path):
    parts = folder_splits(fill(tmp_path, bus=4, car=4, train=4))
    assert parts["train"].classes == ["bus", "car", "train"]


def test_unknown_class_in_val_is_named(tmp_path):
    fill(tmp_path / "train", cat=2, dog=2)
    fill(tmp_path / "val", cats=1, dog=1)
    message = failure(folder_splits, tmp_path)
    assert "class 'cats' has no training images; did you mean 'cat'?" in message
    assert message.startswith(str(tmp_path / "val" / "cats"))


@pytest.mark.parametrize("part", ["val", "test"])
def test_part_without_images(tmp_path, part):
    fill(tmp_path / "train", cat=2, dog=2)
    fill(tmp_path / part, cat=0)
    assert failure(folder_splits, tmp_path).startswith(f"{tmp_path / part}: no images in class")


def test_two_folders_for_validation(tmp_path):
    fill(tmp_path, train=0, val=0, valid=0)
    assert "val and valid are both for validation; keep one" in failure(folder_splits, tmp_path)


def test_class_of_one_image_cannot_be_split(tmp_path):
    message = failure(folder_splits, fill(tmp_path, cat=5, dog=1))
    assert message.startswith(f"{tmp_path}: only one image of class dog,")


def test_class_of_one_image_is_trained_on_if_two_others_can_be_split(tmp_path):
    parts = folder_splits(fill(tmp_path, cat=5, dog=1, horse=3))
    assert parts["train"].counts()["dog"] == 1
    assert parts["val"].counts()["dog"] == 0
    (note,) = parts["train"].notes
    assert "only one image of 1 of 3 classes (dog): it is for training" in note


@pytest.mark.parametrize("val_fraction", [0.05, 0.95])
def test_too_few_images_for_the_fraction(tmp_path, val_fraction):
    message = failure(folder_splits, fill(tmp_path, cat=2, dog=2), val_fraction=val_fraction)
    assert "4 images are too few for a val_fraction of" in message


def test_fraction_out_of_range(tmp_path):
    with pytest.raises(ValueError, match="fraction"):
        folder_splits(fill(tmp_path, cat=2, dog=2), val_fraction=1.0)


# ---- parts by many names


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Train", "validation", "Test"),
        ("train_set", "Valid", "test_set"),
        ("training", "VAL", "testing"),
        ("TRAIN", "dev", "TEST"),
        ("trainset", "eval", "testset"),
    ],
)
def test_parts_have_many_names(train, val, test, tmp_path):
    fill(tmp_path / train, cat=3, dog=2)
    fill(tmp_path / val, cat=1)
    fill(tmp_path / test, dog=1)
    parts = folder_splits(tmp_path)
    assert {name: len(part) for name, part in parts.items()} == {"train": 5, "val": 1, "test": 1}
    assert {tuple(part.classes) for part in parts.values()} == {("cat", "dog")}


def test_two_folders_for_one_part(tmp_path):
    fill(tmp_path, train=0, Training=0, test=0)
    line = f"{tmp_path}: Training and train are both for training; keep one"
    assert failure(folder_splits, tmp_path) == line


def test_nothing_to_train_on(tmp_path):
    fill(tmp_path / "val", cat=2, dog=2)
    fill(tmp_path / "Test", cat=2, dog=2)
    assert failure(folder_splits, tmp_path) == (
        f"{tmp_path}: has val and Test, and no folder of images to train on, called train"
    )


@pytest.mark.parametrize(
    "classes",
    [
        ("bus", "car", "train"),
        ("valid", "invalid"),
        ("control", "test"),
        ("dev", "test"),
        ("train", "x"),
    ],
)
def test_words_for_parts_may_be_classes(classes, tmp_path):
    parts = folder_splits(fill(tmp_path, **dict.fromkeys(classes, 4)))
    assert parts["train"].classes == sorted(classes)
    assert list(parts) == ["train", "val"]


def test_a_test_part_without_classes_is_left_out(tmp_path):
    fill(tmp_path / "train", cat=4, dog=4)
    fill(tmp_path, test=3)
    parts = folder_splits(tmp_path)
    assert list(parts) == ["train", "val"]
    (note,) = parts["val"].notes
    assert note == f"{tmp_path}: left out, because it has no class folders: test"


@pytest.mark.parametrize(
    ("classes", "inside", "said"),
    [
        (
            ("fold1", "fold2"),
            ("cat", "dog"),
            "if fold1 and fold2 are parts, call them train and val",
        ),
        (
            ("a", "b", "c"),
            ("0", "1"),
            "(a, b, c) all hold the same sub-folders (0, 1), as parts of",
        ),
        (
            ("seg_train", "seg_test"),
            ("forest", "sea"),
            "are parts, call them train and val or test",
        ),
        (("cat", "dog"), ("train", "val"), "put the parts outside: train/cat and so on"),
    ],
)
def test_parts_by_unknown_names_are_refused(classes, inside, said, tmp_path):
    for name in classes:
        fill(tmp_path / name, **dict.fromkeys(inside, 3))
    line = failure(folder_splits, tmp_path)
    assert said in line
    # Of a checkpoint with these classes it is known that they are.
    assert list(folder_parts(tmp_path, known=sorted(classes))) == ["train"]


@pytest.mark.parametrize(
    ("first", "second"),
    [(("a", "b"), ("a",)), (("a", "b"), ("a", "c")), (("a",), ("a",)), (("a", "b"), ())],
)
def test_classes_may_hold_folders(first, second, tmp_path):
    fill(tmp_path / "cat", **dict.fromkeys(first, 3))
    fill(tmp_path / "dog", **dict.fromkeys(second, 3))
    fill(tmp_path, dog=0 if second else 2)
    assert folder_splits(tmp_path)["train"].classes == ["cat", "dog"]
    (tmp_path / "cat/loose.png").touch()
    fill(tmp_path / "dog", **dict.fromkeys(first, 3))
    assert folder_splits(tmp_path)["train"].classes == ["cat", "dog"]


# ---- nothing is left out silently


def test_what_is_left_out_is_told_once(tmp_path):
    fill(tmp_path / "train", cat=3, dog=3)
    fill(tmp_path / "val", cat=1, dog=1)
    others = "train/cat/a.psd train/dog/b.PSD val/cat/c.psd train/cat/deep/scan README.md"
    for name in [*others.split(), "train/cat/@eaDir/0.png/thumb.png", "val/dog/.DS_Store"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    fill(tmp_path, extra=2, annotations=0)
    (tmp_path / "train/loose.png").touch()
    (tmp_path / "train/cat/more").symlink_to(tmp_path / "extra")
    parts = folder_splits(tmp_path)
    assert parts["train"].notes == parts["val"].notes
    assert parts["train"].notes == (
        f"{tmp_path}: 5 files left out, not known as images (1 without suffix, 1 .md, 3 .psd)",
        f"{tmp_path}: 1 link to folders not followed, such as {tmp_path}/train/cat/more",
        f"{tmp_path}: 1 image left out, in no class folder, such as {tmp_path}/train/loose.png",
        f"{tmp_path}: left out, because they are not parts: annotations, extra",
    )


def test_a_class_of_unknown_files_alone(tmp_path):
    fill(tmp_path, cat=3, dog=0)
    (tmp_path / "dog/a.psd").touch()
    line = failure(folder_splits, tmp_path)
    assert "no images in class folder dog; add some or remove the folder (" in line
    assert line.endswith("1 file left out, not known as images (1 .psd))")


def test_system_folders_are_no_classes(tmp_path):
    fill(tmp_path, **{"cat": 3, "dog": 3, "@eaDir": 2, "__MACOSX": 2, "#recycle": 1, ".git": 1})
    samples = scan_folder(tmp_path)
    assert samples.classes == ["cat", "dog"]
    assert samples.notes == ()


@pytest.mark.parametrize("place", ["runs/photos", "runs", "a/b/c"])
def test_run_folders_are_no_classes(place, tmp_path):
    fill(tmp_path, cat=3, dog=3)
    (tmp_path / place).mkdir(parents=True)
    for name in ("recipe.yaml", "environment.json", "learning_curve.png"):
        (tmp_path / place / name).touch()
    samples = scan_folder(tmp_path)
    assert samples.classes == ["cat", "dog"]
    first = tmp_path / place.split("/")[0]
    assert samples.notes == (f"{tmp_path}: left out, because it holds a run: {first}",)


def test_unreadable_folders_at_any_depth(tmp_path, monkeypatch):
    fill(tmp_path / "cat/deep/deeper", a=1)
    fill(tmp_path, cat=1, dog=1)
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "deeper":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    line = f"{tmp_path}/cat/deep/deeper: cannot be read (Permission denied)"
    assert failure(scan_folder, tmp_path) == line


# ---- names of classes


def test_two_spellings_of_one_name_are_one_class(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    fill(tmp_path / "train", **{composed: 2, decomposed: 3, "dog": 2})
    fill(tmp_path / "val", **{composed: 1, "dog": 1})
    parts = folder_splits(tmp_path)
    assert parts["train"].counts() == {decomposed: 5, "dog": 2}
    assert parts["val"].counts() == {decomposed: 1, "dog": 1}
    (note,) = parts["train"].notes
    assert note.endswith(
        "'café', in different Unicode spellings; they are one class".replace("café", decomposed)
    )


def test_names_that_differ_in_case_are_told(tmp_path):
    samples = scan_folder(fill(tmp_path, Cat=1, cat=1))
    assert samples.classes == ["Cat", "cat"]
    assert samples.notes == (
        f"{tmp_path}: classes 'Cat' and 'cat' differ in letter case alone; they are 2 classes",
    )


def test_one_class_where_that_is_enough(tmp_path):
    assert scan_folder(fill(tmp_path, cat=2), least=1).counts() == {"cat": 2}
