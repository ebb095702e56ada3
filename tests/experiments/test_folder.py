"""The lock of a study's files where the file system has none."""

import errno
import os

import pytest

from spanets.experiments import folder
from spanets.experiments.folder import locked
from spanets_runtime.errors import UserError


def failing(number):
    """A lock that the system refuses."""

    class Lock:
        def __init__(self, path):
            pass

        def acquire(self):
            raise OSError(number, os.strerror(number))

    return Lock


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks(number, tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "FileLock", failing(number))
    with locked(tmp_path / "study"):
        assert (tmp_path / "study").is_dir()
    with pytest.raises(UserError, match="cannot be written"), locked(tmp_path):
        raise OSError(errno.ENOLCK, "of what is done, not of the lock")


def test_other_errors_end_it(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "FileLock", failing(errno.EROFS))
    with pytest.raises(UserError, match="cannot be written"), locked(tmp_path):
        pytest.fail("not locked")


def test_a_lock_ends(tmp_path):
    for _ in range(2):
        with locked(tmp_path):
            lock = folder.FileLock(tmp_path / ".study", timeout=0)
            with pytest.raises(TimeoutError), lock:
                pass
