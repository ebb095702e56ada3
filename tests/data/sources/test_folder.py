"""Folders as people have them, and what is said of those that cannot be used."""

import os
from pathlib import Path

import pytest

from spanets.data.sources.folder import folder_splits, scan_folder
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


@pytest.mark.parametrize("val_fraction", [0.05, 0.95])
def test_too_few_images_for_the_fraction(tmp_path, val_fraction):
    message = failure(folder_splits, fill(tmp_path, cat=2, dog=2), val_fraction=val_fraction)
    assert "4 images are too few for a val_fraction of" in message


def test_fraction_out_of_range(tmp_path):
    with pytest.raises(ValueError, match="fraction"):
        folder_splits(fill(tmp_path, cat=2, dog=2), val_fraction=1.0)
