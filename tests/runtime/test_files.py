"""Files are written whole or not at all, wherever they lie and whoever writes beside."""

import errno
import os
import signal
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spanets_runtime import files
from spanets_runtime.errors import UserError
from spanets_runtime.files import check_place, is_aside, write_atomically


def put(path: Path, content: bytes = b"new", previous: Path | None = None) -> None:
    write_atomically(path, lambda file: file.write(content), previous)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ---- several writers


def test_each_of_many_writers_at_once_has_a_file_of_its_own(tmp_path, process):
    """Whoever reads meanwhile finds one of the contents whole."""
    path = tmp_path / "a.json"
    contents = [bytes([letter]) * 50_000 for letter in b"abcd"]

    def write_often(content: bytes) -> Callable[[], int]:
        def run() -> int:
            for _ in range(30):
                put(path, content)
            return 0

        return run

    writers = [process(write_often(content)) for content in contents]
    for writer in writers:
        while os.waitpid(writer.pid, os.WNOHANG) == (0, 0):
            assert not path.exists() or path.read_bytes() in contents
    assert path.read_bytes() in contents
    assert [name for name in os.listdir(tmp_path) if is_aside(name)] == []


def test_what_a_killed_writer_left_is_removed(tmp_path, process):
    folder, begun = tmp_path / "out", tmp_path / "begun"

    def write_for_ever(file) -> None:
        file.write(b"half")
        file.flush()
        begun.touch()
        signal.pause()

    writer = process(lambda: write_atomically(folder / "a.ckpt", write_for_ever) or 0)
    while not begun.exists():
        assert os.waitpid(writer.pid, os.WNOHANG) == (0, 0)
    files._remove_abandoned.cache_clear()
    put(folder / "b.ckpt")
    left = [name for name in os.listdir(folder) if is_aside(name)]
    assert len(left) == 1  # its writer lives

    os.kill(writer.pid, signal.SIGKILL)
    os.waitpid(writer.pid, 0)
    files._remove_abandoned.cache_clear()
    put(folder / "b.ckpt")
    assert os.listdir(folder) == ["b.ckpt"]


def test_a_writer_whose_file_is_taken_for_abandoned_makes_another(tmp_path, monkeypatch):
    """It is, for a moment, before it is locked."""
    lock, taken = files._lock, []

    def take_then_lock(file, shared):
        if not taken:
            taken.append(file.name)
            os.unlink(file.name)
        lock(file, shared)

    monkeypatch.setattr(files, "_lock", take_then_lock)
    put(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert taken
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("age", [0, 2 * 24 * 3600])
def test_where_nothing_can_be_locked_age_decides(age, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    left = tmp_path / ".a.01234567.part"
    left.touch()
    os.utime(left, (left.stat().st_mtime - age,) * 2)
    put(tmp_path / "a")
    assert sorted(os.listdir(tmp_path)) == (["a"] if age else [left.name, "a"])


def test_only_what_was_written_aside_is_removed(tmp_path):
    others = {".a.part", "a.01234567.part", ".a.0123456.part", ".a.01234567.parts", "a.part"}
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / ".b.01234567.part").mkdir()
    os.mkfifo(tmp_path / ".c.01234567.part")  # to open it would wait for ever
    put(tmp_path / "a")
    left = {".b.01234567.part", ".c.01234567.part"}
    assert set(os.listdir(tmp_path)) == others | left | {"a"}


# ---- modes, links, names


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_mode_of_the_umask(mask, mode, tmp_path):
    before = os.umask(mask)
    try:
        put(tmp_path / "a")
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "a") == mode


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
def test_a_file_that_is_replaced_keeps_its_mode(mode, tmp_path):
    path = tmp_path / "a"
    path.touch()
    path.chmod(mode)
    put(path)
    assert (path.read_bytes(), mode_of(path)) == (b"new", mode)


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_written_through(there, tmp_path):
    disk, link = tmp_path / "disk", tmp_path / "runs/last.ckpt"
    disk.mkdir()
    link.parent.mkdir()
    if there:
        (disk / "a.ckpt").write_bytes(b"old")
    link.symlink_to(Path("../disk/a.ckpt"))
    previous = link.with_name("previous.ckpt")
    put(link, previous=previous)
    assert link.is_symlink()
    assert (disk / "a.ckpt").read_bytes() == b"new"
    assert os.listdir(disk) == ["a.ckpt"]
    assert not previous.is_symlink()
    assert (previous.read_bytes() if there else None) == (b"old" if there else None)


def test_what_was_there_is_kept_on_another_disk(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    path, previous = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"old")
    monkeypatch.setattr("os.link", refuse)
    replace = Path.replace
    monkeypatch.setattr(
        Path, "replace", lambda a, b: refuse() if (a, b) == (path, previous) else replace(a, b)
    )
    put(path, previous=previous)
    assert (path.read_bytes(), previous.read_bytes()) == (b"new", b"old")


def test_a_link_to_itself_is_refused(tmp_path):
    (tmp_path / "a").symlink_to("a")
    with pytest.raises(UserError, match=r"a: cannot be written \(Too many levels of symbolic"):
        put(tmp_path / "a")


@pytest.mark.parametrize("name", ["a" * 255, "ü" * 127, "猫" * 85, "caf\udce9", "a\nb", "-rf", "."])
def test_names_of_every_kind(name, tmp_path):
    path = tmp_path / name
    if name == ".":
        with pytest.raises(UserError, match="it is a folder; name a file in it"):
            put(path)
        return
    put(path)
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == [name]


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(UserError, match=r"cannot be written \(File name too long\)"):
        put(tmp_path / ("a" * 256))
    with pytest.raises(UserError, match=r"cannot be written \(File name too long\)"):
        check_place(tmp_path / ("a" * 256))
    assert not os.listdir(tmp_path)


# ---- what is no file


@pytest.mark.parametrize("kind", ["pipe", "device", "full", "stdout"])
def test_what_is_no_regular_file_is_refused_and_stays(kind, tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    if kind != "pipe":
        # Links, so that a defect costs a link and no device.
        path = tmp_path / kind
        path.symlink_to({"device": "/dev/null", "full": "/dev/full", "stdout": "pipe"}[kind])
    for refuse in (put, check_place):
        with pytest.raises(UserError, match=r"cannot be written \(it is not a regular file\)"):
            refuse(path)
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)


def test_a_folder_is_refused_before_anything_is_written(tmp_path):
    def write(_):
        raise AssertionError

    with pytest.raises(UserError, match=r"\(it is a folder; name a file in it\)$"):
        write_atomically(tmp_path, write)


def test_below_a_folder_that_may_not_be_entered(process):
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        closed = Path(root, "closed")
        closed.mkdir(mode=0o700)

        def try_as_anyone() -> int:
            if os.geteuid() == 0:
                os.seteuid(65534)
            else:
                closed.chmod(0)
            for path in (closed / "a", closed / "b/c"):
                for refuse in (put, check_place):
                    with pytest.raises(UserError, match=r"cannot be written \(Permission denied"):
                        refuse(path)
            return 0

        status, _, said = process(try_as_anyone).wait()
        assert status == 0, said
        closed.chmod(0o700)


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.binary(max_size=20), st.booleans()), max_size=6)
)
@settings(max_examples=20, deadline=None)
def test_any_sequence_of_writes_that_fail_or_not_leaves_the_last_that_did_not(writes):
    """A disk that is full at some writes: the files are those of the writes that succeeded."""
    with tempfile.TemporaryDirectory() as root:
        expected: dict[str, bytes] = {}
        for name, content, full in writes:

            def write(file, content=content, full=full):
                file.write(content)
                if full:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            try:
                write_atomically(Path(root, name), write)
                expected[name] = content
            except UserError:
                assert full
        found = {path.name: path.read_bytes() for path in Path(root).iterdir()}
        assert found == expected
