"""`spanets shard` writes whole shards or none, the same ones every time, and overwrites nothing."""

import json
import os
import shutil
import sys
import tarfile
from pathlib import Path

import pytest
from small_runs import call, make_photos

from spanets.data.sources.shard_writer import write_shards
from spanets.data.sources.shards import read_shards
from spanets_runtime.errors import UsageError, UserError

SIZE = 20_000


@pytest.fixture
def photos(tmp_path) -> Path:
    return make_photos(tmp_path / "photos", cat=5, dog=4)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_parts_classes_and_counts(tmp_path):
    make_photos(tmp_path / "p/train", cat=3, dog=2)
    make_photos(tmp_path / "p/validation", dog=1)
    make_photos(tmp_path / "p/test", cat=1)
    told = write_shards(tmp_path / "p", tmp_path / "out", SIZE)
    assert told.pop("notes") == []
    assert told == json.loads((tmp_path / "out/dataset.json").read_text())
    assert told["classes"] == ["cat", "dog"]
    assert {name: part["counts"] for name, part in told["parts"].items()} == {
        "train": {"cat": 3, "dog": 2},
        "val": {"cat": 0, "dog": 1},
        "test": {"cat": 1, "dog": 0},
    }
    for part in told["parts"].values():
        assert part["images"] == sum(row["images"] for row in part["shards"])
        for row in part["shards"]:
            assert row["bytes"] == (tmp_path / "out" / row["name"]).stat().st_size


def test_what_is_left_out_is_told(photos, tmp_path, capsys):
    (photos / "cat/a.psd").touch()
    (photos / "@eaDir").mkdir()
    status, printed, said = call(capsys, "shard", photos, "--out", tmp_path / "out", "--json")
    assert status == 0
    line = f"{photos}: 1 file left out, not known as images (1 .psd)"
    assert said.splitlines() == [line]
    assert json.loads(printed)["notes"] == [line]
    assert "notes" not in json.loads((tmp_path / "out/dataset.json").read_text())


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes there alone")
def test_a_class_whose_name_is_no_text(tmp_path):
    photos = make_photos(tmp_path / "photos", cat=2, dog=2)
    (photos / "cat").rename(photos / os.fsdecode(b"caf\xe9"))
    write_shards(photos, tmp_path / "out", SIZE)
    classes = json.loads((tmp_path / "out/dataset.json").read_text())["classes"]
    assert classes == sorted([os.fsdecode(b"caf\xe9"), "dog"])
    assert read_shards(str(tmp_path / "out"))["train"].classes == classes


def test_shards_are_of_the_size_that_is_asked_for(photos, tmp_path):
    for size, count in ((1, 9), (10**9, 1)):
        told = write_shards(photos, tmp_path / str(size), size)
        assert len(told["parts"]["train"]["shards"]) == count
    rows = write_shards(photos, tmp_path / "out", 40_000)["parts"]["train"]["shards"]
    # tarfile fills up to the next 10 kB.
    assert all(row["bytes"] <= 40_000 + tarfile.RECORDSIZE for row in rows)
    assert 1 < len(rows) < 9


def test_written_again_they_are_the_same(photos, tmp_path):
    write_shards(photos, tmp_path / "a", SIZE)
    moved = photos.rename(tmp_path / "moved")
    for path in moved.rglob("*.png"):
        path.touch()
    write_shards(moved, tmp_path / "b", SIZE)
    write_shards(moved, tmp_path / "c", SIZE, seed=1)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


@pytest.mark.parametrize("stop_at", [1, 2, 5])
def test_it_goes_on_where_it_was_stopped(stop_at, photos, tmp_path, monkeypatch):
    write_shards(photos, tmp_path / "whole", SIZE)
    from spanets.data.sources import shard_writer

    write, calls = shard_writer.write_atomically, []

    def write_or_stop(path, content):
        calls.append(path.name)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(shard_writer, "write_atomically", write_or_stop)
    with pytest.raises(KeyboardInterrupt):
        write_shards(photos, tmp_path / "parts", SIZE)
    assert not (tmp_path / "parts/dataset.json").exists()
    done = len(list((tmp_path / "parts").glob("*.index.json")))
    calls.clear()
    calls += [None] * stop_at  # no further stop
    write_shards(photos, tmp_path / "parts", SIZE)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert len(calls) - stop_at == len(contents(tmp_path / "whole")) - 2 * done


def test_what_changed_since_a_stop_is_written_again(photos, tmp_path):
    write_shards(photos, tmp_path / "out", SIZE)
    (tmp_path / "out/dataset.json").unlink()
    shutil.copy(photos / "dog/0.png", photos / "cat/0.png")
    (tmp_path / "out/train-000000.tar").write_bytes(b"half")
    write_shards(photos, tmp_path / "out", SIZE)
    write_shards(photos, tmp_path / "new", SIZE)
    assert contents(tmp_path / "out") == contents(tmp_path / "new")


def test_what_is_there_is_not_overwritten(photos, tmp_path):
    write_shards(photos, tmp_path / "out", SIZE)
    before = contents(tmp_path / "out")
    with pytest.raises(UsageError, match="out: holds shards already; choose another"):
        write_shards(photos, tmp_path / "out", SIZE)
    assert contents(tmp_path / "out") == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").touch()
    with pytest.raises(UsageError, match=r"other: holds other files, such as thesis\.tex"):
        write_shards(photos, tmp_path / "other", SIZE)
    with pytest.raises(UsageError, match=r"thesis\.tex: is a file; name a folder"):
        write_shards(photos, tmp_path / "other/thesis.tex", SIZE)
    with pytest.raises(UsageError, match="shards: lies in the folder of the images"):
        write_shards(photos, photos / "shards", SIZE)
    with pytest.raises(UserError, match="none: no such folder"):
        write_shards(tmp_path / "none", tmp_path / "new", SIZE)
    assert not (tmp_path / "new").exists()
