"""A server of files on this machine, with the faults that a fetched file can meet."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["Handler", bytes], object]


class Server(ThreadingHTTPServer):
    """Serves `files` by path; `answers` by path replace the plain answer, one after another."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.answers: dict[str, list[Answer]] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.etag = '"one"'

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        """Nothing: tests are silent."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range")))
        content = self.server.files.get(self.path)
        answers = self.server.answers.get(self.path, [])
        if answers:
            answers.pop(0)(self, content or b"")
        elif content is None:
            status(404)(self, b"")
        else:
            ranged(self, content)

    def send(self, code: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


def ranged(handler: Handler, content: bytes) -> None:
    """The whole file, or the part that was asked for of an unchanged one."""
    etag, asked = handler.server.etag, handler.headers.get("Range")
    if asked is None or handler.headers.get("If-Range") != etag:
        return handler.send(200, content, ETag=etag)
    start = int(asked.removeprefix("bytes=").rstrip("-"))
    place = f"bytes {start}-{len(content) - 1}/{len(content)}"
    return handler.send(206, content[start:], ETag=etag, Content_Range=place)


def whole(handler: Handler, content: bytes) -> None:
    """The whole file, whatever part was asked for."""
    handler.send(200, content, ETag=handler.server.etag)


def status(code: int, **headers: str) -> Answer:
    """An error, or a redirect with its `Location`."""
    return lambda handler, _: handler.send(code, b"", **headers)


def page(handler: Handler, content: bytes) -> None:
    """A web page."""
    handler.send(200, b"<!DOCTYPE html><p>Sign in</p>", Content_Type="text/html; charset=utf-8")


def unlabelled_page(handler: Handler, content: bytes) -> None:
    """A web page that is not called one."""
    handler.send(200, b"<!DOCTYPE html><p>Sign in</p>", Content_Type="application/octet-stream")


def cut(handler: Handler, content: bytes) -> None:
    """Half a file, then the connection ends."""
    handler.send(200, content[: len(content) // 2], len(content), ETag=handler.server.etag)
    handler.close_connection = True


def slow(handler: Handler, content: bytes) -> None:
    """A file in four pieces."""
    handler.send(200, b"", len(content), ETag=handler.server.etag)
    step = len(content) // 4 + 1
    for start in range(0, len(content), step):
        time.sleep(0.15)
        handler.wfile.write(content[start : start + step])
        handler.wfile.flush()


def stalled(handler: Handler, content: bytes) -> None:
    """Half a file, then nothing for longer than a test waits."""
    handler.send(200, content[: len(content) // 2], len(content), ETag=handler.server.etag)
    time.sleep(1)
    handler.close_connection = True


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
