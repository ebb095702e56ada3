"""Listing the images of a folder: one rule for every command, and nothing left out silently."""

import os

import pytest

from spanets_runtime.errors import UserError
from spanets_runtime.listing import images_below, list_images


def _touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_images_of_all_depths_sorted(tmp_path):
    _touch(tmp_path, "b.png", "a/c.JPG", "a/b/d.tiff")
    found = list_images(tmp_path)
    assert found.images == [tmp_path / "a/b/d.tiff", tmp_path / "a/c.JPG", tmp_path / "b.png"]
    assert list_images(tmp_path, recursive=False).images == [tmp_path / "b.png"]
    assert found.notes() == ()


def test_what_is_left_out_is_counted_by_suffix(tmp_path):
    _touch(tmp_path, "a.png", "x/1.psd", "x/2.PSD", "scan", "notes.txt")
    (note,) = list_images(tmp_path).notes()
    assert note == (
        f"{tmp_path}: 4 files left out, not known as images (1 without suffix, 2 .psd, 1 .txt)"
    )


@pytest.mark.parametrize(
    "name",
    ["@eaDir/a.png", ".hidden/a.png", "__MACOSX/a.png", "#recycle/a.png", "x/@eaDir/a.jpg/t.jpg"],
)
def test_system_folders_are_passed_over(tmp_path, name):
    _touch(tmp_path, "a.png", name, "Thumbs.db", ".DS_Store")
    found = list_images(tmp_path)
    assert found.images == [tmp_path / "a.png"]
    assert found.notes() == ()


def test_links_and_special_files(tmp_path):
    _touch(tmp_path, "data/a.png")
    os.symlink(tmp_path / "data", tmp_path / "data/loop")
    os.symlink(tmp_path / "data/a.png", tmp_path / "data/link.png")
    os.symlink(tmp_path / "gone.png", tmp_path / "data/broken.png")  # read, and reported then
    os.mkfifo(tmp_path / "data/pipe.png")
    names = [path.name for path in list_images(tmp_path / "data").images]
    assert names == ["a.png", "broken.png", "link.png"]


def test_no_images(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        images_below(tmp_path / "none")
    _touch(tmp_path, "a.psd")
    with pytest.raises(UserError, match=r"without images; .*1 file left out.*1 \.psd"):
        images_below(tmp_path)


def test_thousands_of_levels(tmp_path):
    """A loop walks the folders: Python's stack is no limit."""
    here = tmp_path
    for _ in range(1100):
        here = here / "d"
        here.mkdir()
    _touch(here, "a.png")
    try:
        assert len(list_images(tmp_path).images) == 1
    finally:  # pytest's own clean-up is a recursion
        (here / "a.png").unlink()
        while here != tmp_path:
            here.rmdir()
            here = here.parent
