"""Shards hold what the folder held, wherever they are; what is none of that is refused."""

import io
import json
import os
import pickle
import tarfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import make_photos

from spanets.classification.recipe import ClassificationData
from spanets.data.image_level.splits import read_splits
from spanets.data.packed import PackedTexts
from spanets.data.run_data import RunData
from spanets.data.sources import remote, shard_names
from spanets.data.sources.folder import folder_parts
from spanets.data.sources.shard_index import SUFFIX, parse_index
from spanets.data.sources.shard_writer import write_shards
from spanets.data.sources.shards import read_shards
from spanets.data.sources.tar_listing import list_tar
from spanets.data.split_list import read_split, write_split
from spanets.data.splits import list_split
from spanets_runtime.errors import UserError
from spanets_runtime.images import ImageError, load_image

SIZE = 30_000  # some four photos


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    make_photos(root / "train", cat=6, dog=9)
    make_photos(root / "val", cat=2, dog=3)
    return root


@pytest.fixture(scope="module")
def written(folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("written") / "shards"
    write_shards(folder, out, SIZE)
    return out


@pytest.fixture
def shards(written, tmp_path) -> Path:
    """A copy, to be changed."""
    out = tmp_path / "shards"
    out.mkdir()
    for path in written.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    return out


def failure(function, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def bytes_of(samples) -> list[bytes]:
    return [i.read_bytes() if isinstance(i, Path) else i.read() for i in samples.images]


# ---- what is in them


def test_samples_are_those_of_the_folder_in_its_order(folder, written):
    parts, before = read_shards(str(written)), folder_parts(folder)
    assert list(parts) == list(before) == ["train", "val"]
    for name, samples in parts.items():
        assert samples.classes == before[name].classes
        assert samples.labels == before[name].labels
        assert bytes_of(samples) == bytes_of(before[name])
        assert len(set(samples.shards)) > 1
    image, path = parts["train"].images[7], before["train"].images[7]
    assert str(image).endswith(f".tar: {path.relative_to(folder)}")
    assert np.array_equal(load_image(image), load_image(path))


def test_classes_are_mixed_over_the_shards(written):
    samples = read_shards(str(written))["train"]
    held = dict(zip(samples.shards, samples.labels, strict=True)).keys()
    pairs = set(zip(samples.shards, samples.labels, strict=True))
    assert len(pairs) > len(held) + 1


def test_webdataset_reads_them(written):
    webdataset = pytest.importorskip("webdataset")
    samples = read_shards(str(written))["val"]
    urls = sorted(map(str, written.glob("val-*.tar")))
    stored = webdataset.WebDataset(urls, shardshuffle=False)
    found = [(sample["png"], int(sample["cls"])) for sample in stored]
    assert sorted(found) == sorted(zip(bytes_of(samples), samples.labels, strict=True))


def test_what_webdataset_writes_is_read(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        for number, label in enumerate([2, 0, 2]):
            writer.write({"__key__": f"x/{number}", "png": png(number), "cls": label})
    samples = read_shards(str(tmp_path / "*.tar"))["train"]
    assert samples.labels == [2, 0, 2]
    assert samples.classes == ["0", "1", "2"]
    assert bytes_of(samples) == [png(number) for number in range(3)]


def png(value: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def make_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("ending", "content", "classes"),
    [
        ("cls", b"1\n", ["0", "1"]),
        ("cls", b"cat", ["cat"]),
        ("txt", "größte Katze".encode(), ["größte Katze"]),
        ("json", b'{"label": 1, "caption": "a"}', ["0", "1"]),
        ("json", b'{"class_name": "cat"}', ["cat"]),
    ],
)
def test_labels(ending, content, classes, tmp_path):
    make_tar(tmp_path / "a.tar", {"1.png": png(), f"1.{ending}": content})
    samples = read_shards(str(tmp_path / "a.tar"))["train"]
    assert samples.classes == classes
    assert samples.labels == [len(classes) - 1]


def test_the_key_of_the_label_can_be_named(tmp_path):
    told = b'{"label": 0, "coarse": 3}'
    make_tar(tmp_path / "a.tar", {"1.PNG": png(), "1.json": told, "1.cls": b"7"})
    assert read_shards(str(tmp_path))["train"].classes == ["7"]
    assert read_shards(str(tmp_path), "coarse")["train"].labels == [3]  # and not the old index
    assert read_shards(str(tmp_path), "label")["train"].labels == [0]


def test_parts_are_told_from_names(tmp_path):
    pair = {"1.png": png(), "1.cls": b"cat"}
    for name in ("train-0.tar", "train-1.tar", "photos_val_0.tar", "test/0.tar"):
        make_tar(tmp_path / name, pair)
    make_tar(tmp_path / "other/trainer-0.tar", pair)
    parts = read_shards(f"{tmp_path}/{{train-{{0..1}},photos_val_0,test/0}}.tar")
    assert {name: len(samples) for name, samples in parts.items()} == {
        "train": 2,
        "val": 1,
        "test": 1,
    }
    line = failure(read_shards, str(tmp_path))
    assert (
        line == f"{tmp_path}/other/trainer-0.tar: its name has no part, train or val, but others do"
    )
    line = failure(read_shards, f"{tmp_path}/photos_val_*.tar")
    assert line.endswith("shards of val, none to train on")


# ---- what is refused


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"1.png": b"", "1.pyd": pickle.dumps(1)}, "holds '1.pyd', a pickle, which may run code"),
        ({"1.png": b"", "1.x.pickle": b""}, "holds '1.x.pickle', a pickle"),
        ({"1.cls": b"1"}, "sample '1' has 0 images, must be one"),
        ({"1.png": b"", "1.jpg": b"", "1.cls": b"1"}, "sample '1' has 2 images"),
        ({"1.png": b"", "2.cls": b"1"}, "sample '1' has no label, which is a .cls, .txt or .json"),
        ({"1.png": b"", "1.cls": b" "}, "sample '1' has the label '', must be a number or"),
        ({"1.png": b"", "1.txt": b"long " * 99}, "sample '1' has the label 'long long"),
        ({"1.png": b"", "1.json": b"{"}, "the .json of sample '1' cannot be read (Expecting"),
        ({"1.png": b"", "1.json": b"[" * 10**5}, "the .json of sample '1' cannot be read ("),
        (
            {"1.png": b"", "1.json": b'{"x": 1}'},
            "the .json of sample '1' holds 'x'; name",
        ),
        ({"1.png": b"", "1.json": b'{"label": true}'}, "sample '1' has the label True"),
        ({"1.png": b"", "1.json": b'{"label": -1}'}, "sample '1' has the label -1"),
        ({"1.png": b"", "1.json": b'{"label": %d}' % 10**30}, "sample '1' has the label 1000000"),
        ({"1.png": b"", "1.json": b'{"label": ' + b"9" * 5000 + b"}"}, "the .json of sample '1' "),
        ({"1.png": b"", "1.cls": b"9" * 5000}, "sample '1' has the label '99999"),
        ({"1.png": b"", "1.cls": b"1", "1.CLS": b"2"}, "holds '1.CLS' twice"),
        ({"1.png": b"", "1.Png": b"2"}, "holds '1.Png' twice"),
        ({"1.png": b"", "1.cls": b" " * 2**21}, "'1.cls' has 2097152 bytes: no label"),
    ],
)
def test_members_that_are_refused(members, said, tmp_path):
    path = make_tar(tmp_path / "a.tar", members)
    line = failure(read_shards, str(path))
    assert line.removeprefix(f"{path}: ").startswith(said), line


def test_links_devices_and_hidden_members_are_passed_over(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for kind, name in ((tarfile.SYMTYPE, "0.png"), (tarfile.CHRTYPE, "0.cls")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
    content = make_tar(tmp_path / "b.tar", {"1.png": png(), "._1.png": b"", "1.cls": b"0"})
    path.write_bytes(path.read_bytes()[:1024] + content.read_bytes())
    assert list_tar(path).names == ["1.png"]


@pytest.mark.parametrize("content", [b"", b"no tar file" * 99, b"\0" * 99])
def test_files_that_are_no_tar(content, tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    line = failure(read_shards, str(path))
    assert line.startswith(f"{path}: damaged, or no uncompressed tar file (")


def test_a_compressed_tar_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w:gz"):
        pass
    assert "a.tar: is compressed and " in failure(read_shards, str(tmp_path / "a.tar"))


def test_a_tar_that_ends_early(tmp_path):
    path = make_tar(tmp_path / "a.tar", {"1.png": png(), "1.cls": b"1", "2.png": png()})
    path.write_bytes(path.read_bytes()[:2560])
    assert f"{path}: damaged" in failure(read_shards, str(path))


@pytest.mark.parametrize(
    ("root", "said"),
    [
        (".", ".: no such shards; name a folder or a pattern"),
        ("missing-*.tar", "missing-*.tar: no such shards; name a folder or a pattern"),
        ("missing", "missing: cannot be read (No such file or directory)"),
        ("missing-{0..3}.tar", "missing-0.tar: cannot be read (No such file or directory)"),
        ("missing-{0..3.tar", "missing-{0..3.tar: "),
        ("pipe:cat x.tar", "pipe:cat x.tar: must be a path, or begin with http://, https://"),
        ("file://x.tar", "file://x.tar: must be a path, or begin with http://"),
        ("http://localhost:1/x.tar", "http://localhost:1/x.tar"),
    ],
)
def test_shards_that_are_not_there(root, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(remote, "_PAUSES", ())
    assert said in failure(read_shards, root, cache=str(tmp_path / "cache"))


# ---- indices


def test_an_index_is_made_once_and_used(tmp_path, monkeypatch):
    path = make_tar(tmp_path / "a.tar", {"1.png": png(), "1.cls": b"cat"})
    time.sleep(0.02)  # of files of the same moment nobody knows which is the newer
    first = read_shards(str(path))["train"]
    beside = tmp_path / f"a.tar{SUFFIX}"
    assert parse_index(beside.read_bytes(), "").names == ["1.png"]
    monkeypatch.setattr("spanets.data.sources.shards.list_tar", pytest.fail)
    second = read_shards(str(path))["train"]
    assert bytes_of(first) == bytes_of(second)


def test_an_index_of_another_file_is_made_again(tmp_path):
    path = make_tar(tmp_path / "a.tar", {"1.png": png(), "1.cls": b"cat"})
    read_shards(str(path))
    make_tar(path, {f"{n}.{end}": b"dog" for n in range(20) for end in ("png", "cls")})
    assert len(read_shards(str(path))["train"]) == 20


def test_a_shard_that_was_not_copied_whole(shards):
    path = shards / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:-5000])
    line = failure(read_shards, str(shards))
    assert line.startswith(f"{path}: has ")
    assert line.endswith("; copy it again")


def test_a_flipped_bit_is_found(shards):
    image = read_shards(str(shards))["train"].images[0]
    path = Path(image.shard.location)
    content = bytearray(path.read_bytes())
    content[image.offset + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ImageError, match="its bytes are not those that the shard was written wit"):
        load_image(image)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.update(format=3),
        lambda values: values.pop("names"),
        lambda values: values.update(extra=1),
        lambda values: values["offsets"].pop(),
        lambda values: values["offsets"].__setitem__(0, -1),
        lambda values: values["sizes"].__setitem__(0, 10**6),
        lambda values: values["sizes"].__setitem__(0, "1"),
        lambda values: values["labels"].__setitem__(0, [1]),
        lambda values: values.update(checksums=[]),
    ],
)
def test_damaged_indices(change, shards):
    path = shards / f"train-000000.tar{SUFFIX}"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    line = failure(read_shards, str(shards))
    assert line.startswith(f"{path}: is not a shard index (")
    path.write_text("[" * 10**5)
    assert failure(read_shards, str(shards)).startswith(f"{path}: is not a shard index (")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1, "classes": [], "parts": {}}'])
def test_damaged_descriptions(content, shards):
    (shards / "dataset.json").write_text(content)
    assert "/dataset.json: damaged (" in failure(read_shards, str(shards))


def test_a_description_cannot_point_elsewhere(shards, tmp_path):
    told = json.loads((shards / "dataset.json").read_text())
    told["parts"]["train"]["shards"] = [{"name": "../../etc/secret.tar"}]
    (shards / "dataset.json").write_text(json.dumps(told))
    assert failure(read_shards, str(shards)).startswith(f"{shards}/secret.tar: cannot be read")


# ---- over HTTP


class Quiet(SimpleHTTPRequestHandler):
    """Serves without ranges, and notes what is asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def serve(monkeypatch):
    """Serves a folder; returns its URL and the list of what was asked for."""
    monkeypatch.setattr(remote, "_PAUSES", ())
    servers = []

    def start(folder: Path) -> tuple[str, list[str]]:
        handler = type("Handler", (Quiet,), {"asked": []})
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", handler.asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_shards_over_http(written, folder, serve, tmp_path):
    url, asked = serve(written)
    cache = str(tmp_path / "cache")
    parts = read_shards(url, cache=cache)
    assert not [path for path in asked if path.endswith(".tar")]  # they come when they are needed
    assert bytes_of(parts["train"]) == bytes_of(folder_parts(folder)["train"])
    fetched = [path for path in asked if path.endswith(".tar")]
    assert sorted(fetched) == sorted(f"/{path.name}" for path in written.glob("train-*.tar"))
    assert bytes_of(read_shards(url, cache=cache)["train"]) == bytes_of(parts["train"])
    assert [path for path in asked if path.endswith(".tar")] == fetched  # once


def test_shards_over_http_without_indices(written, folder, serve, tmp_path):
    for path in written.glob("*.tar"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    url, _ = serve(tmp_path)
    count = len(list(written.glob("train-*.tar")))
    pattern = f"{url}/train-{{000000..{count - 1:06}}}.tar"
    samples = read_shards(pattern, cache=str(tmp_path / "cache"))["train"]
    assert sorted(bytes_of(samples)) == sorted(bytes_of(folder_parts(folder)["train"]))


def test_a_shard_that_is_missing_over_http(shards, serve, tmp_path):
    url, _ = serve(shards)
    samples = read_shards(url, cache=str(tmp_path / "cache"))["train"]
    (shards / "train-000000.tar").unlink()
    with pytest.raises(UserError, match=r"train-000000.tar: no such file$") as caught:
        bytes_of(samples)
    assert not isinstance(caught.value, ImageError)  # which may be skipped


def test_a_shard_of_another_size_over_http(shards, serve, tmp_path):
    url, _ = serve(shards)
    samples = read_shards(url, cache=str(tmp_path / "cache"))["val"]
    (shards / "val-000000.tar").write_bytes(b"short")
    assert "has 5 bytes, its index says" in failure(bytes_of, samples)


def test_processes_fetch_a_shard_once(written, serve, tmp_path, process):
    url, asked = serve(written)
    samples = read_shards(url, cache=str(tmp_path / "cache"))["val"]
    running = [process(lambda: len(bytes_of(samples)) - 5) for _ in range(3)]
    assert [status.wait() for status in running] == [(0, "", "")] * 3
    fetched = [path for path in asked if path.endswith(".tar")]
    assert len(fetched) == len(set(fetched)) == len(list(written.glob("val-*.tar")))


def test_shards_in_a_bucket(written, folder, tmp_path, monkeypatch):
    """By fsspec's stand-in for buckets: patterns are listed there."""
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setattr(remote, "SCHEMES", ("memory",))
    bucket = fsspec.filesystem("memory")
    for path in written.iterdir():
        bucket.pipe(f"/bucket/{path.name}", path.read_bytes())
    for root in ("memory://bucket", "memory://bucket/{train,val}-*.tar"):
        parts = read_shards(root, cache=str(tmp_path / "cache"))
        assert list(parts) == ["train", "val"]
        assert bytes_of(parts["val"]) == bytes_of(folder_parts(folder)["val"])
    said = failure(read_shards, "memory://bucket/none-*.tar", cache=str(tmp_path))
    assert said.startswith("memory://bucket/none-*.tar: no such shards")


def test_the_index_of_a_signed_url():
    signed = "https://host/a.tar?key=1#x"
    assert remote.beside(signed, SUFFIX) == "https://host/a.tar.index.json?key=1#x"


# ---- many names


def test_packed_texts():
    texts = ["", "a", "größte", "b\udcff", "x" * 300]
    packed = PackedTexts(texts)
    assert list(packed) == texts
    assert packed[1:3] == texts[1:3]
    assert packed[-1] == texts[-1]
    assert list(PackedTexts([])) == []
    with pytest.raises(IndexError):
        packed[5]


# ---- labels


def labelled(path: Path, *labels: bytes, ending: str = "cls") -> Path:
    members = {}
    for number, label in enumerate(labels):
        members |= {f"{number}.png": png(number), f"{number}.{ending}": label}
    return make_tar(path, members)


@pytest.mark.parametrize(
    ("ending", "labels", "classes", "notes"),
    [
        ("cls", [b"0", b"2", b"0"], ["0", "1", "2"], 1),  # numbers, as WebDataset has them
        ("cls", [b"2019", b"2020"], ["2019", "2020"], 1),  # years
        ("cls", [b"007", b"010"], ["007", "010"], 0),
        ("cls", [b"0", b"1", b"01"], ["0", "01", "1"], 0),
        ("cls", [b"7", b"A", b"B"], ["7", "A", "B"], 0),
        ("cls", ["٣".encode(), b"1"], ["1", "٣"], 0),
        ("txt", [b"0", b"1"], ["0", "1"], 0),
        ("txt", [b"2019", b"2020"], ["2019", "2020"], 0),
        ("json", [b'{"label": 2}', b'{"label": 0}'], ["0", "1", "2"], 1),
        ("json", [b'{"label": "7"}', b'{"label": "10"}'], ["10", "7"], 0),
        ("txt", ["café".encode(), b"Dog", b"dog"], ["Dog", "café", "dog"], 1),
    ],
)
def test_labels_that_are_words_stay_words(ending, labels, classes, notes, tmp_path):
    path = labelled(tmp_path / "a.tar", *labels, ending=ending)
    for _ in range(2):  # listed, and from the index
        samples = read_shards(str(path))["train"]
        assert samples.classes == classes
        assert len(samples.notes) == notes
    texts = [json.loads(x)["label"] if ending == "json" else x.decode() for x in labels]
    assert [classes[label] for label in samples.labels] == [str(text) for text in texts]


def test_classes_of_folders_called_like_numbers(tmp_path):
    make_photos(tmp_path / "photos", **{"2019": 2, "2020": 3, "007": 2})
    write_shards(tmp_path / "photos", tmp_path / "shards", SIZE)
    expected = folder_parts(tmp_path / "photos")["train"]
    for root in ("shards", "shards/*.tar", "shards/train-{000000..000001}.tar"):
        samples = read_shards(str(tmp_path / root))["train"]
        assert samples.classes == ["007", "2019", "2020"]
    assert samples.labels == expected.labels
    # A checkpoint of an earlier version knows numbers where the shards were named by a pattern.
    old = read_shards(str(tmp_path / "shards/*.tar"), known=["0", "1", "2"])["train"]
    assert old.classes == ["0", "1", "2"]
    assert old.notes == ()
    (tmp_path / "shards/dataset.json").unlink()
    unnamed = read_shards(str(tmp_path / "shards/*.tar"))["train"]
    assert unnamed.classes == ["0", "1", "2"]
    assert unnamed.notes[0].endswith(
        "classes are named by their numbers, because there is no dataset.json beside"
    )


def test_numbers_of_an_earlier_version_stay_numbers(tmp_path):
    path = labelled(tmp_path / "a.tar", b"3", b"9")
    assert read_shards(str(path))["train"].classes == ["3", "9"]
    known = [str(number) for number in range(10)]
    assert read_shards(str(path), known=known)["train"].classes == known


# ---- an index is that of its shard


def test_a_shard_rewritten_at_the_same_size(tmp_path):
    path = labelled(tmp_path / "a.tar", b"cat", b"dog", ending="txt")
    assert read_shards(str(path))["train"].classes == ["cat", "dog"]
    size, times = path.stat().st_size, path.stat()
    labelled(path, b"dog", b"cow", ending="txt")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as careful tools leave it
    assert path.stat().st_size == size
    for _ in range(2):
        samples = read_shards(str(path))["train"]
        assert samples.classes == ["cow", "dog"]
        assert samples.labels == [1, 0]


def test_an_index_of_an_earlier_version_is_made_again(tmp_path):
    path = labelled(tmp_path / "a.tar", b"007", b"010")
    read_shards(str(path))
    beside = tmp_path / f"a.tar{SUFFIX}"
    values = json.loads(beside.read_text())
    del values["from_cls"], values["links"]
    beside.write_text(json.dumps({**values, "format": 1, "labels": [7, 10]}))
    assert read_shards(str(path))["train"].classes == ["007", "010"]
    assert json.loads(beside.read_text())["format"] == 2


def test_a_copy_is_compared_once(shards, monkeypatch):
    listed = []

    def list_and_note(path, key):
        listed.append(path.name)
        return list_tar(path, key)

    monkeypatch.setattr("spanets.data.sources.shards.list_tar", list_and_note)
    for path in shards.glob("*.json"):
        os.utime(path, (1, 1))
    first = read_shards(str(shards))
    assert len(listed) == len(list(shards.glob("*.tar")))
    time.sleep(0.02)
    for path in shards.glob("*.json"):
        os.utime(path)
    listed.clear()
    assert read_shards(str(shards))["train"].labels == first["train"].labels
    assert listed == []


def test_labels_of_written_shards_that_changed(shards):
    path = shards / "train-000000.tar"
    content = path.read_bytes()
    place = content.index(b".cls") // 512 * 512 + 512
    label = b"1" if content[place : place + 1] == b"0" else b"0"
    path.write_bytes(content[:place] + label + content[place + 1 :])
    line = failure(read_shards, str(shards))
    assert line.startswith(
        f"{path}: its images or labels are not those that train-000000.tar.index"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"length": 10**30},
        {"length": -1},
        {"length": 5.0},
        {"sizes": 10**30},
        {"offsets": 10**30},
        {"labels": -1},
        {"labels": 10**30},
        {"labels": True},
        {"labels": ""},
        {"checksums": -1},
        {"checksums": 2**40},
        {"positions": -5},
        {"names": 5},
        {"label_key": 5},
        {"from_cls": 1},
        {"links": -1},
    ],
    ids=str,
)
def test_numbers_out_of_range(change, shards):
    path = shards / f"train-000000.tar{SUFFIX}"
    values = json.loads(path.read_text())
    for key, value in change.items():
        if isinstance(values.get(key), list):
            values[key][0] = value
        else:
            values[key] = value
    path.write_text(json.dumps(values))
    assert failure(read_shards, str(shards)).startswith(f"{path}: is not a shard index (")


def test_an_index_of_5000_digits(shards):
    path = shards / f"train-000000.tar{SUFFIX}"
    path.write_text(path.read_text().replace('"length":', '"length":' + "9" * 5000))
    assert failure(read_shards, str(shards)).startswith(f"{path}: is not a shard index (")


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told["parts"]["train"].update(shards=[]),
        lambda told: told["parts"]["val"].update(shards=[]),
        lambda told: told["parts"]["train"].update(shards=[{"name": ""}]),
        lambda told: told["parts"]["train"].update(shards=[{"name": 5}]),
        lambda told: told.update(classes="ab"),
        lambda told: told.update(classes=["a", "a"]),
        lambda told: told.update(classes=[1, 2]),
        lambda told: told.update(classes=[]),
    ],
)
def test_descriptions_that_make_no_sense(change, shards):
    told = json.loads((shards / "dataset.json").read_text())
    change(told)
    (shards / "dataset.json").write_text(json.dumps(told))
    assert "/dataset.json: damaged (" in failure(read_shards, str(shards))


def test_fewer_classes_than_labels(shards):
    told = json.loads((shards / "dataset.json").read_text())
    told["classes"] = ["cat"]
    (shards / "dataset.json").write_text(json.dumps(told))
    assert failure(read_shards, str(shards)).endswith("label 1 is none of the 1 classes")


@pytest.mark.parametrize(
    "pattern",
    [
        "a{1..9999999}.tar",
        "a{0..1000000000000}.tar",
        "a{1.." + "9" * 5000 + "}.tar",
        "a{1..1000}{1..1000}.tar",
        "a" + "{1..10}" * 20 + ".tar",
        "a" + "{x,y}" * 60 + ".tar",
    ],
)
def test_patterns_without_end(pattern, monkeypatch):
    monkeypatch.setattr(shard_names, "MAX_SHARDS", 1000)
    start = time.process_time()
    assert "stands for more than 1000 shards; correct the numbers" in failure(read_shards, pattern)
    assert time.process_time() - start < 5


def test_shards_in_folders_and_behind_links(tmp_path):
    labelled(tmp_path / "far/train/0.tar", b"0", b"1")
    labelled(tmp_path / "set/Validation/0.tar", b"0")
    labelled(tmp_path / "set/@eaDir/x.tar", b"0")
    (tmp_path / "set/train").symlink_to(tmp_path / "far/train")
    (tmp_path / "set/train/loop").symlink_to(tmp_path / "set")
    parts = read_shards(str(tmp_path / "set"))
    assert {name: len(part) for name, part in parts.items()} == {"train": 2, "val": 1}
    (tmp_path / "set/train/1.tar.gz").touch()
    line = failure(read_shards, str(tmp_path / "set"))
    assert "/set/train/1.tar.gz: a compressed shard, one of 1; uncompress them" in line


def test_what_is_passed_over_is_told(tmp_path):
    path = labelled(tmp_path / "a.tar", b"0", b"1")
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("2.png")
        link.type, link.linkname = tarfile.LNKTYPE, "0.png"
        tar.addfile(link)
        for name, content in (("0.png", png()), ("0.cls", b"1")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    samples = read_shards(str(path))["train"]
    assert samples.labels == [0, 1, 1]
    first, second = samples.notes
    assert first == f"{path}: 1 links or devices in its shards left out"
    assert second.startswith(f"{path}: 1 names come more than once in a shard, as by tar --append")


# ---- splits


def test_a_split_of_shards_is_kept(tmp_path):
    """By the images' names, in whatever shard and wherever the set lies."""
    photos = make_photos(tmp_path / "photos", cat=9, dog=7)
    write_shards(photos, tmp_path / "shards", SIZE)
    data = ClassificationData(source="webdataset", root=str(tmp_path / "shards"))
    parts = read_splits(data, RunData(tmp_path, is_new=True))
    write_split(tmp_path, list_split(parts))
    evaluated = set(parts["val"].names)
    assert evaluated == set(read_splits(ClassificationData(root=str(photos)))["val"].names)
    (photos / "cat/0.png").unlink()
    (photos / "dog/new.png").write_bytes((photos / "dog/0.png").read_bytes())
    write_shards(photos, tmp_path / "again", 2 * SIZE)
    moved = ClassificationData(source="webdataset", root=str(tmp_path / "again"))
    now = read_splits(moved, RunData(tmp_path, split=read_split(tmp_path)))
    assert set(now["val"].names) == evaluated - {"cat/0.png"}
    assert "dog/new.png" not in [*now["val"].names, *now["train"].names]
    assert [i.key for i in now["val"].images] == list(now["val"].names)


def test_a_split_of_other_peoples_shards_is_kept(tmp_path):
    for name in ("a/0", "a/1", "b/0"):
        labelled(tmp_path / f"set/{name}.tar", b"0", b"1", b"1", b"0")
    root = tmp_path / "set/{a,b}/*.tar"
    data = ClassificationData(source="webdataset", root=str(root))
    parts = read_splits(data, RunData(tmp_path, is_new=True))
    write_split(tmp_path, list_split(parts))
    (tmp_path / "set/a/0.tar").unlink()
    labelled(tmp_path / "set/a/2.tar", b"0", b"1")
    moved = (tmp_path / "set").rename(tmp_path / "moved")
    moved_data = ClassificationData(source="webdataset", root=str(moved))
    now = read_splits(moved_data, RunData(tmp_path, split=read_split(tmp_path)))
    for part in ("train", "val"):
        expected = [name for name in parts[part].names if not name.startswith("a/0.tar")]
        assert sorted(now[part].names) == sorted(expected)
