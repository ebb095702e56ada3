"""Protects a page on this machine from other pages: who may ask, for what, and how much.

A page of any site can make the browser send requests to this machine, and a name that its owner
points here (DNS rebinding) makes them look like the page's own. So every request must name this
server, come from its own page, and ask for something that the page needs.
"""

import ipaddress
import json
import os
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names of this machine on itself."""

MOST_UPLOADED = 64 * 2**20
"""Largest request that uploads a file, in bytes."""

MOST_ASKED = 2**20
"""Largest other request, in bytes: it holds the positions of sliders."""

API = "/gradio_api/"

# What the page loads and asks. Everything else that gradio answers, such as fetching an address,
# recording, monitoring and editing of the page, is refused.
_PAGES = ("/", "/config", "/config/", "/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json")
_FILES = ("/assets/", "/static/", "/svelte/")
_ASKED = ("queue/join", "queue/data", "upload", "upload_progress", "cancel", "reset", "info")
_STATES = ("heartbeat/", "theme.css", "startup-events", "login_check", "user", "app_id")

POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' data: blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors {parents}"
)


class Refusal(Exception):
    """A request is refused: a status and one line."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status, self.line = status, line


class Guard:
    """Refuses requests from other pages, under other names, for other files, and too large ones.

    Args:
        app: The application.
        names: Host names under which the server answers, besides `LOCAL`; None for a public site,
            which answers everyone.
        uploads: Folder of the files that may be read through the page; all others are refused.
        any_address: Whether it answers under any IP address; no name can be rebound to pass.
        parents: Origins that may frame the page.
    """

    def __init__(
        self,
        app: App,
        uploads: str,
        names: Collection[str] | None = (),
        any_address: bool = False,
        parents: Collection[str] = (),
    ) -> None:
        self.app = app
        self.uploads = os.path.realpath(uploads)
        self.names = None if names is None else LOCAL | {name.lower() for name in names}
        self.any_address = any_address
        self.parents = frozenset(parents)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        try:
            if scope["type"] != "http":
                raise Refusal(403, "only HTTP is answered")
            headers = {
                k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]
            }
            self.check_origin(scope["method"], headers)
            self.check_path(scope["method"], unquote(scope["path"]))
            receive = await self._bounded(scope, headers, receive)
            await self.app(scope, receive, self._with_headers(send))
        except Refusal as refusal:
            await _answer(send, refusal)

    def check_origin(self, method: str, headers: dict[str, str]) -> None:
        """Raises a Refusal for another host name, or a request that another page made."""
        if self.names is None:
            return
        host = headers.get("host", "")
        name = (_split(f"//{host}").hostname or "").lower()
        if name not in self.names and not (self.any_address and is_address(name)):
            raise Refusal(421, f"this server does not answer under the name {name!r}")
        origin = headers.get("origin")
        if origin is not None and _split(origin).netloc.lower() != host.lower():
            raise Refusal(403, "requests of other pages are refused")
        site = headers.get("sec-fetch-site", "same-origin")
        is_visit = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        is_framed = headers.get("sec-fetch-dest") in ("iframe", "frame", "embed", "object")
        if site in ("cross-site", "same-site") and (
            not is_visit or (is_framed and not self.parents)
        ):
            raise Refusal(403, "requests of other pages are refused")

    def check_path(self, method: str, path: str) -> None:
        """Raises a Refusal for what the page does not need, and for files beyond the uploads."""
        if method not in ("GET", "HEAD", "POST"):
            raise Refusal(405, f"{method} is not answered")
        if path.startswith(f"{API}file="):
            self.check_file(path.removeprefix(f"{API}file="))
            return
        asked = path.removeprefix(API) if path.startswith(API) else None
        if asked is not None:
            known = asked in _ASKED or asked.startswith(_STATES)
        else:
            known = path in _PAGES or path.startswith(_FILES)
        if not known or ".." in path.split("/"):
            raise Refusal(404, "there is nothing at this path")

    def check_file(self, path: str) -> None:
        """Raises a Refusal unless a path is a file in the folder of uploads, links followed."""
        real = os.path.realpath(path.replace("\0", ""))
        inside = os.path.commonpath([self.uploads, real]) == self.uploads
        if not inside or not os.path.isfile(real):
            raise Refusal(403, "only files that were uploaded or drawn here can be read")

    async def _bounded(self, scope: Scope, headers: dict[str, str], receive: Receive) -> Receive:
        """Checks the size of a request, and the paths that a question names; returns `receive`.

        The server reads no more of a body than its length says.
        """
        uploads = scope["path"].startswith(f"{API}upload") and scope["method"] == "POST"
        limit = MOST_UPLOADED if uploads else MOST_ASKED
        if scope["method"] != "POST":
            return receive
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()) or "transfer-encoding" in headers:
            raise Refusal(411, "the request must say how long it is")
        if int(length) > limit:
            raise Refusal(413, f"the request is too large; a file may have {limit >> 20} MiB")
        if uploads:
            return receive
        body = await _read(receive)
        self._check_question(body)
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        return replay

    def _check_question(self, body: bytes) -> None:
        """Refuses a path typed in place of an upload, wherever it is in the question."""
        try:
            waiting: list[Any] = [json.loads(body or b"null")]
        except (ValueError, RecursionError):
            raise Refusal(400, "the request is no JSON") from None
        while waiting:
            value = waiting.pop()
            if isinstance(value, list):
                waiting += value
            elif isinstance(value, dict):
                waiting += value.values()
                if isinstance(value.get("path"), str):
                    self.check_file(value["path"])

    def _with_headers(self, send: Send) -> Send:
        parents = " ".join(["'self'", *self.parents]) if self.parents else "'none'"
        extra = {
            "content-security-policy": POLICY.format(parents=parents),
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cross-origin-resource-policy": "same-origin",
        }

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [
                    (name, value)
                    for name, value in message.get("headers", [])
                    if not name.lower().startswith(b"access-control-")
                ]
                added = [(name.encode(), value.encode()) for name, value in extra.items()]
                message = {**message, "headers": kept + added}
            await send(message)

        return answer


def _split(address: str) -> SplitResult:
    """Returns the parts of an address; raises a Refusal if it is none, such as "http://["."""
    try:
        return urlsplit(address)
    except ValueError:
        raise Refusal(400, "the request names no address") from None


def is_address(name: str) -> bool:
    """Whether a host name is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _read(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return b"".join(parts)


async def _answer(send: Send, refusal: Refusal) -> None:
    body = json.dumps({"error": refusal.line, "detail": refusal.line}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
