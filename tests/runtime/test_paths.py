"""Paths that cannot be read, whatever the reason: reported, and never waited for."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from spanets_runtime.errors import UserError
from spanets_runtime.images import ImageError, load_image
from spanets_runtime.listing import gather_images, list_images

NOBODY = 65534


def failure(path) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(path)
    return str(caught.value).removeprefix(f"{path}: ")


def test_what_is_no_regular_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero"), Path("/dev/null")):
        assert failure(path) == "is not a regular file"
        assert [str(image) for image in gather_images([path]).images] == [str(path)]


def test_names_that_no_file_can_have(tmp_path):
    assert failure(tmp_path / ("a" * 300 + ".png")) == "cannot be read (File name too long)"
    assert failure(f"{tmp_path}/a\0b.png").endswith("a\\x00b.png: no such file")
    assert len(gather_images([tmp_path / ("a" * 300), f"{tmp_path}/a\0b.png"]).images) == 2


def test_links_that_lead_nowhere_are_listed_and_reported(tmp_path):
    (tmp_path / "self.png").symlink_to("self.png")
    (tmp_path / "gone.png").symlink_to("gone")
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    found = list_images(tmp_path)
    assert [path.name for path in found.images] == ["a.png", "gone.png", "self.png"]
    assert failure(tmp_path / "gone.png") == "no such file"
    assert "cannot be read (" in failure(tmp_path / "self.png")


def as_nobody(code: str, *words) -> list[str]:
    """Runs code as a user to whom permissions apply, unlike root; returns the lines it prints."""
    if os.name != "posix":
        pytest.skip("permissions of POSIX")
    drop = f"import os\nif os.getuid() == 0: os.setgid({NOBODY}); os.setuid({NOBODY})\n"
    # What is needed is imported before: the packages may lie where nobody may look.
    start = "import sys; from pathlib import Path; from spanets_runtime import images, listing\n"
    start += "from spanets_runtime.errors import UserError; from PIL import PngImagePlugin\n"
    command = [sys.executable, "-c", start + drop + code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "PermissionError" in done.stderr.splitlines()[-1:] and "set" in done.stderr:
        pytest.skip("the user cannot be changed here")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def locked():
    """A folder that may be entered, with one that may not and one that may not be listed."""
    with tempfile.TemporaryDirectory() as folder:  # that of pytest is for its own user alone
        root = Path(folder)
        root.chmod(0o755)
        for name in ("open", "closed", "blind"):
            (root / name).mkdir()
            Image.new("RGB", (2, 2)).save(root / name / "a.png")
        (root / "open/secret.png").write_bytes((root / "open/a.png").read_bytes())
        (root / "open/secret.png").chmod(0)
        (root / "closed").chmod(0)
        (root / "blind").chmod(0o311)
        yield root
        for name in ("closed", "blind"):
            (root / name).chmod(0o755)


LOAD = """
for path in sys.argv[1:]:
    (image,) = listing.gather_images([path]).images
    try:
        print(images.load_image(image).size)
    except images.ImageError as error:
        print(str(error).removeprefix(path + ": "))
"""
LIST = """
for path in sys.argv[1:]:
    try:
        print(len(listing.gather_images([path]).images))
    except UserError as error:
        print(error)
"""


def test_what_may_not_be_read_is_reported_and_the_others_are_read(locked):
    names = ["closed/a.png", "open/secret.png", "blind/a.png", "open/a.png"]
    said = as_nobody(LOAD, *(locked / name for name in names))
    denied = "cannot be read (Permission denied)"
    assert said == [denied, denied, "(2, 2)", "(2, 2)"]


def test_a_folder_that_may_not_be_read_stops_and_is_named(locked):
    said = as_nobody(LIST, locked, locked / "closed", locked / "blind", locked / "open")
    denied = "cannot be read (Permission denied)"
    assert said[0] in {f"{locked / name}: {denied}" for name in ("closed", "blind")}
    assert said[1:] == [f"{locked / 'closed'}: {denied}", f"{locked / 'blind'}: {denied}", "2"]


def test_a_folder_in_the_place_of_an_image(tmp_path):
    (tmp_path / "a.png").mkdir()
    assert failure(tmp_path / "a.png") == "is a folder, not an image"
    with pytest.raises(UserError, match="a folder without images"):
        gather_images([tmp_path / "a.png"])
