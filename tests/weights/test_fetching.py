"""Fetching a file once: what a server, a network, a disk or a cache can do wrong."""

import json
import multiprocessing
import os
import shutil
import socket
from collections import namedtuple
from pathlib import Path

import pytest
import releases
import torch
from releases import cut, page, slow, stalled, status, unlabelled_page, whole

from spanets.weights import WeightsError, transport
from spanets.weights.digests import Fetched, measure, read_record, record_path
from spanets.weights.fetching import Wanted, default_cache, fetch, verify
from spanets.weights.files import read_checkpoint
from spanets_runtime.errors import UserError

PLACE = "/someone/things/releases/download/v1/tiny.pth"


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(transport, "PAUSES", (0.01, 0.01, 0.01))
    with releases.serving() as running:
        yield running


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("files") / "tiny.pth"
    torch.save({"weight": torch.arange(5000.0)}, path)
    return path.read_bytes()


@pytest.fixture
def served(server, content):
    """The server with a whole file, and the file as it is wanted."""
    server.files[PLACE] = content
    return Wanted(server.address + PLACE, [server.address + PLACE])


def check(path: Path) -> torch.Tensor:
    return read_checkpoint(path)["weight"]


def failure(wanted: Wanted, folder: Path) -> str:
    """The line about a file that was refused; nothing of it lies in the cache."""
    with pytest.raises(UserError) as caught:
        fetch(wanted, folder, check)
    assert not (folder / "tiny.pth").exists()
    assert not record_path(folder / "tiny.pth").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_fetched_once_then_no_request(server, served, content, tmp_path):
    folder = tmp_path / "new" / "cache"
    for _ in range(3):
        assert torch.equal(fetch(served, folder, check), torch.arange(5000.0))
    assert server.asked == [(PLACE, None)]
    path = folder / "tiny.pth"
    assert path.read_bytes() == content
    record = read_record(path)
    assert (record.size, record.sha256) == measure(path)
    assert record.url == record.fetched_from == served.url
    assert {p.name for p in folder.iterdir()} <= {
        "tiny.pth", "tiny.pth.json", ".tiny.pth.lock"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (page, "a web page, not weights"),
        (unlabelled_page, "a web page, not weights"),
        (status(404), "no such file (HTTP 404)"),
        (status(403), "access is denied (HTTP 403)"),
        (status(400), "cannot be fetched (HTTP 400)"),
        (status(302, Location="file:///etc/passwd"), "redirects without end, or to a refused"),
        (status(302, Location="ftp://127.0.0.1/tiny.pth"), "redirects from http to ftp"),
        (status(302, Location=PLACE), "redirects without end"),
        (lambda h, c: h.send(200, c[: len(c) // 2]), "a truncated or damaged PyTorch file"),
        (lambda h, c: h.send(200, b"", 2**33), "has 8,589,934,592 bytes, allowed: to"),
        (lambda h, c: h.send(200, b""), "the file is empty"),
    ],
)
def test_bad_answers_are_one_line(server, served, tmp_path, answer, reason):
    server.answers[PLACE] = [answer] * 12
    message = failure(served, tmp_path)
    assert message.startswith(served.url)
    assert reason in message
    assert str(tmp_path / "tiny.pth") in message  # where a file may be put by hand
    server.answers.clear()
    assert len(fetch(served, tmp_path, check)) == 5000


@pytest.mark.parametrize(
    "answers",
    [[status(500)], [status(429), status(503)], [cut], [cut, cut], [cut, whole], [slow]],
)
def test_faults_that_pass(server, served, content, tmp_path, answers):
    server.answers[PLACE] = list(answers)
    fetch(served, tmp_path, check)
    assert (tmp_path / "tiny.pth").read_bytes() == content


def test_bounded_tries(server, served, tmp_path):
    server.answers[PLACE] = [status(500)] * 20
    assert "cannot be fetched (HTTP 500; 4 tries)" in failure(served, tmp_path)
    assert len(server.asked) == 4


def test_stalled_connection_is_resumed(server, served, content, tmp_path, monkeypatch):
    monkeypatch.setattr(transport, "TIMEOUT", 0.3)
    server.answers[PLACE] = [stalled]
    fetch(served, tmp_path, check)
    assert server.asked[1] == (PLACE, f"bytes={len(content) // 2}-")


def test_redirects_are_followed(server, served, content, tmp_path):
    server.files["/elsewhere/x"] = content
    server.answers[PLACE] = [status(302, Location="/elsewhere/x")]
    fetch(served, tmp_path, check)
    assert (tmp_path / "tiny.pth").read_bytes() == content


@pytest.mark.parametrize("changed", [False, True])
def test_later_call_resumes(server, served, content, tmp_path, changed, monkeypatch):
    """Bytes of two versions of a file are never joined."""
    server.answers[PLACE] = [cut, *[status(503)] * 3]
    failure(served, tmp_path)
    if changed:
        server.etag = '"two"'
        server.files[PLACE] = bytes(reversed(content))
    server.asked.clear()
    if changed:
        assert "neither a PyTorch nor a safetensors file" in failure(served, tmp_path)
    else:
        fetch(served, tmp_path, check)
        assert (tmp_path / "tiny.pth").read_bytes() == content
    assert server.asked == [(PLACE, f"bytes={len(content) // 2}-")]


def test_no_resuming_without_a_version(server, served, content, tmp_path):
    server.etag = ""
    server.answers[PLACE] = [cut]
    fetch(served, tmp_path, check)
    assert server.asked == [(PLACE, None)] * 2


def test_no_network(served, tmp_path, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "no network, or no host 127.0.0.1" in failure(served, tmp_path)


def test_nobody_listens(served, tmp_path, server):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/tiny.pth"
        assert "Connection refused" in failure(Wanted(url, [url]), tmp_path)


def test_offline(server, served, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in failure(served, tmp_path)
    assert not server.asked
    monkeypatch.delenv("HF_HUB_OFFLINE")
    fetch(served, tmp_path, check)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fetch(served, tmp_path, check)
    assert len(server.asked) == 1


def test_full_disk(server, served, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 7))
    message = failure(served, tmp_path)
    assert "which has 7; make room" in message


def test_disk_that_fills_up(server, served, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transport, "_sync", full)
    message = failure(served, tmp_path)
    assert f"{tmp_path}: weights cannot be written there (No space left on device)" in message
    assert not list(tmp_path.glob("*.part*")) + list(tmp_path.glob(".*.part*"))


def test_unwritable_cache(served, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="weights cannot be written there"):
        fetch(served, tmp_path / "file" / "cache", check)


def test_changed_file_is_refused(server, served, tmp_path):
    fetch(served, tmp_path, check)
    path = tmp_path / "tiny.pth"
    for content, how in ((path.read_bytes()[:-1] + b"!", "another SHA-256"), (b"PK", "2 bytes")):
        path.write_bytes(content)
        for use in (fetch, verify):
            with pytest.raises(WeightsError) as caught:
                use(served, tmp_path, check)
            assert f"{path}: changed since 20" in str(caught.value)
            assert how in str(caught.value)
    assert len(server.asked) == 1
    path.unlink()
    fetch(served, tmp_path, check)
    assert len(server.asked) == 2


def test_file_without_a_record_is_verified_and_recorded(server, served, content, tmp_path):
    """As timm, or the user, leaves it."""
    path = tmp_path / "tiny.pth"
    path.write_bytes(content[:-50])
    with pytest.raises(WeightsError, match="damaged PyTorch file; remove the file, then"):
        fetch(served, tmp_path, check)
    assert read_record(path) is None
    path.write_bytes(content)
    fetch(served, tmp_path, check)
    assert read_record(path).fetched_from == ""
    assert not server.asked


def test_two_addresses_with_one_file_name(server, served, content, tmp_path):
    fetch(served, tmp_path, check)
    other = f"{server.address}/other/tiny.pth"
    with pytest.raises(WeightsError, match="the same file name; remove it, or give another"):
        fetch(Wanted(other, [other]), tmp_path, check)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"url": 1}', "[" * 5000])
def test_damaged_record(served, tmp_path, text):
    fetch(served, tmp_path, check)
    record_path(tmp_path / "tiny.pth").write_text(text)
    with pytest.raises(UserError, match="remove it, then the weights are verified anew"):
        fetch(served, tmp_path, check)
    record_path(tmp_path / "tiny.pth").unlink()
    fetch(served, tmp_path, check)


def test_known_digest_is_enforced(server, served, content, tmp_path):
    (tmp_path / "a").write_bytes(content)
    size, sha256 = measure(tmp_path / "a")
    url = served.url
    assert "its SHA-256 is" in failure(Wanted(url, [url], size, "0" * 64), tmp_path / "b")
    assert "another file" in failure(Wanted(url, [url], size + 1, sha256), tmp_path / "b")
    fetch(Wanted(url, [url], size, sha256), tmp_path / "b", check)
    with pytest.raises(WeightsError, match="its SHA-256 is"):  # also of a cached file
        fetch(Wanted(url, [url], size, "0" * 64), tmp_path / "b", check)


def test_folder_in_place_of_an_address(server, served, content, tmp_path):
    folder = tmp_path / "mirror"
    folder.mkdir()
    missing, there = folder / "no.pth", folder / "yes.pth"
    wanted = Wanted(served.url, [missing, there])
    message = failure(wanted, tmp_path / "cache")
    assert f"{missing}: no such file, nor {there}" in message
    there.write_bytes(content)
    fetch(wanted, tmp_path / "cache", check)
    assert read_record(tmp_path / "cache" / "tiny.pth").fetched_from == str(there)
    assert not server.asked
    os.mkfifo(folder / "pipe")
    message = failure(Wanted(served.url, [folder / "pipe"]), tmp_path / "other")
    assert "must be a regular file" in message


@pytest.mark.parametrize("url", ["http://host/", "http://host/a/..", "http://host/%00"])
def test_addresses_without_a_file_name(url, tmp_path):
    with pytest.raises(UserError, match="names no file"):
        fetch(Wanted(url, [url]), tmp_path, check)


@pytest.mark.parametrize("url", ["file:///etc/hosts", "ftp://127.0.0.1/tiny.pth", "http:///x.pth"])
def test_other_schemes_are_refused(url, tmp_path):
    with pytest.raises(UserError, match=r"is no http.s. address|is no address|cannot be fetched"):
        fetch(Wanted(url, [url]), tmp_path, check)
    assert not (tmp_path / Path(url).name).exists()


def test_messages_hide_secrets(tmp_path):
    url = "ftp://me:word@host/tiny.pth?token=word"
    with pytest.raises(UserError) as caught:
        fetch(Wanted(url, [url]), tmp_path, check)
    assert "word" not in str(caught.value)


def test_two_processes_fetch_once(server, served, tmp_path):
    server.answers[PLACE] = [slow]
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=fetch, args=(served, tmp_path, check)) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
    assert [one.exitcode for one in both] == [0, 0]
    assert len(server.asked) == 1


def test_cache_follows_the_variables(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "torch/hub/checkpoints"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "t"))
    assert default_cache() == tmp_path / "t/hub/checkpoints"


def test_record_is_plain_json(served, tmp_path):
    fetch(served, tmp_path, check)
    assert Fetched(**json.loads(record_path(tmp_path / "tiny.pth").read_text()))
