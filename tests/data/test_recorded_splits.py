"""What a run was trained on it is never evaluated on, whatever comes, goes and moves."""

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spanets.classification.recipe import ClassificationData
from spanets.data.image_level.splits import read_splits
from spanets.data.run_data import RunData
from spanets.data.split_list import read_split, write_split
from spanets.data.splits import list_split, stratified_split
from spanets.segmentation.data import read_parts
from spanets.segmentation.masks.reading import folder_parts as mask_parts
from spanets.segmentation.recipe import SegmentationData
from spanets_runtime.errors import UsageError, UserError

quick = settings(max_examples=30, deadline=None, database=None, derandomize=True)


def fill(root: Path, **counts: int) -> Path:
    """Makes class folders with as many (empty) image files as asked."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / name / f"{number}.png").touch()
    return root


def begin(data: ClassificationData, run: Path) -> dict:
    """Reads the parts as a new run does, and keeps their list."""
    parts = read_splits(data, RunData(run, is_new=True))
    write_split(run, list_split(parts))
    return parts


def again(data: ClassificationData, run: Path, **known) -> dict:
    """Reads the parts as a run does that goes on, or is evaluated."""
    return read_splits(data, RunData(run, split=read_split(run), **known))


def names(samples, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in samples.images]


# ---- the split of before


@pytest.mark.parametrize(
    ("counts", "fraction", "seed", "val"),
    [
        ({"cat": 8, "dog": 4}, 0.25, 0, ["cat/2.png", "cat/4.png", "dog/1.png"]),
        ({"cat": 8, "dog": 4}, 0.25, 7, ["cat/0.png", "cat/6.png", "dog/2.png"]),
        (
            {"a": 5, "b": 3, "c": 11},
            0.3,
            1,
            ["a/0.png", "a/4.png", "b/1.png", "c/1.png", "c/5.png", "c/6.png"],
        ),
        (
            {"bus": 4, "car": 4, "train": 4},
            0.5,
            0,
            ["bus/0.png", "bus/2.png", "car/2.png", "car/3.png", "train/1.png", "train/3.png"],
        ),
    ],
)
def test_the_split_is_that_of_earlier_versions(counts, fraction, seed, val, tmp_path):
    root = fill(tmp_path / "photos", **counts)
    data = ClassificationData(root=str(root), val_fraction=fraction, split_seed=seed)
    parts = begin(data, tmp_path)
    assert names(parts["val"], root) == val
    kept = again(data, tmp_path)
    assert {name: part.images for name, part in kept.items()} == {
        name: part.images for name, part in parts.items()
    }
    assert kept["train"].notes == ()


# ---- coming and going


@quick
@given(data=st.data())
def test_no_image_that_was_trained_on_is_evaluated(data, tmp_path_factory):
    base = tmp_path_factory.mktemp("set")
    counts = data.draw(st.lists(st.integers(2, 6), min_size=2, max_size=4))
    root = fill(base / "photos", **{f"c{i}": count for i, count in enumerate(counts)})
    if data.draw(st.booleans()):
        (base / "moved").mkdir()
        root = root.rename(base / "moved/train").parent  # a part alone
    section = ClassificationData(
        root=str(root), val_fraction=data.draw(st.sampled_from([0.25, 0.4])), split_seed=3
    )
    try:
        parts = begin(section, base)
    except UserError as error:
        assert "too few" in str(error)
        return
    trained, evaluated = (set(names(parts[part], root)) for part in ("train", "val"))
    before = sorted(trained | evaluated)

    gone = data.draw(st.sets(st.sampled_from(before), max_size=len(before) // 2))
    for name in gone:
        (root / name).unlink()
    folder = (root / before[0]).parent.parent
    come = data.draw(st.sets(st.sampled_from(["c0/00.png", "c1/x.png", "c1/zz.png", "c9/0.png"])))
    for name in come:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    renamed = data.draw(st.sampled_from([None, "c0", "c1"]))
    if renamed:
        (folder / renamed).rename(folder / "zebra")
    if data.draw(st.booleans()):  # moved as a whole
        root = root.rename(base / "elsewhere")
        section = replace(section, root=str(root))

    try:
        now = again(section, base)
    except UserError as error:
        assert "is there, such as" in str(error) or "no images in class folder" in str(error)
        return
    assert set(names(now["train"], root)) <= trained
    assert set(names(now["val"], root)) <= evaluated
    if not renamed:
        assert set(names(now["val"], root)) == evaluated - gone
        assert set(names(now["train"], root)) == trained - gone
        told = " ".join(now["val"].notes)
        assert (f"{len(gone)} image" in told and "gone" in told) == bool(gone)
        assert (f"{len(come)} image" in told and "left out" in told) == bool(come)


def test_what_came_and_went_is_told(tmp_path):
    root = fill(tmp_path / "photos", cat=8, dog=4)
    data = ClassificationData(root=str(root))
    begin(data, tmp_path)
    (root / "cat/0.png").unlink()
    (root / "cat/2.png").unlink()
    for number in range(3):
        (root / f"dog/new{number}.png").touch()
    come, gone = again(data, tmp_path)["val"].notes
    assert come == (
        f"{root}: 3 images are not in {tmp_path}/split.csv, left out, such as dog/new0.png; a new "
        "run takes all"
    )
    assert gone == (
        f"{root}: 2 images are gone that {tmp_path}/split.csv lists, such as cat/0.png (1 to train "
        "on: resumed, the run draws the others in another order)"
    )


def test_a_part_that_came_later(tmp_path):
    """What moves into it was perhaps trained on; what is new there has no part."""
    root = fill(tmp_path / "photos/train", cat=8, dog=4).parent
    data = ClassificationData(root=str(root))
    parts = begin(data, tmp_path)
    trained = set(names(parts["train"], root))
    fill(root / "val", cat=2, dog=2)
    shutil.move(root / "train/cat/0.png", root / "val/cat/moved.png")
    now = again(data, tmp_path)
    assert set(names(now["train"], root)) == trained - {"train/cat/0.png"}
    assert names(now["val"], root) == names(parts["val"], root)
    assert "5 images are not in" in now["val"].notes[0]


def test_a_part_that_went(tmp_path):
    root = fill(tmp_path / "photos/train", cat=8, dog=4).parent
    fill(root / "val", cat=2, dog=2)
    data = ClassificationData(root=str(root))
    parts = begin(data, tmp_path)
    assert (tmp_path / "split.csv").read_text() == "image,part\n"
    assert len(again(data, tmp_path)["val"]) == len(parts["val"]) == 4
    shutil.rmtree(root / "val")
    with pytest.raises(UserError, match=r"has no part for validation any more, and .*split\.csv"):
        again(data, tmp_path)


def test_another_data_set_in_its_place(tmp_path):
    data = ClassificationData(root=str(fill(tmp_path / "photos", cat=8, dog=4)))
    begin(data, tmp_path)
    other = fill(tmp_path / "other", ant=3, bee=3)
    line = "other: none of the train images of .*split.csv is there, such as cat/0.png; name the"
    with pytest.raises(UserError, match=line):
        again(replace(data, root=str(other)), tmp_path)


def test_names_that_are_no_text(tmp_path):
    root = fill(tmp_path / "photos", cat=4, dog=4)
    for number, name in enumerate((b"caf\xe9.png", b'a,"b".png', b"c\nd.png", "é.png".encode())):
        (root / "cat" / f"{number}.png").rename(root / "cat" / os.fsdecode(name))
    data = ClassificationData(root=str(root))
    parts = begin(data, tmp_path)
    now = again(data, tmp_path)
    assert [now[p].images for p in ("train", "val")] == [parts[p].images for p in ("train", "val")]
    assert now["val"].notes == ()


# ---- runs of earlier versions


def old(run: Path, trained: range | None = None) -> RunData:
    """What is known of a run without a list that began now."""
    return RunData(run, started=time.time() // 1, count_trained=lambda: trained)


def age(root: Path, seconds: float = 100) -> None:
    """Makes all folders older."""
    then = time.time() - seconds
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        os.utime(folder, (then, then))


def test_an_old_run_keeps_its_split(tmp_path):
    root = fill(tmp_path / "photos", cat=8, dog=4)
    age(root)
    data = ClassificationData(root=str(root))
    parts = read_splits(data)
    now = read_splits(data, old(tmp_path, range(8, 12)))
    assert now["val"].images == parts["val"].images
    (note,) = now["val"].notes
    assert note.startswith(f"{tmp_path}: has no split.csv, so the split of {root} is drawn again;")


@pytest.fixture
def later(monkeypatch):
    """A run that began before what the test does next, as the clock of files has it."""

    def start(run: Path) -> RunData:
        time.sleep(0.01)
        monkeypatch.setattr("spanets.data.old_splits._ROUNDING", 0.0)
        kept = RunData(run, started=time.time())
        time.sleep(0.01)
        return kept

    return start


@pytest.mark.parametrize("change", ["add", "remove", "rename", "deep"])
def test_an_old_run_whose_data_changed(change, tmp_path, later):
    root = fill(tmp_path / "photos", cat=8, dog=4)
    (root / "dog/deep").mkdir()
    (root / "dog/deep/a.png").touch()
    kept = later(tmp_path)
    if change == "add":
        shutil.copy2(root / "cat/1.png", root / "cat/new.png")
    elif change == "remove":
        (root / "cat/1.png").unlink()
    elif change == "rename":
        (root / "cat/1.png").rename(root / "cat/0001.png")
    else:
        (root / "dog/deep/b.png").touch()
    changed = root / ("dog/deep" if change == "deep" else "cat")
    line = f"files were added to or removed from {changed}"
    with pytest.raises(UserError, match=line) as caught:
        read_splits(ClassificationData(root=str(root)), kept)
    assert "has no split.csv, and" in str(caught.value)


def test_what_file_browsers_leave_is_no_change(tmp_path, later):
    root = fill(tmp_path / "photos", cat=8, dog=4)
    kept = later(tmp_path)
    (root / "cat/.DS_Store").touch()
    (root / "runs").mkdir()
    (root / "cat/1.png").write_bytes(b"edited")
    (root / "runs").rmdir()
    assert read_splits(ClassificationData(root=str(root)), kept)["val"].notes


def test_a_copy_tells_nothing_but_its_number_of_images(tmp_path, later):
    root = fill(tmp_path / "photos", cat=8, dog=4)
    data = ClassificationData(root=str(shutil.copytree(root, tmp_path / "copy")))
    before = later(tmp_path)
    shutil.rmtree(tmp_path / "copy")
    shutil.copytree(root, tmp_path / "copy")
    assert read_splits(data, before)["val"].notes
    counted = replace(before, count_trained=lambda: range(12, 16))
    with pytest.raises(
        UserError, match=r"it trained on 12 to 15 images, now they are 9\): a split"
    ):
        read_splits(data, counted)


# ---- the run's folder among the images


@pytest.mark.parametrize(
    ("out", "is_refused"),
    [("photos/runs/a", True), ("photos", True), ("runs", False), ("photos/.runs/a", False)],
)
def test_a_run_folder_among_the_classes(out, is_refused, tmp_path):
    root = fill(tmp_path / "photos", cat=8, dog=4)
    data, kept = ClassificationData(root=str(root)), RunData(tmp_path / out, is_new=True)
    if not is_refused:
        assert len(read_splits(data, kept)["train"]) == 9
        return
    with pytest.raises(UsageError, match=f"--out {tmp_path / out}: lies in {root}, whose folders"):
        read_splits(data, kept)
    read_splits(data, replace(kept, is_new=False))  # it goes on


def test_a_run_folder_beside_the_parts(tmp_path):
    root = fill(tmp_path / "photos/train", cat=8, dog=4).parent
    fill(root / "val", cat=1)
    data = ClassificationData(root=str(root))
    (note,) = read_splits(data, RunData(root / "runs/a", is_new=True))["val"].notes or ("",)
    assert note == ""
    with pytest.raises(UsageError, match=f"lies in {root / 'train'}"):
        read_splits(data, RunData(root / "train/a", is_new=True))


# ---- segmentation


def masked(root: Path, count: int = 8) -> Path:
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.fromarray(np.zeros((4, 4), np.uint8)).save(root / name / f"{number}.png")
    return root


def test_masks_keep_their_split(tmp_path):
    root = masked(tmp_path / "set")
    data = SegmentationData(root=str(root), num_classes=2)
    parts = read_parts(data, run_data=RunData(tmp_path, is_new=True))
    first, second = stratified_split([0] * 8, 0.25, 0)
    assert [int(path.stem) for path in parts["val"].images] == second
    write_split(tmp_path, list_split(parts))
    assert (tmp_path / "split.csv").read_text().startswith("image,part\nimages/")
    for number in (first[0], second[0]):
        (root / f"images/{number}.png").unlink()
    shutil.copy(root / f"masks/{first[0]}.png", root / "images/a.png")
    shutil.copy(root / f"masks/{first[0]}.png", root / "masks/a.png")
    now = read_parts(data, run_data=RunData(tmp_path, split=read_split(tmp_path)))
    assert [int(path.stem) for path in now["train"].images] == first[1:]
    assert [int(path.stem) for path in now["val"].images] == second[1:]
    assert [path.name for path in now["val"].masks] == [p.name for p in now["val"].images]
    notes = " ".join(now["val"].notes)
    assert "1 image is not in" in notes and "2 images are gone" in notes
    (left,) = mask_parts(root, 2)["val"].notes
    assert "2 files left out, no image has that name" in left


def test_a_run_folder_among_the_masks(tmp_path):
    root = masked(tmp_path / "set")
    data = SegmentationData(root=str(root), num_classes=2)
    read_parts(data, run_data=RunData(root / "runs/a", is_new=True))
    with pytest.raises(UsageError, match=r"lies in .*images"):
        read_parts(data, run_data=RunData(root / "images/a", is_new=True))
