"""File names of annotation files: found where one file fits, and never outside the folder."""

import os
import unicodedata
from pathlib import Path

import pytest

from spanets.formats.coco.faults import Fault
from spanets.formats.coco.names import FileNames, check_name, identify

COMPOSED = unicodedata.normalize("NFC", "Straße ä é.jpg")
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


def place(root: Path, *names: str) -> FileNames:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return FileNames(root)


@pytest.mark.parametrize(
    ("on_disk", "written", "form"),
    [
        ("a/b.jpg", "a\\b.jpg", "backslashes"),
        (DECOMPOSED, COMPOSED, "Unicode forms"),
        (COMPOSED, DECOMPOSED, "Unicode forms"),
        (f"a/{DECOMPOSED}", f"a\\{COMPOSED}", "Unicode forms"),
        ("ä/b.jpg", unicodedata.normalize("NFD", "ä/b.jpg"), "Unicode forms"),
        ("IMG_1.JPG", "img_1.jpg", "letter case"),
        ("b.jpg", "train/b.jpg", "the folder's own name"),
        ("b.jpg", "images/train/b.jpg", "the folder's own name"),
        ("a/b.jpg", "train\\a\\b.jpg", "the folder's own name"),
    ],
)
def test_one_file_fits(tmp_path, on_disk, written, form):
    root = tmp_path / "images/train"
    names = place(root, on_disk, "other.jpg")
    assert names.find(written) == root / on_disk
    assert names.changed == {form: 1}
    note = names.note(Path("a.json"))
    assert note.startswith(f"a.json: 1 file names are not quite those of the files ({form}: 1); ")
    assert str(root / on_disk) in note


def test_exact_names_come_first(tmp_path):
    names = place(tmp_path, "a\\b.jpg", "a/b.jpg", "A.jpg", "a.jpg")
    assert names.find("a\\b.jpg") == tmp_path / "a\\b.jpg"
    assert names.find("a.jpg") == tmp_path / "a.jpg"
    assert names.note(Path("a.json")) == ""


@pytest.mark.parametrize(
    ("on_disk", "written"),
    [
        (["A.jpg", "a.JPG"], "a.jpg"),  # two fit
        (["b.jpg"], "c/b.jpg"),  # of another folder
        (["a/b.jpg"], "b.jpg"),
        ([], "a\\b.jpg"),
    ],
)
def test_what_is_not_found_stays_missing(tmp_path, on_disk, written):
    names = place(tmp_path, *on_disk)
    assert names.find(written) == tmp_path / written
    assert names.note(Path("a.json")) == ""


def test_a_folder_is_no_file(tmp_path):
    names = place(tmp_path, "A.jpg/x")
    assert names.find("a.jpg") == tmp_path / "a.jpg"
    assert FileNames(tmp_path / "nowhere").find("a.jpg") == tmp_path / "nowhere/a.jpg"


@pytest.mark.parametrize(
    "name",
    ["..\\x", "a\\..\\..\\x", "a/../../x", "\\x", "/x", "C:x", "c:\\x", "\\\\host\\share\\x"],
)
def test_nothing_outside_of_the_folder(name):
    with pytest.raises(Fault, match="which leaves the folder"):
        check_name(name)


@pytest.mark.parametrize("name", ["", ".", "./", "a\0b", "\ud800.jpg"])
def test_names_that_no_file_has(name):
    with pytest.raises(Fault, match="which names no file"):
        check_name(name)


def test_names_of_bytes_that_are_no_text(tmp_path):
    """As Python's `json` writes what `os.listdir` says of them."""
    name = os.fsdecode(b"caf\xe9.jpg")
    check_name(name)
    assert place(tmp_path, name).find(name) == tmp_path / name


def test_a_name_that_is_too_long(tmp_path):
    name = "a" * 5000
    check_name(name)
    assert FileNames(tmp_path).find(name) == tmp_path / name
    assert identify(tmp_path / name) == str(tmp_path / name)


def test_one_file_has_one_identity(tmp_path):
    place(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    os.link(tmp_path / "a.jpg", tmp_path / "hard.jpg")
    same = {identify(tmp_path / name) for name in ("a.jpg", "./a.jpg", "link.jpg", "hard.jpg")}
    assert len(same) == 1
    assert identify(tmp_path / "b.jpg") not in same
    assert identify(tmp_path / "x/../c.jpg") == identify(tmp_path / "c.jpg")
