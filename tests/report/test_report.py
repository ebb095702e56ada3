"""`spanets report`: the page of a run, whole or not, and what is no run."""

import csv
import json
import math
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import check_page
from small_runs import SMALL, call, make_photos

from spanets.classification.examples import MOST_CLASSES, report_results
from spanets.report.charts import MOST_CURVES, MOST_POINTS, epoch_chart, scatter_chart
from spanets.report.content import Content
from spanets.report.cost import describe_cost
from spanets.report.sections import MOST_ROWS, wilson
from spanets.runs.listing import read_run
from spanets.sources import open_checkpoint

pytestmark = pytest.mark.page

ODD = ("<script>alert(1)<∕script>", "\"quoted' & <b>", "🐈" * 60, "\u202eleft", "مرحبا")


@pytest.fixture
def run(small_run, tmp_path):
    """A copy of the small run."""
    shutil.copytree(small_run, tmp_path / "run")
    return tmp_path / "run"


def report(capsys, folder, *words) -> tuple[str, str]:
    """Returns the text of a page, and what is missing on it."""
    status, printed, said = call(capsys, "report", folder, "--workers", "0", *words)
    assert status == 0, said
    assert printed.startswith(f"report: {folder / 'report.html'} (")
    return check_page(folder / "report.html"), said


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_train_writes_the_page(small_run, capsys):
    text = check_page(small_run / "report.html")
    results = json.loads((small_run / "results.json").read_text())
    assert f"{results['metrics']['accuracy']:.4f} accuracy 95 % interval" in text
    assert "Confusion matrix" in text
    assert "All 4 images of val were predicted" in text
    assert "Relative log amplitude" in text
    assert f"spanets eval {small_run / 'last.ckpt'} --errors {small_run / 'errors'}" in text
    assert "data.image_size 32 224" in text
    assert (small_run / "report.html").read_text().count("<img ") == 4


def test_the_cost_of_a_small_run(run, monkeypatch):
    """All parameters are counted, and a single batch that is not full counts its images."""
    content = Content(read_run(run, run), source=open_checkpoint(run / "last.ckpt"))
    whole = dict(describe_cost(content))
    count = json.loads((run / "results.json").read_text())["parameters"]
    assert whole["parameters"] == f"{count:,}"
    assert not [name for name in whole if "trainable" in name]
    content.source.info.recipe["optim"]["batch_size"] = 32  # 12 images are one batch
    monkeypatch.setattr("spanets.report.cost.trained_images", lambda *_: range(1, 64))
    assert dict(describe_cost(content))["training"] == whole["training"]
    (run / "split.csv").unlink()
    assert "training" not in dict(describe_cost(content))


def test_a_page_that_cannot_be_written_fails_no_run(small_recipe, tmp_path, capsys, monkeypatch):
    def fail(*_, **__):
        raise MemoryError("too small")

    monkeypatch.setattr("spanets.report.page.read_content", fail)
    out = tmp_path / "run"
    words = ("--trainer.epochs", "1", "--out", out)
    status, _, said = call(capsys, "train", small_recipe, *words)
    assert status == 0
    assert said.endswith(f"warning: {out / 'report.html'}: not written (too small)\n")
    assert (out / "results.json").is_file()


def test_names_are_text(tmp_path, capsys):
    photos = make_photos(tmp_path / "photos", **dict.fromkeys(ODD, 4))
    for name in ODD:
        for i in range(4):
            (photos / name / f"{i}.png").rename(photos / name / f"{i}<img src=x>.png")
    keys = {**SMALL, "trainer.epochs": 1, "data.root": photos}
    words = [word for key, value in keys.items() for word in (f"--{key}", value)]
    out = tmp_path / "<b>"
    assert call(capsys, "train", "photos", *words, "--out", out)[0] == 0
    text = check_page(out / "report.html")
    assert "Run <b>" in text
    assert "<img src=x>.png" in text
    assert "\\u202eleft" in text


def test_an_unfinished_run(run, capsys):
    (run / "results.json").unlink()
    text, said = report(capsys, run)
    assert said == ""
    assert "not finished (interrupted): 2 of 2 epochs" in text
    assert f"spanets train {run / 'recipe.yaml'} --out {run} --resume" in text
    assert "The worst (2)" in text


def test_a_run_of_few_files(run, capsys):
    for path in run.iterdir():
        if path.name not in ("recipe.yaml", "last.ckpt"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    text, _ = report(capsys, run)
    assert "Not recorded." in text
    assert "no epoch is finished" in text


def test_data_that_is_gone(run, capsys, photos):
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(photos), "/nowhere/photos"))
    text, said = report(capsys, run)
    assert "No pictures: /nowhere/photos: no such folder" in text
    assert "not on the page: examples: /nowhere/photos" in said
    assert "<img " not in (run / "report.html").read_text()
    text, said = report(capsys, run, "--data", photos)
    assert "All 16 images" in text
    assert said == ""


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"metrics": [1]}', '{"metrics": {"a": 0.5}, "classes": 5, "confusion": 3}'],
)
def test_damaged_results(content, run, capsys):
    (run / "results.json").write_text(content)
    _, said = report(capsys, run)
    assert said.startswith("not on the page: ")


def test_a_damaged_checkpoint_and_record(run, capsys):
    for path in run.glob("*.ckpt"):
        path.write_bytes(b"garbage")
    (run / "environment.json").write_text('{"starts": [{"notes": 5, "versions": "<b>"}]}')
    text, said = report(capsys, run)
    assert "Without pictures and frequencies" in text
    assert "neither a PyTorch nor a safetensors file" in said


def test_notes_are_bounded(run, capsys):
    record = json.loads((run / "environment.json").read_text())
    record["starts"][0]["notes"] = [f"{i} images left out {'<b>' * 900}" for i in range(300)]
    change(run / "environment.json", **record)
    text, _ = report(capsys, run)
    assert "0 images left out <b><b>" in text
    assert "240 more lines are left out" in text


def test_a_thousand_classes(run, capsys):
    count = 1000
    confusion = [
        [int(i == j) * 5 + int(j == (i + 1) % count) for j in range(count)] for i in range(count)
    ]
    change(run / "results.json", classes=[f"{i}" * 300 for i in range(count)], confusion=confusion)
    text, _ = report(capsys, run)
    assert f"{count - MOST_ROWS} more rows are left out" in text
    assert "Most frequent confusions" in text


def test_other_files_stay(run, capsys, refused, tmp_path):
    (run / "report.html").write_text("mine")
    line = refused(1, "report", run)
    assert line.startswith(f"{run / 'report.html'}: already exists")
    assert (run / "report.html").read_text() == "mine"
    assert call(capsys, "report", run, "--out", tmp_path / "a" / "page.html")[0] == 0
    check_page(tmp_path / "a" / "page.html")
    assert "is a folder; name a file" in refused(2, "report", run, "--out", tmp_path)


def test_what_is_no_run(tmp_path, run, refused):
    assert refused(1, "report", tmp_path / "none").endswith("none: no such folder")
    assert "no run in it" in refused(1, "report", tmp_path)
    line = refused(1, "report", run / "last.ckpt")
    assert line.endswith(f"is a file; name the run folder, such as {run}")
    (tmp_path / "folds.yaml").write_text("")
    assert "is a cross-validation; name one of its runs" in refused(1, "report", tmp_path)


FLOATS = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(st.tuples(FLOATS, FLOATS), max_size=30), st.booleans())
def test_charts_of_any_numbers(points, several):
    curves = {f"<{i}>": points for i in range(MOST_CURVES if several else 1)}
    for drawn in (epoch_chart("a<b>", curves), scatter_chart("a", points, "x", "y")):
        assert "nan" not in drawn and "inf" not in drawn
        assert "a<b>" not in drawn
    lost = sum(not all(map(math.isfinite, point)) for point in points) * len(curves)
    assert not lost or "values that are not finite are left out" in epoch_chart("a", curves)


def test_a_long_run_keeps_its_ends():
    points = [(float(i), float(i)) for i in range(1, 100_000)]
    drawn = epoch_chart("loss", {"training": points})
    assert drawn.count("L") <= MOST_POINTS
    assert len(drawn) < 20_000
    said = f"{MOST_POINTS} of 99999 points are drawn, evenly spread."
    assert said in drawn
    assert said in scatter_chart("size", points, "truth", "prediction")
    assert "are drawn" not in scatter_chart("size", points[:MOST_POINTS], "truth", "prediction")


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_the_interval_holds_the_share(count, share):
    low, high = wilson(share, count)
    assert 0 <= low <= share + 1e-9 and share - 1e-9 <= high <= 1


@pytest.mark.parametrize("classes", [1, 2, MOST_CLASSES, MOST_CLASSES + 1])
def test_every_image_is_in_the_matrix(classes):
    confusion = [[i + j for j in range(classes)] for i in range(classes)]
    names = [str(i) for i in range(classes)]
    tables = report_results({"classes": names, "confusion": confusion})
    total = sum(map(sum, confusion))
    if classes <= MOST_CLASSES:
        assert sum(sum(row[1:-1]) for row in tables[0].rows) == total
    else:
        assert sum(row[2] for row in tables[0].rows) == total
        assert all(row[0] != row[1] for row in tables[1].rows)


def test_the_curves_are_those_of_the_table(small_run):
    rows = list(csv.DictReader((small_run / "metrics.csv").open(newline="")))
    assert f"{len(rows)} epochs" in check_page(small_run / "report.html")
