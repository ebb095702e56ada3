"""What a study measures of its trained networks."""

import json
import shutil
from dataclasses import replace

import pytest
from PIL import Image

import spanets_cli
from spanets.analysis.reliance import CONFLICT_CUTOFFS
from spanets.analysis.study import analyze
from spanets.experiments import measuring, running
from spanets.experiments.cells import Cell, read_state
from spanets.experiments.measuring import MEASURED, WHAT, Measure, measure_cell
from spanets.experiments.study_file import parse_study
from spanets.experiments.summary import summarise_study
from spanets.experiments.work import run_study
from spanets.recipe import load_recipe
from spanets.runs.record import read_starts
from spanets_runtime.errors import UsageError, UserError

TEXT = """\
question: Which stands corruptions better?
recipe: photos
set: {data.root: ROOT, data.image_size: 32, data.workers: 0, optim.batch_size: 8,
      trainer.epochs: 1, optim.warmup_epochs: 0}
factors: {network: {a: {model.name: spanet_nano}, b: {model.name: test_convnext}}}
seeds: [0]
measure: {what: [bands], images: 6}
metric: {name: accuracy, better: higher}
baseline: {network: a}
rules:
  - {name: more, compare: {network: b}, better_by: 0.01}
  - name: keeps more
    compare: {network: b}
    metric: {name: low_pass 0.2, better: higher}
    better_by: 0.01
"""


def test_numbers_by_name(small_run):
    recipe = load_recipe(str(small_run / "recipe.yaml"), trusted=True)
    measure_cell(small_run, recipe, Measure(("bands",)))
    measured = json.loads((small_run / MEASURED).read_text())
    (small_run / MEASURED).unlink()
    assert {"low_pass 0.2", "high_pass 0", "low_pass 1.4"} <= measured.keys()
    assert all(0 <= value <= 1 for value in measured.values())
    assert measured["low_pass 1.4"] == measured["high_pass 0"]  # both are the whole image


def test_the_checkpoint_is_that_of_the_results(small_run, small_recipe, tmp_path):
    """With early stopping it is the best one; the study may have been moved since."""
    assert measuring._evaluated(small_run) == small_run / "last.ckpt"
    trained, run = tmp_path / "trained", tmp_path / "moved"
    words = ["train", small_recipe, "--trainer.patience", "1", "--out", str(trained)]
    assert spanets_cli.main(words) == 0
    trained.rename(run)
    assert measuring._evaluated(run) == run / "best.ckpt"
    (run / "last.ckpt").write_bytes(b"not opened")
    measure_cell(run, load_recipe(str(run / "recipe.yaml"), trusted=True), Measure(("bands",)))
    assert (run / MEASURED).is_file()
    (run / "best.ckpt").unlink()
    assert measuring._evaluated(run) == run / "last.ckpt"


def test_undefined_numbers_keep_their_names():
    suppressed = {"without shape": {"relative": {"accuracy": None}}}
    found = measuring._of_reliance({"suppressed": suppressed, "conflict": {"pairs": 0}})
    assert found.keys() >= {f"follows_low {cutoff:g}" for cutoff in CONFLICT_CUTOFFS}
    assert set(found.values()) == {None}


def test_unreadable_images_are_counted(small_run, photos, tmp_path, monkeypatch, capsys):
    recipe = load_recipe(str(small_run / "recipe.yaml"), trusted=True)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    real = measuring.read_splits

    def with_a_broken_image(*arguments):
        parts = real(*arguments)
        images = [broken, *parts["val"].images[1:]]
        return {**parts, "val": replace(parts["val"], images=images)}

    monkeypatch.setattr(measuring, "read_splits", with_a_broken_image)
    measure_cell(small_run, recipe, Measure(("bands",)))
    (small_run / MEASURED).unlink()
    assert "broken.png" in capsys.readouterr().err


def test_cells_are_measured_and_rules_read_it(photos, tmp_path, monkeypatch):
    text, out, said = TEXT.replace("ROOT", str(photos)), tmp_path / "study", []
    study = parse_study(text, "s.yaml")
    found = run_study(study, out, said.append)
    assert found["counts"] == {"finished": 2}
    for cell in found["cells"]:
        stored = json.loads((out / cell["folder"] / MEASURED).read_text())
        assert cell["values"] == {"low_pass 0.2": stored["low_pass 0.2"]}
        assert cell["metrics"]["low_pass 0.2"] == stored["low_pass 0.2"]
    _, of_filtered = found["verdicts"]
    values = [cell["values"]["low_pass 0.2"] for cell in found["cells"]]
    assert of_filtered["gain"]["mean"] == pytest.approx(values[1] - values[0])
    assert "low_pass 0.2: better by" in of_filtered["claim"]
    again = summarise_study(study.design(), json.loads(json.dumps(found["cells"])))
    assert again["verdicts"] == found["verdicts"]
    # A trained cell without its numbers is measured, not trained.
    (out / found["cells"][0]["folder"] / MEASURED).unlink()
    monkeypatch.setattr(running, "train_claimed", lambda *_, **__: pytest.fail("trained again"))
    repeated = run_study(study, out, said.append)
    assert repeated["cells"][0]["values"] == found["cells"][0]["values"]
    with pytest.raises(UsageError, match="measure: other than in"):
        run_study(parse_study(text.replace("images: 6", "images: 5"), "s.yaml"), out, said.append)


def test_a_failed_measurement_is_a_failed_cell(small_run, tmp_path, monkeypatch):
    """Until it is asked for again, which trains nothing."""
    recipe = load_recipe(str(small_run / "recipe.yaml"), trusted=True)
    folder, said, measured = tmp_path / "cell", [], []
    shutil.copytree(small_run, folder)
    cell = Cell({}, 0, folder, recipe, Measure(("bands",)))
    monkeypatch.setattr(running, "train_claimed", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr(running, "_write_cost", lambda _: None)

    def fail(*_):
        measured.append(1)
        raise UserError("the images are gone")

    monkeypatch.setattr(running, "measure_cell", fail)
    for _ in range(2):
        running.run_cells([cell], said.append, lambda _: None)
        state = read_state(cell)
        assert (state.status, state.problem) == ("failed", "the images are gone")
    assert measured == [1]
    # Nor is the failure forgotten where nothing is measured, until it is mended by hand.
    bare = replace(cell, measure=Measure())
    assert read_state(bare).status == "failed"
    starts = [*read_starts(folder), read_starts(folder)[-1]]
    monkeypatch.setattr("spanets.experiments.cells.read_starts", lambda _: starts)
    assert read_state(bare).status == "finished"
    assert read_state(cell).status == "failed"
    monkeypatch.undo()
    running.run_cells([cell], said.append, lambda _: None, retry=True)
    assert read_state(cell).status == "finished"


def test_a_cell_without_its_numbers_is_not_finished(small_run):
    recipe = load_recipe(str(small_run / "recipe.yaml"), trusted=True)
    assert read_state(Cell({}, 0, small_run, recipe)).status == "finished"
    assert read_state(Cell({}, 0, small_run, recipe, Measure(("bands",)))).status == "interrupted"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[bands]", "[band]", "measure: what: unknown measurement 'band'; did you mean 'bands'"),
        ("[bands]", "[]", f"must be a list of {', '.join(WHAT)}"),
        ("images: 6", "images: 0", "images is 0, must be a whole number from 1"),
        ("images: 6", "image: 6", "unknown key 'image'"),
        ("0.2, better: higher", "0.2, better: more", "metric: better is 'more', must be higher"),
    ],
)
def test_mistakes(old, new, said):
    assert old in TEXT
    with pytest.raises(UsageError) as caught:
        parse_study(TEXT.replace(old, new), "s.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_corruptions_from_low_to_high_frequencies(small_run, photos, tmp_path):
    """Contrast changes low frequencies, noise changes high ones."""
    source = str(small_run / "last.ckpt")
    found = analyze([source], photos, tmp_path, ["corruptions"], size=32, limit=6)[source]
    row = found["corruptions"]
    kinds = row["kinds"]
    assert len(kinds) == 15
    centre = {kind: of_kind["centre_frequency"] for kind, of_kind in kinds.items()}
    assert centre["brightness"] < 0.1 < 0.5 < centre["gaussian_noise"] < 1
    mean = sum(of_kind["accuracy"] for of_kind in kinds.values()) / 15
    assert row["mean"] == pytest.approx(mean)
    with Image.open(tmp_path / "corruptions.png") as picture:
        assert picture.width > 400
