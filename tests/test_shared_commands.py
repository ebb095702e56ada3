"""`predict --table`, `eval` and `embed` of several processes give what one gives."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from small_runs import answers_of, call, call_without_torch, make_photos

import spanets
import spanets_cli.ranks
from spanets.training import using
from spanets_runtime.errors import UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Thirteen images and an unreadable one."""
    root = make_photos(tmp_path_factory.mktemp("shared") / "photos", cat=6, dog=7)
    (root / "cat/broken.png").write_bytes(b"nothing")
    return root


@pytest.fixture(autouse=True)
def no_grace(monkeypatch):
    monkeypatch.setattr(spanets_cli.ranks, "GRACE", 0)


# ---- predict


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_tables_of_ranks(name, small_run, folder, process, tmp_path, capsys):
    pytest.importorskip("pyarrow")
    words = ["predict", small_run / "last.ckpt", folder, "--table"]
    status, out, said = call(capsys, *words, tmp_path / name)
    assert (status, out) == (1, f"14 images, 1 with an error: {tmp_path / name}\n")
    assert said.startswith(f"spanets: {folder}/cat/broken.png: ")
    assert said.count("\n") == 1
    (tmp_path / "shared").mkdir()
    first, second = answers_of(process, 2, *words, tmp_path / "shared" / name)
    assert second == (0, "", "")
    assert first[0] == 1
    assert first[1] == out.replace(str(tmp_path), str(tmp_path / "shared"))
    assert (tmp_path / "shared" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_table_is_what_predict_prints(small_run, folder, tmp_path, capsys):
    words = ["predict", small_run / "last.ckpt", folder, "--json"]
    _, out, _ = call(capsys, *words)
    printed = {one["image"]: one["predictions"] for one in json.loads(out)}
    status, out, _ = call(capsys, *words, "--table", tmp_path / "a.csv", "--top", 1)
    found = {"table": str(tmp_path / "a.csv"), "images": 14, "errors": 1}
    assert (status, json.loads(out)) == (1, found)
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert list(row) == ["image", "label_1", "probability_1", "error"]
        if not row["error"]:
            best = printed[row["image"]][0]
            assert (row["label_1"], float(row["probability_1"])) == tuple(best.values())
    table = list(spanets.predict_table(small_run / "last.ckpt", [r["image"] for r in rows], top=1))
    texts = [{k: "" if v is None else str(v) for k, v in row.items()} for row in table]
    assert texts == rows


@pytest.mark.slow  # exports a model
def test_without_torch(small_run, folder, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    assert (
        call(capsys, "export", small_run / "last.ckpt", "--static", "--out", tmp_path / "a.onnx")[0]
        == 0
    )
    words = ["predict", tmp_path / "a.onnx", folder / "dog", "--table", tmp_path / "a.csv"]
    status, out, said = call_without_torch(*words)
    assert (status, said) == (0, "")
    assert out == f"7 images: {tmp_path / 'a.csv'}\n"
    rows = spanets.predict_table(tmp_path / "a.onnx", sorted((folder / "dog").iterdir()))
    with (tmp_path / "a.csv").open(newline="") as file:
        assert [r["label_1"] for r in rows] == [r["label_1"] for r in csv.DictReader(file)]


def test_a_model_is_opened_once(small_run, folder, monkeypatch, tmp_path):
    shutil.copy(small_run / "last.ckpt", tmp_path / "a.ckpt")
    opened = []

    def open_source(word, **options):
        opened.append(word)
        return spanets.open_source(word, **options)

    monkeypatch.setattr(using, "open_source", open_source)
    image = folder / "cat/0.png"
    one, two = (list(spanets.predict_table(tmp_path / "a.ckpt", [image])) for _ in range(2))
    assert one == two
    assert one[0].keys() > {"image", "label_2", "probability_2", "error"}
    assert list(spanets.predict_table(tmp_path / "a.ckpt", [])) == []
    assert len(opened) == 1
    shutil.copy(small_run / "best.ckpt", tmp_path / "a.ckpt")
    list(spanets.predict_table(tmp_path / "a.ckpt", [image]))
    assert len(opened) == 2


def test_refusals(small_run, folder, refused, tmp_path, monkeypatch):
    words = ["predict", small_run / "last.ckpt", folder]
    table = ["--table", tmp_path / "a.csv"]
    assert "--out does not go with --table" in refused(2, *words, *table, "--out", tmp_path)
    assert "no temperature" in refused(2, *words, *table, "--calibrated")
    assert list(tmp_path.iterdir()) == []  # nothing was done, nothing stays
    (tmp_path / "empty").mkdir()
    assert "without images" in refused(1, *words[:2], tmp_path / "empty", *table)
    with pytest.raises(UsageError, match=r"TypeError|missing 1 required"):
        spanets.predict_table("spanets.sources:open_source", [])
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert "2 processes would each do all the work; add --table FILE" in refused(2, *words)


def test_ranks_name_themselves(small_run, folder, process, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.csv", "png")
    words = ["predict", tmp_path / "absent.ckpt", folder, "--table", tmp_path / "b.csv"]
    first, second = answers_of(process, 2, *words)
    assert (first[0], second[0]) == (1, 1)
    assert first[2].startswith(f"spanets: {tmp_path}/absent.ckpt: ")
    assert second[2].startswith(f"spanets: rank 1 of 2: {tmp_path}/absent.ckpt: ")


# ---- eval and embed


@pytest.mark.parametrize("count", [2, 3])
def test_eval(count, small_run, photos, process, capsys):
    """Sixteen images in six batches; the numbers are those of one process, to the last digit."""
    words = ["eval", small_run / "last.ckpt", "--data", photos, "--batch", 3, "--json"]
    _, alone, notes = call(capsys, *words)
    first, *others = answers_of(process, count, *words)
    assert first == (0, alone, notes)
    assert others == [(0, "", "")] * (count - 1)


def test_eval_writes_once(small_run, process, tmp_path, capsys):
    for name in ("one", "two"):
        shutil.copytree(small_run, tmp_path / name)
    words = ["--calibrate", "--errors"]
    alone = call(capsys, "eval", tmp_path / "one/last.ckpt", *words, tmp_path / "one/errors")
    given = ["eval", tmp_path / "two/last.ckpt", *words, tmp_path / "two/errors"]
    first, second = answers_of(process, 2, *given)
    assert first[0] == alone[0]
    assert first[1] == alone[1].replace(f"{tmp_path}/one", f"{tmp_path}/two")
    assert second[1:] == ("", "") if not alone[0] else second[0] == 1
    if alone[0] == 0:
        one, two = (tmp_path / name / "errors/answers.csv" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_unreadable_images_of_all_ranks(small_run, folder, process, tmp_path, capsys):
    words = ["eval", small_run / "last.ckpt", "--data", folder, "--batch", 2, "--json"]
    status, _, said = call(capsys, *words)
    assert status == 1
    found = answers_of(process, 2, *words)
    failed = [line for _, _, text in found for line in text.splitlines() if "broken.png" in line]
    assert said.strip().removeprefix("spanets: ") in failed[0]


def test_embed(small_run, folder, process, tmp_path, capsys):
    words = ["embed", small_run / "last.ckpt", folder, "--batch", 3, "--knn", 3, "--out"]
    alone = call(capsys, *words, tmp_path / "one.npz")
    first, second = answers_of(process, 2, *words, tmp_path / "two.npz")
    assert first[:2] == (alone[0], alone[1].replace("one.npz", "two.npz"))
    assert second == (0, "", "")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
