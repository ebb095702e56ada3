"""Copies one file from an address or a folder to the disk: resumed, bounded, with retries.

Only http and https are supported, no redirect leads to another scheme or from https to http, and
the content is only written, never interpreted.
"""

import json
import os
import re
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any, BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from spanets.version import __version__
from spanets.weights.files import open_regular
from spanets_runtime.errors import UserError, first_line
from spanets_runtime.progress import progress
from spanets_runtime.text import shorten

MOST_BYTES = 4 * 2**30
"""Largest file that is fetched, in bytes."""

TIMEOUT = 30.0
"""Seconds without an answer or a byte, after which a connection counts as lost."""

PAUSES = (1.0, 3.0, 9.0)
"""Seconds before each retry."""

_CHUNK = 2**20
_MOST_NOTE = 2**14
_RETRIED = (408, 425, 429)


class MissingError(UserError):
    """There is no such file at the address or path."""


class _LostError(Exception):
    """The network or the server failed; a retry may help."""


class _RedirectError(Exception):
    """A redirect leads to a place that is not allowed."""


def shown(location: str | Path) -> str:
    """Returns a location for messages: an address without user name, password and query."""
    if isinstance(location, Path):
        return str(location)
    try:
        parts = urlsplit(location)
    except ValueError:  # such as an unclosed bracket; where its secrets end cannot be known
        return shorten(location.partition("?")[0].rpartition("@")[2], 300)
    return shorten(
        urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")), 300
    )


def copy_file(location: str | Path, part: Path, size: int | None) -> None:
    """Copies a file; an interrupted download continues where it stopped, if the server allows it.

    Args:
        location: http(s) address, or path of a file.
        part: Path of the copy. If it exists, it is an earlier unfinished copy.
        size: Size of the file in bytes, if it is known.

    Raises:
        MissingError: no such file.
        UserError: network, server, disk or size; the message names the location.
        OSError: the copy cannot be written.
    """
    if isinstance(location, Path):
        _copy_local(location, part, size)
        return
    for pause in (*PAUSES, None):
        try:
            _receive(location, part, size)
        except _LostError as error:
            if pause is None:
                tried = f"{len(PAUSES) + 1} tries"
                raise UserError(
                    f"{shown(location)}: cannot be fetched ({error}; {tried}); check the network, "
                    "then repeat the command: it continues where it stopped"
                ) from error.__cause__
            time.sleep(pause)
        else:
            return


def forget_part(part: Path) -> None:
    """Removes an unfinished copy."""
    for path in (part, _note_path(part)):
        with suppress(OSError):
            path.unlink()


# ---- folders


def _copy_local(path: Path, part: Path, size: int | None) -> None:
    if not path.exists():
        raise MissingError(f"{path}: no such file")
    forget_part(part)
    with open_regular(path) as source, part.open("wb") as target:
        total = os.fstat(source.fileno()).st_size
        _check_size(str(path), total, size)
        _check_room(str(path), part, total)
        shutil.copyfileobj(source, target, _CHUNK)
        _sync(target)


# ---- addresses


def _receive(url: str, part: Path, size: int | None) -> None:
    start, validator = _resume_point(url, part)
    headers = {"Accept-Encoding": "identity", "User-Agent": f"spanets/{__version__}"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    with _open(url, headers, part) as response:
        start, total = _sizes(response, start, part)
        _check_page(url, response)
        _check_size(shown(url), total, size)
        _check_room(shown(url), part, (total or 0) - start)
        if not start:
            _begin(url, part, response.headers)
        with part.open("ab" if start else "wb") as file:
            _write_all(file, response, url, part, start, total)
            _sync(file)


def _open(url: str, headers: dict[str, str], part: Path) -> Any:
    opener = OpenerDirector()
    for handler in (
        *(ProxyHandler(), HTTPHandler(), HTTPSHandler(), _Redirects()),
        *(HTTPDefaultErrorHandler(), HTTPErrorProcessor()),
    ):
        opener.add_handler(handler)
    try:
        response = opener.open(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416:  # the part is no part of this file
            forget_part(part)
        raise _explain_status(url, error.code) from None
    except _RedirectError as error:
        raise UserError(f"{shown(url)}: {error}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise _explain(url, error) from error
    if response is None:  # OpenerDirector has no handler for the scheme
        raise UserError(f"{shown(url)}: is no http(s) address")
    return response


class _Redirects(HTTPRedirectHandler):
    """Follows a few redirects, to http(s) addresses only and never from https to http."""

    max_redirections = 5

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """Returns the request for the new address."""
        scheme = urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme == "http"):
            raise _RedirectError(
                f"the server redirects from {req.type} to {scheme}, which is refused"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _explain_status(url: str, status: int) -> Exception:
    place = shown(url)
    if status in (404, 410):
        return MissingError(f"{place}: no such file (HTTP {status})")
    if status in (401, 403, 407):
        return UserError(f"{place}: access is denied (HTTP {status})")
    if status == 416:
        return _LostError("the server has a shorter file than before")
    if 300 <= status < 400:
        return UserError(f"{place}: the server redirects without end, or to a refused scheme")
    if status >= 500 or status in _RETRIED:
        return _LostError(f"HTTP {status}")
    return UserError(f"{place}: cannot be fetched (HTTP {status})")


def _explain(url: str, error: Exception) -> Exception:
    """Turns a network error into one that is retried, or into one for the user."""
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return UserError(f"{shown(url)}: its certificate is not trusted ({cause.verify_message})")
    if isinstance(cause, socket.gaierror):
        host = urlsplit(url).hostname
        return UserError(f"{shown(url)}: cannot be fetched (no network, or no host {host})")
    # urllib names a missing host in a text.
    if isinstance(cause, str) or (isinstance(cause, ValueError) and not isinstance(cause, OSError)):
        return UserError(f"{shown(url)}: is no address ({str(cause).splitlines()[0]})")
    if isinstance(cause, TimeoutError):
        return _LostError(f"no answer for {TIMEOUT:g} s")
    if isinstance(cause, OSError) and cause.strerror:
        return _LostError(cause.strerror)
    return _LostError(first_line(cause))


def _sizes(response: Any, start: int, part: Path) -> tuple[int, int | None]:
    """Returns where the answer starts in the file, and the file's size if the server tells it."""
    length = response.headers.get("Content-Length", "")
    total = int(length) if re.fullmatch(r"[0-9]{1,15}", length) else None
    if response.status != 206:
        return 0, total
    found = re.fullmatch(
        r"bytes ([0-9]{1,15})-[0-9]{1,15}/([0-9]{1,15})", response.headers.get("Content-Range", "")
    )
    if not start or found is None or int(found[1]) != start:
        forget_part(part)
        raise _LostError("the server sent another part than asked for")
    return start, int(found[2])


def _check_page(url: str, response: Any) -> None:
    kind = response.headers.get_content_type()
    if kind in ("text/html", "application/xhtml+xml"):
        raise UserError(f"{shown(url)}: a web page, not weights")


def _write_all(
    file: BinaryIO, response: Any, url: str, part: Path, start: int, total: int | None
) -> None:
    name = Path(urlsplit(url).path).name
    done = start
    with progress(None, name, total=total, initial=start, unit="B") as bar:
        for chunk in _chunks(response):
            done += len(chunk)
            if done > (MOST_BYTES if total is None else total):
                forget_part(part)
                raise UserError(f"{shown(url)}: sends more than {done - len(chunk):,} bytes")
            file.write(chunk)
            bar.update(len(chunk))
    if total is not None and done != total:
        raise _LostError(f"the connection ended after {done:,} of {total:,} bytes")


def _chunks(response: Any) -> Iterator[bytes]:
    """Yields the content; errors of the network become an `_LostError`."""
    while True:
        try:
            # read1 returns what has arrived, so that an interruption loses nothing.
            chunk = response.read1(_CHUNK)
        except TimeoutError as error:
            raise _LostError(f"no byte for {TIMEOUT:g} s") from error
        except (OSError, HTTPException, ValueError) as error:
            raise _LostError(first_line(error)) from error
        if not chunk:
            return
        yield chunk


# ---- sizes and disks


def _check_size(place: str, total: int | None, size: int | None) -> None:
    if total is not None and total > MOST_BYTES:
        raise UserError(f"{place}: has {total:,} bytes, allowed: to {MOST_BYTES:,}")
    if None not in (total, size) and total != size:
        raise UserError(f"{place}: has {total:,} bytes, must have {size:,}: another file")


def _check_room(place: str, part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise UserError(
            f"{place}: needs {needed:,} bytes in {part.parent}, which has {free:,}; make room, or "
            "set TORCH_HOME to a folder on another disk"
        )


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


# ---- the note beside an unfinished copy: which version of which file it is


def _note_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _begin(url: str, part: Path, headers: Any) -> None:
    """Records which version of the file the server starts to send, if it tells."""
    forget_part(part)
    etag = headers.get("ETag", "")
    # A weak tag does not promise equal bytes.
    validator = headers.get("Last-Modified", "") if etag.startswith("W/") or not etag else etag
    if validator and validator.isascii():
        _note_path(part).write_text(json.dumps({"url": url, "validator": validator}))


def _resume_point(url: str, part: Path) -> tuple[int, str]:
    """Returns the size of an unfinished copy and its version; 0 if it cannot be continued."""
    try:
        size, note = part.stat().st_size, _note_path(part).read_bytes()
        found = json.loads(note) if len(note) < _MOST_NOTE else {}
        if found["url"] == url and isinstance(found["validator"], str):
            return size, found["validator"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # no copy, or one of another version of this package
    return 0, ""
