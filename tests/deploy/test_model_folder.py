"""A folder that push writes: all of it or nothing, and no file of anybody else."""

import errno
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from spanets.deploy import model_folder as folders
from spanets.deploy.model_folder import FILES, check_folder, place, sign
from spanets_runtime.errors import UsageError, UserError


def make(folder: Path, text: str) -> Path:
    """Writes a signed folder whose files all tell of one text."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"label_names": [text]}))
    (folder / "model.safetensors").write_text(f"weights of {text}")
    (folder / "README.md").write_text(f"about {text}")
    sign(folder)
    return folder


@pytest.fixture
def a(tmp_path) -> Path:
    return make(tmp_path / "a", "A")


@pytest.fixture
def b(tmp_path) -> Path:
    return make(tmp_path / "b", "B")


def read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_folder_is_written_and_written_again(a, b, tmp_path):
    to = tmp_path / "new/to"
    assert place(a, to) == [str(to / name) for name in FILES]
    assert read(to) == read(a)
    place(b, to)
    place(b, to)
    assert read(to) == read(b)
    assert sorted(os.listdir(to)) == sorted(FILES)


# ---- files of others


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", ["mine", "{}", "", '{"spanets": {"a": "none"}}', None])
def test_a_file_that_no_push_wrote_is_not_replaced(name, content, a, tmp_path):
    to = tmp_path / "to"
    to.mkdir()
    if content is None:
        (to / name).mkdir()
    else:
        (to / name).write_text(content)
    before = read(to)
    for refuse in (check_folder, lambda folder: place(a, folder)):
        with pytest.raises(
            UsageError, match="not written by a push, or was edited since"
        ) as caught:
            refuse(to)
        assert str(caught.value).startswith(f"--to {to}: {name} was not written by a push")
    assert read(to) == before
    assert os.listdir(to) == [name]


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_edited_since_is_not_replaced(name, a, b, tmp_path):
    to = tmp_path / "to"
    place(a, to)
    if name == "config.json":
        config = json.loads((to / name).read_text())
        (to / name).write_text(json.dumps({**config, "label_names": ["better"]}))
    else:
        with (to / name).open("a") as file:
            file.write("more")
    before = read(to)
    with pytest.raises(UsageError, match=f"{name} was not written by a push, or was edited since"):
        place(b, to)
    assert read(to) == before


def test_the_form_of_the_configuration_is_no_edit(a, b, tmp_path):
    to = tmp_path / "to"
    place(a, to)
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(config, indent=7))
    place(b, to)
    assert read(to) == read(b)


@pytest.mark.parametrize("name", [".git", "thesis.tex", ".config.json.01234567.part"])
def test_a_folder_with_other_files_is_refused(name, a, tmp_path):
    to = tmp_path / "to"
    to.mkdir()
    (to / name).touch()
    with pytest.raises(UsageError, match="name a new folder, or one of a push"):
        place(a, to)
    assert os.listdir(to) == [name]


def test_odd_places(a, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        check_folder(tmp_path / "file")
    with pytest.raises(UserError, match=r"file/to: cannot be written \(Not a directory\)"):
        place(a, tmp_path / "file/to")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    place(a, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert read(tmp_path / "real") == read(a)


# ---- faults

STEPS = range(26)  # more than it takes to write three files and to exchange them


class Fault:
    """Fails at the n-th call that changes a folder, and at all that follow if it lasts."""

    def __init__(self, step: int, patch, fail) -> None:
        self.left, self.fail = step, fail
        for name in ("replace", "mkdir"):
            patch.setattr(Path, name, self._wrap(getattr(Path, name)))
        patch.setattr(os, "fsync", self._wrap(os.fsync))

    def _wrap(self, call):
        def counted(*args, **more):
            self.left -= 1
            if self.left == -1:
                self.fail()
            return call(*args, **more)

        return counted


def full_disk():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupted():
    raise KeyboardInterrupt


@pytest.mark.parametrize("fail", [full_disk, interrupted])
@pytest.mark.parametrize("first", [True, False])
def test_a_fault_at_any_step_leaves_what_was_there(fail, first, a, b, tmp_path, monkeypatch):
    failed = 0
    for step in STEPS:
        to = tmp_path / f"to-{step}"
        if not first:
            place(a, to)
        with monkeypatch.context() as patch:
            Fault(step, patch, fail)
            try:
                place(b, to)
            except (UserError, KeyboardInterrupt) as error:
                failed += 1
                full = fail is full_disk
                assert isinstance(error, UserError if full else KeyboardInterrupt)
                assert "No space left on device" in str(error) or not full
                assert not to.exists() if first else read(to) == read(a)
            else:
                assert read(to) == read(b)
        place(b, to)
        assert read(to) == read(b)
        assert sorted(os.listdir(to)) == sorted(FILES)
    assert 10 < failed < len(STEPS)


def test_a_kill_at_any_step_mixes_nothing(a, b, tmp_path, process, monkeypatch):
    """A reader finds the old model, the new one, or no config.json; the next push is whole."""
    seen = set()  # nothing is moved in the first steps
    for step in STEPS[10:]:
        to = tmp_path / f"to-{step}"
        place(a, to)

        def push_and_die(step=step, to=to) -> int:
            Fault(step, pytest.MonkeyPatch(), lambda: os.kill(os.getpid(), signal.SIGKILL))
            place(b, to)
            return 0

        process(push_and_die).wait()
        left = read(to)
        model = {"A": read(a), "B": read(b)}
        state = next((name for name, files in model.items() if files == left), "none")
        assert state != "none" or "config.json" not in left
        seen.add(state)

        with monkeypatch.context() as patch:  # nor is anything lost if the disk is full then
            Fault(5, patch, full_disk)
            with pytest.raises(UserError):
                place(b, to)
        assert read(to) == model["A" if state == "none" else state]
        place(b, to)
        assert read(to) == model["B"]
        assert sorted(os.listdir(to)) == sorted(FILES)
    assert seen == {"A", "B", "none"}


@pytest.mark.parametrize("moved", range(len(FILES)))
def test_a_killed_first_push_is_pushed_again(moved, a, b, tmp_path):
    """The files that it had placed are its own; those of others are kept."""
    to = tmp_path / "to"
    shutil.copytree(a, to / ".push")
    (to / ".push/before").mkdir()
    for name in [*reversed(FILES)][:moved]:
        (to / ".push" / name).rename(to / name)
    place(b, to)
    assert read(to) == read(b)
    assert sorted(os.listdir(to)) == sorted(FILES)


def test_a_file_of_others_survives_a_killed_first_push(a, b, tmp_path):
    to = tmp_path / "to"
    shutil.copytree(a, to / ".push")
    (to / "README.md").write_text("mine")
    with pytest.raises(UsageError, match=r"README\.md was not written by a push"):
        place(b, to)
    assert read(to) == {"README.md": b"mine"}


def test_two_pushes_at_once(a, b, tmp_path):
    to = tmp_path / "to"
    place(a, to)
    with (
        folders._locked(to),
        pytest.raises(UserError, match="another push writes there; wait"),
    ):
        place(b, to)
    assert read(to) == read(a)


def test_a_folder_that_cannot_be_written_is_left_alone(a, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match="cannot be written"):
        place(a, tmp_path / "to")
    monkeypatch.undo()
    assert not (tmp_path / "to").exists()
    shutil.rmtree(tmp_path)
