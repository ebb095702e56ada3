"""The page itself, asked over HTTP as a browser and as an attacker would."""

import http.client
import json
import re
import socket
import struct
import threading
import time
import zlib
from contextlib import closing
from urllib.parse import quote

import pytest
import torch
from small_runs import make_photos

from spanets.explore import twins
from spanets.explore.look import look
from spanets.explore.server import listen, make_app, set_environment, warm_up
from spanets.explore.workbench import Settings, Workbench
from spanets.sources import open_source
from spanets_runtime.errors import UserError

pytest.importorskip("gradio")
uvicorn = pytest.importorskip("uvicorn")
pytestmark = pytest.mark.filterwarnings("ignore:::gradio.*")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A started server: its port, its folder of uploads, and its workbench."""
    set_environment()
    folder = make_photos(tmp_path_factory.mktemp("explore") / "photos", cat=2, dog=2)
    torch.manual_seed(0)
    source = open_source("spanet_nano", model_args={"depths": [1, 1, 1, 1]})
    scratch = tmp_path_factory.mktemp("scratch")
    bench = Workbench({"nano": source}, folder)
    app = make_app(bench, scratch, "127.0.0.1")
    listener = listen("127.0.0.1", 0)
    running = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.05)
    yield listener.getsockname()[1], scratch / "shown", bench
    running.should_exit = True
    thread.join(20)


def ask(port, path, method="GET", body=None, **headers):
    """Returns status, headers and text of an answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, given)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode("utf-8", "replace")


def upload(port, name, content):
    """Uploads a file as the page does; returns status and answer."""
    border = "----border"
    head = f'--{border}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{border}--\r\n".encode()
    kind = f"multipart/form-data; boundary={border}"
    status, _, text = ask(port, "/gradio_api/upload", "POST", body, content_type=kind)
    return status, text


def run(port, config, name, values):
    """Asks the function whose inputs are one component; returns the events that it sends."""
    (component,) = [one["id"] for one in config["components"] if one["props"].get("label") == name]
    fn = next(one["id"] for one in config["dependencies"] if one["inputs"] == [component])
    return send(port, fn, values, f"s{time.time_ns()}")


def send(port, fn, values, session):
    """Asks a function by its number, in a visit of the page; returns the events that it sends."""
    question = {"data": values, "fn_index": fn, "session_hash": session}
    body, kind = json.dumps(question), "application/json"
    status, _, text = ask(port, "/gradio_api/queue/join", "POST", body, content_type=kind)
    if status != 200:
        return status, text
    _, _, events = ask(port, f"/gradio_api/queue/data?session_hash={session}")
    return status, events


@pytest.fixture(scope="module")
def config(server):
    return json.loads(ask(server[0], "/config")[2])


def test_the_page_names_no_other_host(server):
    status, headers, text = ask(server[0], "/")
    assert status == 200
    assert "default-src 'self'" in headers["content-security-policy"]
    loaded = re.findall(r"""<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=["']([^"']+)""", text)
    assert loaded
    assert [one for one in loaded if "//" in one] == []
    status, _, style = ask(server[0], "/theme.css")
    assert (status, "@import" in style) == (200, False)
    assert not re.search(r"url\(\s*['\"]?(https?:)?//", style)


def test_telemetry_is_off(config):
    assert config["analytics_enabled"] is False
    assert not config.get("is_space")


def test_a_tab_is_filled_once_for_the_same_image(server, config):
    """The browser loads the page, and selects the first tab: its panel is computed once."""
    port, _, bench = server
    labels = {one["id"]: one["props"].get("label") for one in config["components"]}
    inputs = {one["id"]: [labels[i] for i in one["inputs"]] for one in config["dependencies"]}
    steps = [
        (one["id"], labels.get(block), event)
        for one in config["dependencies"]
        for block, event in one["targets"]
    ]

    def select(tab):
        return next(fn for fn, *target in steps if target == [tab, "select"])

    load = [fn for fn, _, event in steps if event == "load"][-1]
    choose = next(fn for fn, *target in steps if target == ["sample", "input"])

    def fills(fn):
        values = ["nano" if label == "model" else None for label in inputs[fn]]
        status, events = send(port, fn, values, "visit")
        assert (status, "process_completed" in events) == (200, True)
        return "spanets-bar" in events

    assert [fills(load), fills(select("Look")), fills(load)] == [True, False, False]
    assert [fills(select("Detect")), fills(select("Look"))] == [False, False]
    last = str(bench.listing.images[-1].relative_to(bench.folder))
    assert send(port, choose, [last, None], "visit")[0] == 200
    assert [fills(select("Look")), fills(select("Look"))] == [True, False]


def test_warming_up(server, tmp_path, capfd, monkeypatch):
    """The first answer copies no network; what fails says nothing, since the page will."""
    _, _, bench = server
    image = str(bench.listing.images[0])
    fresh = Workbench(bench.sources, bench.folder)
    warm_up(fresh, image)
    monkeypatch.setattr(twins, "share_tensors", None)
    assert look(fresh, ["nano"], Settings(image)).answers
    warm_up(fresh, str(tmp_path / "none.png"))
    assert capfd.readouterr() == ("", "")


def test_rebound_names_and_other_pages(server):
    assert ask(server[0], "/config", host="evil.example")[0] == 421
    for path in ("/", "/config", "/gradio_api/queue/data?session_hash=x"):
        status, headers, _ = ask(server[0], path, origin="https://evil.example")
        assert status == 403
        assert not any(name.lower().startswith("access-control") for name in headers)
    status, headers, _ = ask(server[0], "/config", origin=f"http://127.0.0.1:{server[0]}")
    assert status == 200
    assert "access-control-allow-origin" not in {name.lower() for name in headers}


def test_files_of_this_machine_are_not_read(server):
    port, shown, bench = server
    folder = bench.folder
    assert upload(port, "a.txt", b"mine")[0] == 200
    (mine,) = shown.glob("*/a.txt")
    assert ask(port, f"/gradio_api/file={mine}")[0::2] == (200, "mine")
    for path in ("/etc/passwd", "../../../../etc/passwd", f"{shown}/../../x", __file__, folder):
        for shape in (str(path), quote(str(path)), quote(str(path), safe="")):
            for start in ("/gradio_api/file=", "/file=", "/gradio_api/file/", "/static/"):
                status, _, text = ask(port, start + shape.replace(" ", "%20"))
                assert status in (403, 404), (start, shape)
                assert "root:" not in text


def test_a_path_in_place_of_an_upload(server, config):
    port, _, bench = server
    folder = bench.folder
    meta = {"_type": "gradio.FileData"}
    for path in ("/etc/passwd", str(folder / "cat/0.png"), "http://evil.example/a.png"):
        status, text = run(port, config, "your image", [{"path": path, "meta": meta}])
        assert status == 403
        assert "only files that were uploaded" in text


def test_pictures_of_the_webcam_are_used(config):
    """Gradio's page sends "change" for them, and neither "input" nor "upload"."""
    (upload,) = [
        one["id"] for one in config["components"] if one["props"].get("label") == "your image"
    ]
    events = [one["targets"] for one in config["dependencies"] if one["inputs"] == [upload]]
    assert events == [[[upload, "change"]]]


def test_uploads_keep_to_their_folder(server):
    port, shown, _ = server
    before = set(shown.parent.iterdir())
    status, text = upload(port, "../../../evil.txt", b"x")
    assert status == 200
    (path,) = json.loads(text)
    assert path.startswith(f"{shown}/")
    assert set(shown.parent.iterdir()) == before


def test_a_text_and_200_megapixels(server, config):
    """Both are taken as uploads; what uses them says in words that they cannot be used."""
    port, shown, bench = server
    from spanets.explore.page import Page

    page = Page(bench, [], shown)
    size = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", size), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts
    )
    for name, content, said in (
        ("text.png", b"this is no image", "not an image"),
        ("large.png", png, "20000x10000 pixels"),
    ):
        (path,) = json.loads(upload(port, name, content)[1])
        status, events = run(
            port,
            config,
            "your image",
            [{"path": path, "meta": {"_type": "gradio.FileData"}}],
        )
        assert (status, "process_completed" in events) == (200, True)
        _, line = page.preview(path)
        assert said in line
        assert "Traceback" not in line
        assert str(shown) not in line


def test_a_closed_tab(server):
    port, *_ = server
    for _ in range(3):
        with closing(socket.create_connection(("127.0.0.1", port))) as tab:
            tab.sendall(
                b"GET /gradio_api/queue/data?session_hash=gone HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
            tab.recv(64)
    assert ask(port, "/config")[0] == 200


def test_a_port_in_use(server):
    with pytest.raises(UserError, match="in use; choose another --host or --port"):
        listen("127.0.0.1", server[0])
    with pytest.raises(UserError, match=r"no\.such\.host\.invalid port 1: "):
        listen("no.such.host.invalid", 1)
