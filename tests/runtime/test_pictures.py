"""What predicting may write, and what it may never replace."""

import os
import unicodedata

import pytest
from PIL import Image

from spanets_runtime.errors import UserError
from spanets_runtime.pictures import (
    SOFTWARE,
    check_outputs,
    fit_picture,
    is_own,
    name_outputs,
    save_picture,
)


def picture(path, size=(4, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


def test_names_are_numbered_where_they_are_alike():
    paths = ["x/a.jpg", "y/a.png", "y/A.png", "a-2.jpg", "b.jpg"]
    assert name_outputs(paths) == ["a", "a-2", "A-3", "a-2-2", "b"]
    both = [unicodedata.normalize(form, "ä.png") for form in ("NFC", "NFD")]
    assert len(set(map(str.casefold, name_outputs(both)))) == 2


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_what_is_ours_is_marked(tmp_path, mode, suffix):
    path = tmp_path / f"a{suffix}"
    save_picture(Image.new("RGB", (90, 50)).convert("RGB" if suffix == ".jpg" else mode), path)
    assert is_own(path)
    check_outputs([], [path])  # it may be written again
    with Image.open(path) as image:
        image.load()
        told = image.info.get("Software") or image.info["comment"].decode()
        assert told == SOFTWARE


def test_nothing_there_is_nothing_lost(tmp_path):
    check_outputs([tmp_path / "none.jpg"], [tmp_path / "out/a.png"])


def test_files_of_others_stay(tmp_path):
    path = picture(tmp_path / "a.png")
    assert not is_own(path)
    with pytest.raises(UserError, match=r"a\.png: already exists, and `spanets` did not write it"):
        check_outputs([], [path])
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=r"folder\.png: already exists"):
        check_outputs([], [tmp_path / "folder.png"])


@pytest.mark.parametrize("kind", ["same", "symbolic", "hard", "folder"])
def test_images_that_are_read_are_never_written(tmp_path, kind, monkeypatch):
    image, output = tmp_path / "shots/a.png", tmp_path / "out/a.png"
    image.parent.mkdir()
    save_picture(Image.new("L", (4, 4)), image)  # ours, and read now
    if kind == "same":
        monkeypatch.chdir(tmp_path)
        output = tmp_path / "shots/../shots/a.png"
    elif kind == "folder":
        os.symlink(image.parent, tmp_path / "out")
    else:
        output.parent.mkdir()
        (os.symlink if kind == "symbolic" else os.link)(image, output)
    with pytest.raises(UserError, match=r"a\.png: is the image .*a\.png and would be overwritten"):
        check_outputs([str(image)], [output])


def test_a_link_to_a_file_of_others(tmp_path):
    picture(tmp_path / "precious.png")
    os.symlink(tmp_path / "precious.png", tmp_path / "a.png")
    with pytest.raises(UserError, match="already exists"):
        check_outputs([], [tmp_path / "a.png"])


@pytest.mark.parametrize("size", [(1000, 2), (2, 1000), (321, 1), (50, 20), (20, 50), (7, 7)])
def test_a_picture_fits_and_has_pixels(size):
    fitted = fit_picture(Image.new("RGB", size, "red"), (160, 80))
    assert fitted.width == 160 or fitted.height == 80
    assert 1 <= fitted.width <= 160 and 1 <= fitted.height <= 80
