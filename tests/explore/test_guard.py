"""The guard of the page, without gradio: other pages, names, paths, sizes."""

import asyncio
import json
import os

import pytest

from spanets.explore.guard import MOST_ASKED, MOST_UPLOADED, Guard

HOST = "127.0.0.1:7860"


@pytest.fixture
def uploads(tmp_path):
    folder = tmp_path / "shown"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"picture")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "link.png").symlink_to(tmp_path / "secret.txt")
    return folder


async def app(scope, receive, send):
    message = await receive() if scope["method"] == "POST" else {"body": b""}
    headers = [(b"access-control-allow-origin", b"*")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": message["body"]})


def ask(uploads, path="/", method="GET", body=b"", options=None, kind="http", **headers):
    """Returns status, headers and body of an answer."""
    given = {"host": HOST, **{k.replace("_", "-"): v for k, v in headers.items()}}
    if method == "POST":
        given.setdefault("content-length", str(len(body)))
    raw = [(k.encode(), v.encode()) for k, v in given.items() if v is not None]
    scope = {"type": kind, "method": method, "path": path, "headers": raw}
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(app, str(uploads), **(options or {}))(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


def test_the_page_answers_itself(uploads):
    status, headers, _ = ask(uploads, origin=f"http://{HOST}", sec_fetch_site="same-origin")
    assert status == 200
    assert b"access-control-allow-origin" not in headers
    assert b"frame-ancestors 'none'" in headers[b"content-security-policy"]
    assert ask(uploads, host="localhost:7860")[0] == 200
    assert ask(uploads, host="[::1]:7860")[0] == 200


@pytest.mark.parametrize("host", ["evil.example:7860", "127.0.0.1.evil.example", "", "10.0.0.1"])
def test_other_names(uploads, host):
    status, _, body = ask(uploads, host=host)
    assert status == 421
    assert "does not answer under the name" in json.loads(body)["error"]


@pytest.mark.parametrize("headers", [{"host": "["}, {"host": "[::1"}, {"origin": "http://["}])
def test_what_is_no_address(uploads, headers):
    status, _, body = ask(uploads, **headers)
    assert status == 400
    assert "names no address" in json.loads(body)["error"]


def test_a_host_that_was_given(uploads):
    for host, options in (("box:1", {"names": ["box"]}), ("10.0.0.1:1", {"any_address": True})):
        assert ask(uploads, host=host, options=options)[0] == 200
        assert ask(uploads, host="evil.example", options=options)[0] == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8000"},  # another server of this machine
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"},
        {"sec_fetch_site": "same-site", "sec_fetch_mode": "cors"},
        {
            "sec_fetch_site": "cross-site",
            "sec_fetch_mode": "navigate",
            "sec_fetch_dest": "iframe",
        },
    ],
)
@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/queue/join"])
def test_other_pages(uploads, headers, path):
    method = "POST" if path.endswith("join") else "GET"
    status, answered, _ = ask(uploads, path, method, b"{}", **headers)
    assert status == 403
    assert not any(name.startswith(b"access-control") for name in answered)


def test_a_link_to_the_page_works(uploads):
    given = {"sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert ask(uploads, sec_fetch_site="cross-site", **given)[0] == 200


def test_preflights_get_no_permission(uploads):
    status, headers, _ = ask(uploads, method="OPTIONS", access_control_request_method="POST")
    assert status == 405
    assert not any(name.startswith(b"access-control") for name in headers)
    assert ask(uploads, kind="websocket")[0] == 403


def test_only_files_of_the_page_are_read(uploads, tmp_path):
    assert ask(uploads, f"/gradio_api/file={uploads}/a.png")[0] == 200
    outside = [
        *("/etc/passwd", "../../etc/passwd", f"{uploads}/../secret.txt", f"{uploads}/link.png"),
        *(f"{tmp_path}/secret.txt", f"{uploads}", "", "http://evil.example/a.png", "a.png\0"),
        *(f"{uploads}x/a.png", os.path.relpath(tmp_path / "secret.txt"), "file:///etc/passwd"),
    ]
    for path in outside:
        status, _, body = ask(uploads, f"/gradio_api/file={path}")
        assert status == 403, path
        assert b"secret" not in body


@pytest.mark.parametrize(
    "path",
    [
        *("/gradio_api/proxy=http://evil.example", "/gradio_api/vibe-edit", "/monitoring"),
        *("/docs", "/openapi.json", "/gradio_api/process_recording", "/gradio_api/runs", "/x"),
        *("/assets/../../secret", "/static/../x", "/gradio_api/run/predict", "/gradio_api/dev"),
    ],
)
def test_what_the_page_does_not_need(uploads, path):
    assert ask(uploads, path)[0] == 404


def test_paths_in_questions(uploads):
    typed = {"data": [{"nested": [{"path": "/etc/passwd"}]}]}
    status, _, body = ask(uploads, "/gradio_api/queue/join", "POST", json.dumps(typed).encode())
    assert status == 403
    assert "only files that were uploaded" in json.loads(body)["error"]
    own = json.dumps({"data": [{"path": f"{uploads}/a.png"}, 1]}).encode()
    assert ask(uploads, "/gradio_api/queue/join", "POST", own)[0::2] == (200, own)
    assert ask(uploads, "/gradio_api/queue/join", "POST", b"{")[0] == 400
    assert ask(uploads, "/gradio_api/queue/join", "POST", b"[" * 100_000)[0] == 400


def test_sizes(uploads):
    join, upload = "/gradio_api/queue/join", "/gradio_api/upload"
    for path, most in ((join, MOST_ASKED), (upload, MOST_UPLOADED)):
        status, _, body = ask(uploads, path, "POST", content_length=str(most + 1))
        assert (status, b"too large" in body) == (413, True)
        for length in ("", "-1", "x", None):
            assert ask(uploads, path, "POST", content_length=length)[0] == 411
        assert ask(uploads, path, "POST", transfer_encoding="chunked")[0] == 411


def test_a_public_site_answers_everyone_but_reads_no_file(uploads):
    public = {"names": None, "parents": ["https://huggingface.co"]}
    status, headers, _ = ask(uploads, host="a.hf.space", origin="https://b", options=public)
    assert status == 200
    assert b"frame-ancestors 'self' https://huggingface.co" in headers[b"content-security-policy"]
    assert ask(uploads, "/gradio_api/file=/etc/passwd", options=public)[0] == 403
