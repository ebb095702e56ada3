"""`predict --table`, `eval` and `embed` of several processes give what one gives."""

import csv
import errno
import io
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_runs import answers_of, call, call_without_torch, make_photos

import spanets
import spanets_cli
import spanets_cli.ranks
from spanets.data import ranks
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


# ---- eval and embed after an interruption


@pytest.fixture
def interrupt(monkeypatch):
    """Returns `interrupt(n)`: loops over batches stop at the n-th batch, or never again with 0."""
    compute = ranks._compute

    def interrupt(after: int) -> list[int]:
        computed: list[int] = []

        def counted(loader, shared, function, title, loop):
            def run(batch):
                if after and len(computed) == after:
                    raise KeyboardInterrupt
                computed.append(1)
                return function(batch)

            return compute(loader, shared, run, title, loop)

        monkeypatch.setattr(ranks, "_compute", counted)
        return computed

    return interrupt


def _is_interrupted(capsys, *words):
    status, out, said = call(capsys, *words)
    assert (status, out) == (1, "")
    assert said.endswith("run the same command again to go on\nspanets: stopped\n")


def _stop_and_go_on(capsys, interrupt, words, batches, parts):
    """Runs a command, stopped after four batches and again after one; returns the last output."""
    interrupt(4)
    _is_interrupted(capsys, *words)
    interrupt(1)
    _is_interrupted(capsys, *words)
    assert len(list(parts.iterdir())) == 2
    computed = interrupt(0)
    status, out, said = call(capsys, *words)
    assert len(computed) == batches - 5
    assert f"5 of {batches} batches were done already ({parts})\n" in said
    assert not parts.exists()
    return status, out


def test_eval_goes_on(small_run, photos, interrupt, tmp_path, capsys):
    words = ["eval", small_run / "last.ckpt", "--data", photos, "--batch", 2, "--json"]
    alone = call(capsys, *words)
    parts = tmp_path / "parts"
    kept = _stop_and_go_on(capsys, interrupt, [*words, "--parts", parts], 8, parts)
    assert kept == alone[:2]


def test_parts_outlive_answers_that_were_lost(small_run, photos, monkeypatch, tmp_path):
    class Full(io.StringIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    words = ["eval", small_run / "last.ckpt", "--data", photos, "--json", "--parts", tmp_path / "p"]
    monkeypatch.setattr(sys, "stdout", Full())
    assert spanets_cli.main([*map(str, words)]) == 1
    assert any((tmp_path / "p").iterdir())


def test_embed_goes_on(small_run, folder, interrupt, tmp_path, capsys):
    words = ["embed", small_run / "last.ckpt", folder, "--batch", 2, "--out"]
    alone = call(capsys, *words, tmp_path / "one.npz")
    path = tmp_path / "two.npz"
    kept = _stop_and_go_on(capsys, interrupt, [*words, path], 7, tmp_path / "two.npz.parts")
    assert kept == (alone[0], alone[1].replace("one.npz", "two.npz"))
    assert path.read_bytes() == (tmp_path / "one.npz").read_bytes()


def test_ranks_go_on_with_the_results_of_one(
    small_run, photos, process, interrupt, tmp_path, capsys
):
    words = ["eval", small_run / "last.ckpt", "--data", photos, "--batch", 2, "--json"]
    _, alone, notes = call(capsys, *words)
    words += ["--parts", tmp_path / "parts"]
    interrupt(3)
    _is_interrupted(capsys, *words)
    interrupt(0)
    first, second = answers_of(process, 2, *words)
    said = f"3 of 8 batches were done already ({tmp_path / 'parts'})\n"
    assert first == (0, alone, said + notes)
    assert second == (0, "", "")
    assert not (tmp_path / "parts").exists()


def test_results_of_something_else_are_refused(
    small_run, photos, folder, interrupt, refused, tmp_path, capsys
):
    parts = tmp_path / "parts"
    words = ["eval", small_run / "last.ckpt", "--batch", 2, "--parts", parts]
    interrupt(3)
    _is_interrupted(capsys, *words, "--data", photos)
    advice = "; finish that one, remove the folder, or name another --parts"
    differs = f"{parts}: has results of another command, which differs in "
    assert refused(1, *words, "--data", photos, "--batch", 3) == f"{differs}batch size{advice}"
    assert refused(1, *words, "--data", photos, "--tta") == f"{differs}--tta{advice}"
    shutil.copytree(photos, tmp_path / "photos")
    assert refused(1, *words, "--data", tmp_path / "photos") == f"{differs}images{advice}"
    other = [words[0], small_run / "best.ckpt", *words[2:], "--data", photos]
    if (small_run / "best.ckpt").read_bytes() != (small_run / "last.ckpt").read_bytes():
        assert refused(1, *other) == f"{differs}model{advice}"
    file = next(parts.iterdir())
    (parts / "mine.txt").write_text("mine")
    file.write_bytes(b"nothing")
    line = refused(1, *words, "--data", photos)
    assert line == f"{file}: damaged; remove it, and run the command again"
    file.unlink()
    interrupt(0)
    assert call(capsys, *words, "--data", photos)[0] == 0
    assert list(parts.iterdir()) == [parts / "mine.txt"]


def test_no_code_in_kept_results(small_run, photos, refused, tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    parts = tmp_path / "parts"
    parts.mkdir()
    torch.save({"facts": Trap()}, parts / "00-0000-00000000.pt")
    words = ["eval", small_run / "last.ckpt", "--data", photos, "--parts", parts]
    assert "damaged" in refused(1, *words)
    assert not (tmp_path / "sprung").exists()
