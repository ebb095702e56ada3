"""Downloads remote files into a cache folder, each once per machine.

The name of a copy is a digest of its URL. It keeps nothing of the URL, so that no suffix makes the
copy executable and no path places it outside of the cache.
"""

import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

from spanets_runtime.errors import UserError, require
from spanets_runtime.files import write_atomically

# Other schemes of fsspec may run commands, or read files that another file names.
SCHEMES = ("http", "https", "s3", "gs", "az", "hf")
CHUNK = 2**20
_PAUSES = (1.0, 4.0)  # seconds before each retry


class _Missing(UserError):
    """The file does not exist or access is denied; a retry cannot help."""


class _Unfetched(UserError):
    """The network or the server failed; a retry may help."""


def is_url(location: str) -> bool:
    """Whether a location is a URL and not a path.

    Raises:
        UserError: an unsupported scheme, or a malformed URL.
    """
    scheme, separator, _ = location.partition("://")
    if location.startswith("pipe:") or (separator and scheme not in SCHEMES):
        raise UserError(
            f"{location}: must be a path, or begin with {'://, '.join(SCHEMES)}:// "
            "(commands are not run)"
        )
    if separator:
        try:
            urlsplit(location).port  # noqa: B018 (parsed only when asked for)
        except ValueError as error:  # such as http://[::1
            raise UserError(f"{location}: is no address ({error})") from None
    return bool(separator)


def beside(url: str, ending: str) -> str:
    """Appends to the path of a URL, before its query and fragment."""
    path, *rest = re.split(r"(?=[?#])", url, maxsplit=1)
    return path + ending + "".join(rest)


def default_cache() -> Path:
    """Returns the default cache folder, following the XDG base directory specification."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "spanets")


def fetch(url: str, cache: Path, size: int | None = None) -> Path:
    """Returns the local copy of a file, and downloads it if there is none of the right size.

    If several processes need it, one downloads and the others wait.

    Args:
        url: A URL with one of `SCHEMES`.
        cache: The cache folder.
        size: Size of the file in bytes, if known.

    Raises:
        UserError: it cannot be fetched, has another size, or cannot be written.
    """
    path = cached_path(url, cache)
    if _is_whole(path, size):
        return path
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{cache}: cannot be made ({error.strerror}); set data.cache") from None
    with FileLock(cache / f".{path.name}.lock"):
        _rename_older_copy(url, path)
        if not _is_whole(path, size):
            _fetch_patiently(url, path)
    if not _is_whole(path, size):
        raise UserError(f"{url}: has {path.stat().st_size} bytes, its index says {size}")
    return path


def cached_path(url: str, cache: Path) -> Path:
    """Returns the path of a file's copy in the cache."""
    return cache / hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _rename_older_copy(url: str, path: Path) -> None:
    """Renames a copy made by version 0.1.0, whose name ended in the file's name."""
    older = path.with_name(f"{path.name[:16]}-{Path(urlsplit(url).path).name}")
    if older.is_file() and not path.exists():
        with suppress(OSError):
            older.replace(path)


def read_small(url: str, limit: int = 2**28) -> bytes | None:
    """Returns the content of a remote file, or None if there is no such file.

    Raises:
        UserError: it cannot be read, or has more than `limit` bytes.
    """
    content = b""
    try:
        for chunk in _chunks(url):
            content += chunk
            if len(content) > limit:
                raise UserError(f"{url}: has more than {limit} bytes")
    except _Missing:
        return None
    return content


def expand(url: str) -> list[str]:
    """Returns the sorted URLs that match a pattern with `*`, `?` or `[…]`; HTTP has no patterns."""
    scheme = url.partition("://")[0]
    if scheme in ("http", "https") or not set(url) & set("*?["):
        return [url]
    filesystem = _filesystem(scheme)
    try:
        return sorted(filesystem.unstrip_protocol(path) for path in filesystem.glob(url))
    # Each kind of storage raises its own errors.
    except Exception as error:
        raise UserError(f"{url}: cannot be listed ({_reason(error)})") from error


def _is_whole(path: Path, size: int | None) -> bool:
    try:
        found = path.stat().st_size
    except OSError:
        return False
    return size is None or found == size


def _fetch_patiently(url: str, path: Path) -> None:
    def write(file: Any) -> None:
        for chunk in _chunks(url):
            file.write(chunk)

    for pause in (*_PAUSES, None):
        try:
            write_atomically(path, write)
        except _Missing:
            raise
        except _Unfetched:
            if pause is None:
                raise
            time.sleep(pause)
        else:
            return


def _chunks(url: str) -> Iterator[bytes]:
    """Yields the content of a remote file; network errors become a `UserError`."""
    scheme = url.partition("://")[0]
    filesystem = _filesystem(scheme)
    # One stream over HTTP, because not every server supports range requests.
    options = {"block_size": 0} if scheme in ("http", "https") else {}
    try:
        with filesystem.open(url, "rb", **options) as file:
            while chunk := file.read(CHUNK):
                yield chunk
    # Each kind of storage raises its own errors.
    except Exception as error:
        raise _explain(url, error) from error


def _explain(url: str, error: Exception) -> UserError:
    """Turns an error into a `UserError` with its cause; fsspec reports most as a missing file."""
    cause: BaseException = error
    while isinstance(cause, FileNotFoundError) and cause.__cause__ is not None:
        cause = cause.__cause__
    status = getattr(cause, "status", None)
    if status in (404, 410) or (status is None and isinstance(cause, FileNotFoundError)):
        return _Missing(f"{url}: no such file")
    if status in (401, 403):
        return _Missing(f"{url}: the server refuses it (HTTP {status})")
    if type(cause).__name__ == "TooManyRedirects":
        return UserError(f"{url}: cannot be fetched (the server redirects without end)")
    if isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429):
        return UserError(f"{url}: cannot be fetched (HTTP {status})")
    reason = f"HTTP {status}" if isinstance(status, int) and status else _reason(cause)
    return _Unfetched(f"{url}: cannot be fetched ({reason})")


def _filesystem(scheme: str) -> Any:
    fsspec = require("fsspec", "train")
    options: dict[str, Any] = {}
    if scheme in ("http", "https"):
        aiohttp = require("aiohttp", "train")
        # The default total timeout of five minutes is too short for large files.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
        options = {"client_kwargs": {"timeout": timeout, "trust_env": True}}
    try:
        return fsspec.filesystem(scheme, **options)
    except ImportError as error:  # it names the package to install
        raise UserError(f"{scheme}://: {' '.join(str(error).split())}") from None


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
