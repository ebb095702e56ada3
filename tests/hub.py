"""A hub on this machine: what of the Hugging Face Hub's protocol a model's push and pull need."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_of_the_tests"
COMMIT = "0" * 40


class Hub(ThreadingHTTPServer):
    """Holds the files of one repository, and what was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.messages: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        """Nothing: tests are silent."""

    def answer(self, content: object, status: int = 200) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if isinstance(content, bytes):
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(f"POST {self.path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            name = json.loads(body)
            return self.answer({"url": f"{self.server.address}/me/{name['name']}"})
        if self.path.startswith("/api/validate-yaml"):
            return self.answer({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular"} for f in files]
            return self.answer({"files": [{**mode, "shouldIgnore": False} for mode in modes]})
        if "/commit/" in self.path:
            return self.commit([json.loads(line) for line in body.splitlines()])
        return self.answer({"error": self.path}, 404)

    def commit(self, entries: list[dict]) -> None:
        for entry in entries:
            value = entry["value"]
            if entry["key"] == "header":
                self.server.messages.append(value["summary"])
            else:
                self.server.files[value["path"]] = base64.b64decode(value["content"])
        url = f"{self.server.address}/me/cells/commit/{COMMIT}"
        self.answer({"commitUrl": url, "commitOid": COMMIT, "success": True})

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        if self.path.endswith("/revision/main?expand=xetEnabled"):  # older clients, before a push
            return self.answer({"id": "me/cells", "xetEnabled": False})
        name = self.path.rpartition("/resolve/")[2].partition("/")[2]
        if name in self.server.files:
            return self.answer(self.server.files[name])
        return self.answer({"error": self.path}, 404)

    do_HEAD = do_GET


@contextmanager
def local_hub() -> Iterator[Hub]:
    """Serves a hub while the block runs."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
