"""Tables that ranks write together: the file of one process, whatever happens on the way."""

import csv
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import obey_permissions

from spanets_runtime import shared_table
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.predict import ImagePrediction, Prediction
from spanets_runtime.ranks import Rank, find_rank
from spanets_runtime.shared_table import SharedTable, describe_model
from spanets_runtime.tables import Columns, write_rows

COLUMNS = Columns(2)
FACTS = {"model": "m", "--top": 2}
ALONE = Rank()
RANKED = ["label_1", "probability_1", "label_2", "probability_2"]


@pytest.fixture(autouse=True, scope="module")
def quick_disk():
    """Hundreds of small parts are synced to the disk one by one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spanets_runtime.files.os.fsync", lambda _: None)
        yield


def predict(images):
    """Every seventh image is unreadable."""
    for image in images:
        number = int(Path(image).stem)
        error = f"{image}: damaged" if number % 7 == 6 else None
        yield Prediction(str(image), [("cat", 1 / (number + 1)), ("a,\n", 0.0)], error=error)


def names(count: int) -> list[str]:
    return [f"/photos/{i}.png" for i in range(count)]


def write(path, count=100, rank=ALONE, stop=None, facts=FACTS) -> list[str] | None:
    """Does a rank's work, up to a number of rows; rank 0 joins."""
    with SharedTable(path, names(count), facts, rank) as table:
        for done, _ in enumerate(table.work(COLUMNS, predict), start=1):
            if done == stop:
                return None
        if not rank.is_first:
            return None
        table.wait()
        return table.join(COLUMNS)


def test_rows_in_order(tmp_path):
    errors = write(tmp_path / "a.csv", 20)
    assert errors == ["/photos/6.png: damaged", "/photos/13.png: damaged"]
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == names(20)
    assert list(rows[0]) == ["image", *RANKED, "error"]
    assert [float(row["probability_1"] or "nan") for row in rows[:6]] == [
        1 / (i + 1) for i in range(6)
    ]
    assert rows[0]["label_2"] == "a,\n"
    assert rows[6] == {**dict.fromkeys(rows[6], ""), "image": names(7)[6], "error": "damaged"}
    assert os.listdir(tmp_path) == ["a.csv"]


@settings(deadline=None, max_examples=12)
@given(st.integers(1, 600), st.integers(1, 5), st.integers(1, 70), st.sampled_from([1, 2, 3]))
def test_any_ranks_and_interruptions(tmp_path_factory, count, ranks, stop, again):
    """Ranks that stop, and others in another number that go on, write the file of one process."""
    folder = tmp_path_factory.mktemp("table")
    write(folder / "one.jsonl", count)
    shared = folder / "shared.jsonl"
    for others, limit in ((ranks, stop), (again, None)):
        with SharedTable(shared, names(count), FACTS, Rank(0, 9)):  # rank 0 has begun
            for number in range(1, others):
                write(shared, count, Rank(number, others), limit)
    write(shared, count, Rank(0, again))
    assert shared.read_bytes() == (folder / "one.jsonl").read_bytes()
    assert sorted(os.listdir(folder)) == ["one.jsonl", "shared.jsonl"]


def test_goes_on(tmp_path):
    path = tmp_path / "a.csv"
    write(path, 500, stop=71)  # chunks of two; the last one stays unfinished
    with SharedTable(path, names(500), FACTS, Rank()) as table:
        assert (table.done, table.left) == (70, 430)
    assert not path.exists()
    write(path, 500)
    with path.open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == names(500)


@pytest.mark.parametrize(
    ("facts", "count", "differing"),
    [({**FACTS, "--top": 3}, 100, "--top"), (FACTS, 99, "images, number of images")],
)
def test_another_command_is_refused(tmp_path, facts, count, differing):
    path = tmp_path / "a.csv"
    write(path, 100, stop=10)
    for rank in (Rank(), Rank(1, 2)):
        with pytest.raises(UserError, match=f"another command, which differs in {differing};"):
            write(path, count, rank, facts=facts)
    write(path, 100)


def test_nothing_done_binds_nobody(tmp_path):
    path = tmp_path / "a.csv"
    write(path, 500, stop=1)
    assert os.listdir(tmp_path) == []
    with SharedTable(path, names(500), FACTS, Rank(0, 2)):
        pass
    assert os.listdir(tmp_path) == ["a.csv.parts"]
    write(path, 100, facts={"model": "other"})


def test_what_stands_there_is_not_replaced(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("mine")
    with pytest.raises(UserError, match=r"a.csv: exists; remove it, or name another --table"):
        write(path)
    assert write(path, rank=Rank(1, 2)) is None  # the other ranks may come late
    assert path.read_text() == "mine"
    assert os.listdir(tmp_path) == ["a.csv"]
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(UserError, match="it is a folder"):
        write(tmp_path / "b.csv")


def test_files_of_others_stay(tmp_path):
    path = tmp_path / "a.csv"
    (tmp_path / "a.csv.parts").mkdir()
    (tmp_path / "a.csv.parts/mine.txt").write_text("mine")
    write(path)
    assert os.listdir(tmp_path / "a.csv.parts") == ["mine.txt"]


def test_missing_rank_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_table, "WAIT", 0.3)
    with pytest.raises(UserError, match=r"in 0 s from ranks 1, 2 of 3 \(.* images\); run the"):
        write(tmp_path / "a.csv", rank=Rank(0, 3))
    with pytest.raises(UserError, match="rank 0 has not begun"):
        write(tmp_path / "b.csv", rank=Rank(1, 3))


def test_started_twice(tmp_path):
    with (
        SharedTable(tmp_path / "a.csv", names(9), FACTS, Rank()),
        pytest.raises(UserError, match="another command is at work on it"),
    ):
        write(tmp_path / "a.csv", 9)


def test_damaged_parts(tmp_path):
    path = tmp_path / "a.csv"
    write(path, 500, stop=10)
    part = tmp_path / "a.csv.parts/00000001.jsonl"
    good = part.read_bytes()
    for bad, why in ((good[:-9], "damaged"), (good.splitlines(True)[0], "other images")):
        part.write_bytes(bad)
        with pytest.raises(UserError, match=why):
            write(path, 500)
        assert not path.exists()
    part.unlink()
    write(path, 500)


def test_refusals_before_any_work(tmp_path, process):
    with pytest.raises(UsageError, match=r"the suffix must be .csv, .jsonl or .parquet"):
        write(tmp_path / "a.txt")
    with pytest.raises(UserError, match="there are no images"):
        write(tmp_path / "a.csv", 0)
    (tmp_path / "closed").mkdir(mode=0o500)

    def closed() -> int:
        obey_permissions()
        with pytest.raises(UserError, match="no permission to create files"):
            write(tmp_path / "closed/a.csv")
        return 0

    assert process(closed).wait()[0] in (0, 77)
    assert sorted(os.listdir(tmp_path)) == ["closed", "process-0"]


OBJECTS = [
    {
        "label": "dog",
        "score": 0.1 + 0.2,
        "box": [1.5, 2, 3, 4],
        "segmentation": {"size": [4, 4], "counts": "a1"},
        "keypoints": [{"name": "nose", "x": 1.5, "y": 2.0, "score": 0.5}],
    }
]


class Objects(ImagePrediction):
    def to_dict(self):
        return {"image": self.image, "predictions": [] if "0" in self.image else OBJECTS}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_objects(tmp_path, suffix):
    path, columns = tmp_path / f"a.{suffix}", Columns(None)
    with SharedTable(path, names(2), FACTS, Rank()) as table:
        list(table.work(columns, lambda images: map(Objects, map(str, images))))
        assert table.join(columns) == []
    if suffix == "csv":
        with path.open(newline="") as file:
            found = [json.loads(row["predictions"]) for row in csv.DictReader(file)]
    elif suffix == "jsonl":
        found = [json.loads(line)["predictions"] for line in path.read_text().splitlines()]
    else:
        found = pytest.importorskip("pyarrow.parquet").read_table(path)["predictions"].to_pylist()
    assert found == [[], OBJECTS]


def test_no_key_is_lost_in_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    columns = Columns(None)
    for found in ([{"label": "dog", "new": 1}], [{"keypoints": [{"name": "nose", "new": 1}]}]):
        row = {"image": "a", "predictions": found, "error": None}
        with (tmp_path / "a.parquet").open("wb") as file, pytest.raises(AssertionError):
            write_rows(tmp_path / "a.parquet", columns, [row], file)


def test_parquet_of_labels(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write(tmp_path / "a.parquet", 20)
    write(tmp_path / "a.jsonl", 20)
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert parquet.read_table(tmp_path / "a.parquet").to_pylist() == list(map(json.loads, lines))


def test_names_that_are_not_text(tmp_path):
    image = os.fsdecode(b"/photos/\xff/1.png")
    for name in ("a.csv", "a.jsonl"):
        with SharedTable(tmp_path / name, [image], FACTS, Rank()) as table:
            list(table.work(COLUMNS, predict))
            table.join(COLUMNS)
    assert b"\xff" in (tmp_path / "a.csv").read_bytes()
    assert json.loads((tmp_path / "a.jsonl").read_text())["image"] == image
    pytest.importorskip("pyarrow")
    with pytest.raises(UserError, match="not valid UTF-8"):
        SharedTable(tmp_path / "a.parquet", [image], FACTS, Rank()).__enter__()


def test_models_are_told_apart_by_content(tmp_path):
    (tmp_path / "a.ckpt").write_bytes(b"1")
    (tmp_path / "b.ckpt").write_bytes(b"1")
    one, two = (describe_model(str(tmp_path / name), None) for name in ("a.ckpt", "b.ckpt"))
    assert one == two
    (tmp_path / "b.ckpt").write_bytes(b"2")
    assert describe_model(str(tmp_path / "b.ckpt"), None) != one
    assert describe_model("spanet_small", None)["model"] == "spanet_small"
    weights = [describe_model("spanet_small", str(tmp_path / f)) for f in ("a.ckpt", "b.ckpt")]
    assert weights[0]["model"] != weights[1]["model"]


def test_ranks(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert find_rank() == Rank(0, 1)
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(UsageError, match="RANK is '3' and WORLD_SIZE '1'"):
        find_rank()
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert str(find_rank()) == "rank 3 of 4"
    monkeypatch.delenv("RANK")
    with pytest.raises(UsageError, match="RANK is '' and WORLD_SIZE '4'"):
        find_rank()
