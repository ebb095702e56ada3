"""Reads small files from the user: only regular files, with a limit on the size."""

import os
import stat
from pathlib import Path

from spanets_runtime.errors import UserError


def read_text_file(path: str | Path, most: int) -> str:
    """Returns the text of a file in UTF-8, without a byte-order mark; see `read_file`.

    Raises:
        UserError: see `read_file`; or it is not UTF-8.
    """
    try:
        return read_file(path, most).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file in UTF-8") from None


def read_file(path: str | Path, most: int) -> bytes:
    """Returns the content of a file.

    Args:
        path: Path of a regular file, or a link to one; a pipe or a device might never end.
        most: Limit of the size, in bytes.

    Raises:
        UserError: the file is missing, unreadable or too large.
    """
    try:
        content = _read_regular(path, most + 1)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason})") from None
    if len(content) > most:
        raise UserError(f"{path}: too large, more than {most:,} bytes")
    return content


def _read_regular(path: str | Path, most: int) -> bytes:
    # Opening a pipe without O_NONBLOCK waits for someone to write to it.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            kind = "it is a folder" if stat.S_ISDIR(mode) else "it is not a regular file"
            raise OSError(None, kind)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(descriptor)
