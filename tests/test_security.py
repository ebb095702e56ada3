"""What `docs/security.md` promises of files that come from others."""

import shutil
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import torch
import yaml
from small_runs import make_photos

from spanets.data.sources import remote
from spanets.recipe import list_recipes, load_recipe
from spanets.recipe.trust import is_address, places_outside
from spanets_cli import main
from spanets_runtime.errors import UserError

ADDRESS = "http://198.51.100.7/evil.pth"  # of a network for documentation

# What a stranger's recipe might say, and the key that the refusal names.
FETCHING = {
    "a shard elsewhere": ({"data": {"source": "webdataset", "root": ADDRESS}}, "data.root"),
    "shards by a pattern": (
        {"data": {"source": "webdataset", "root": "{a.tar,https://host/b.tar}"}},
        "data.root",
    ),
    "a program's output": ({"data": {"source": "webdataset", "root": "pipe:id"}}, "data.root"),
    "a bucket": ({"data": {"source": "webdataset", "root": "s3://bucket/x.tar"}}, "data.root"),
    "the hub": ({"data": {"source": "hf", "root": "nobody/nothing"}}, "data.root"),
    "another machine's share": ({"data": {"root": "\\\\host\\share"}}, "data.root"),
    "a folder on another machine": ({"data": {"root": "//host/share"}}, "data.root"),
    "for detectors": ({"task": "detection", "data": {"root": ADDRESS}}, "data.root"),
    "for segmenters": ({"task": "segmentation", "data": {"root": ADDRESS}}, "data.root"),
}
WRITING = {
    "a cache": ({"data": {"root": "photos", "cache": "site-packages"}}, "data.cache"),
    "a logger's folder": (
        {"trainer": {"logger_args": {"save_dir": "/tmp"}}},
        "trainer.logger_args",
    ),
    "a logger's name": (
        {"trainer": {"logger": "csv", "logger_args": {"name": "../../x"}}},
        "trainer.logger_args",
    ),
    "a logger of the network": ({"trainer": {"logger": "wandb"}}, "trainer.logger"),
    "by its class": (
        {"trainer": {"logger": "lightning.pytorch.loggers.MLFlowLogger"}},
        "trainer.logger",
    ),
    "weights elsewhere": ({"model": {"weights": ADDRESS}}, "model.weights"),
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Any connection, and any question for a name, fails the test."""
    asked, connect = [], socket.socket.connect

    def refuse(*args, **_):
        asked.append(args)
        raise OSError("the network was asked")

    def local_alone(self, address):  # processes of one machine speak by sockets, too
        return connect(self, address) if self.family == socket.AF_UNIX else refuse(address)

    monkeypatch.setattr(socket.socket, "connect", local_alone)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert not asked


def refused(capsys, *words) -> str:
    """Runs a command that must fail with one line, and returns that."""
    assert main([str(word) for word in words]) in (1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("spanets: ")
    assert err.count("\n") == 1
    return err


def files_below(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def write_recipe(path, values):
    small = {"model": {"name": "test_resnet"}, "data": {"image_size": 32}}
    merged = {**small, **values}
    path.write_text(yaml.safe_dump(merged))
    return path


@pytest.mark.parametrize("name", [*FETCHING, *WRITING])
def test_a_recipe_decides_no_place_elsewhere(name, tmp_path, monkeypatch, capsys):
    values, key = {**FETCHING, **WRITING}[name]
    monkeypatch.chdir(tmp_path)
    recipe = write_recipe(tmp_path / "theirs.yaml", values)
    before = files_below(tmp_path)
    told = refused(capsys, "train", recipe)
    assert key in told
    assert "--trust-recipe" in told
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("name", [*FETCHING, *WRITING])
def test_what_the_command_line_says_is_done(name, tmp_path):
    """The same key and value on the command line are the user's own decision."""
    values, key = {**FETCHING, **WRITING}[name]
    section, _, inner = key.partition(".")
    rest = {inner_key: v for inner_key, v in values[section].items() if inner_key != inner}
    path = write_recipe(tmp_path / "mine.yaml", {**values, section: rest})
    value = yaml.safe_dump(values[section][inner], default_flow_style=True).removesuffix("...\n")
    recipe = load_recipe(str(path), [f"--{key}", value.strip()])
    assert key in places_outside(recipe)


def test_a_trusted_recipe_is_read(tmp_path):
    recipe = write_recipe(tmp_path / "mine.yaml", FETCHING["a shard elsewhere"][0])
    assert load_recipe(str(recipe), trusted=True).data.root == ADDRESS
    with pytest.raises(UserError, match=r"data\.root is an address"):
        load_recipe(str(recipe))
    # What the command line overrides, the file does not decide.
    assert load_recipe(str(recipe), ["--data.root", "shards"]).data.root == "shards"


def test_the_recipes_of_the_package_name_no_place():
    for name in list_recipes():
        assert places_outside(load_recipe(name)) == {}


@pytest.mark.parametrize("name", ["photos", "/data/photos", "../photos", "C:\\photos", "a:b"])
def test_folders_are_no_addresses(name):
    assert not is_address(name)


@pytest.fixture
def theirs(small_run, tmp_path):
    """Makes a stranger's checkpoint: alone in a folder, its recipe changed."""

    def make(changes, folder="inbox"):
        content = torch.load(small_run / "last.ckpt", weights_only=True)
        for section, values in changes.items():
            content["spanets"]["recipe"][section].update(values)
        path = tmp_path / folder / "theirs.ckpt"
        path.parent.mkdir(exist_ok=True)
        torch.save(content, path)
        return path

    return make


CARDS = {name: case for name, case in FETCHING.items() if "task" not in case[0]}


@pytest.mark.parametrize("name", CARDS)
@pytest.mark.parametrize("in_a_run_folder", [False, True])
def test_a_checkpoint_decides_no_place_elsewhere(
    name, in_a_run_folder, theirs, tmp_path, monkeypatch, capsys
):
    changes, _ = CARDS[name]
    target = tmp_path / "site-packages"
    changes = {"data": {**changes["data"], "cache": str(target)}}
    monkeypatch.chdir(tmp_path)
    path = theirs(changes)
    if in_a_run_folder:  # as a stranger may send one whole
        content = torch.load(path, weights_only=True)["spanets"]["recipe"]
        (path.parent / "recipe.yaml").write_text(yaml.safe_dump(content))
        (path.parent / "environment.json").write_text('{"starts": []}')
    before = files_below(tmp_path)
    told = refused(capsys, "eval", path)
    assert "--data" in told
    assert "--trust-recipe" in told
    assert files_below(tmp_path) == before
    assert not target.exists()


def test_a_checkpoint_elsewhere_decides_no_folder(small_run, tmp_path, capsys):
    moved = shutil.copy(small_run / "last.ckpt", tmp_path)
    assert "not in its run folder" in refused(capsys, "eval", moved)


def test_a_checkpoint_beside_another_runs_recipe(theirs, small_run, capsys):
    path = theirs({"model": {"name": "test_resnet", "args": {"act_layer": "silu"}}})
    shutil.copy(small_run / "recipe.yaml", path.parent)
    assert "not in its run folder" in refused(capsys, "eval", path)


def test_ones_own_run_is_measured(small_run, capsys):
    assert main(["eval", str(small_run / "best.ckpt"), "--json"]) == 0


def test_a_folder_from_the_command_line(small_run, tmp_path, capsys):
    moved = shutil.copy(small_run / "last.ckpt", tmp_path)
    photos = make_photos(tmp_path / "photos", cat=2, dog=2)
    assert main(["eval", str(moved), "--data", str(photos), "--workers", "0"]) == 0


class _Answers(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer(b"")

    def do_GET(self):
        self.answer(b"content")

    def answer(self, content):
        self.server.asked.append(self.path)
        status = int(self.path.split("/")[1])
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", self.path)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.undo()  # this machine may be asked
    monkeypatch.setattr(remote, "_PAUSES", (0.0, 0.0))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    server.asked = []
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "path", ["200/evil.pth", "200/a/b/../evil.py", "200/%2e%2e%2fevil.so", "200/x.pth?a=/../b.py"]
)
def test_a_copys_name_has_nothing_of_its_address(path, server, tmp_path):
    cache = tmp_path / "cache"
    found = remote.fetch(f"http://127.0.0.1:{server.server_port}/{path}", cache)
    assert found.read_bytes() == b"content"
    assert found.parent == cache
    assert found.suffix == ""
    assert set(found.name) <= set("0123456789abcdef")
    assert all(path.parent == cache for path in tmp_path.rglob("*") if path.is_file())


def test_an_older_copy_is_taken_over(tmp_path):
    url = "http://127.0.0.1:9/a/train-0000.tar"
    path = remote.cached_path(url, tmp_path)
    older = tmp_path / f"{path.name[:16]}-train-0000.tar"
    older.write_bytes(b"whole")
    assert remote.fetch(url, tmp_path, 5) == path
    assert not older.exists()


@pytest.mark.parametrize(
    ("path", "told", "tries"),
    [
        ("404/x", "no such file", 1),
        ("403/x", "the server refuses it (HTTP 403)", 1),
        ("400/x", "HTTP 400", 1),
        ("500/x", "HTTP 500", 3),
        ("503/x", "HTTP 503", 3),
        ("429/x", "HTTP 429", 3),
        ("302/x", "redirects without end", 1),
    ],
)
def test_what_a_server_answers_is_said(path, told, tries, server, tmp_path):
    url = f"http://127.0.0.1:{server.server_port}/{path}"
    with pytest.raises(UserError) as caught:
        remote.fetch(url, tmp_path / "cache")
    assert told in str(caught.value)
    once = len(server.asked)
    assert once % tries == 0
    assert (once > 2) == (tries > 1 or path.startswith("302"))


def test_a_refused_port_is_said(server, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match="cannot be fetched") as caught:
        remote.fetch(f"http://127.0.0.1:{port}/x.tar", tmp_path)
    assert "no such file" not in str(caught.value)
    with pytest.raises(UserError, match="cannot be fetched"):
        remote.read_small(f"http://127.0.0.1:{port}/x.tar")


@pytest.mark.parametrize(
    "files", [ADDRESS, "hf://datasets/x/y.parquet", "../secret.parquet", "/etc/secret.parquet"]
)
@pytest.mark.parametrize("info", ["README.md", ".huggingface.yaml"])
def test_the_card_of_a_data_set_names_no_place(files, info, tmp_path):
    pytest.importorskip("datasets")
    from spanets.data.sources.hub import hub_parts

    values = yaml.safe_dump({"configs": [{"config_name": "x", "data_files": [{"path": files}]}]})
    (tmp_path / info).write_text(f"---\n{values}---\n" if info.endswith(".md") else values)
    with pytest.raises(UserError, match="lies outside of the data set; only its own files"):
        hub_parts(str(tmp_path))
