"""Labels that are likely wrong: the equations of confident learning, and the pages of a run."""

import csv
import json

import numpy as np
import pytest
from small_runs import SMALL, call, make_photos

from spanets.classification.wrong_labels import (
    class_thresholds,
    confident_classes,
    confident_joint,
    estimate_joint,
    find_wrong_labels,
)


def draw(seed, images=60, classes=4):
    """Labels and probabilities that agree more often than not."""
    numbers = np.random.default_rng(seed)
    labels = numbers.integers(0, classes, images)
    logits = numbers.normal(0, 1.5, (images, classes))
    logits[np.arange(images), labels] += 1.5 * (numbers.random(images) > 0.2)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return labels, probabilities.astype(np.float32)


def transcribed(labels, probabilities):
    """Eq. 1 to 3 of Northcutt et al. (2021), one image and one class after the other."""
    images, classes = probabilities.shape
    members = [[n for n in range(images) if labels[n] == j] for j in range(classes)]
    t = [np.mean([probabilities[n, j] for n in members[j]]) for j in range(classes)]
    joint, guesses = np.zeros((classes, classes)), []
    for n in range(images):
        sure = [j for j in range(classes) if probabilities[n, j] >= t[j]]
        guess = max(sure, key=lambda j: probabilities[n, j]) if sure else None
        guesses.append(guess)
        if guess is not None:
            joint[labels[n], guess] += 1
    q = np.array([joint[i] / joint[i].sum() * len(members[i]) for i in range(classes)])
    q /= q.sum()
    found = {
        n: probabilities[n, labels[n]]
        - max(probabilities[n, j] for j in range(classes) if j != labels[n])
        for n in range(images)
        if guesses[n] is not None and guesses[n] != labels[n]
    }
    found = {n: margin for n, margin in found.items() if margin < 0}
    return t, joint, q, sorted(found, key=found.__getitem__), guesses


@pytest.mark.parametrize("seed", range(5))
def test_equations(seed):
    labels, probabilities = draw(seed)
    t, joint, q, rows, guesses = transcribed(labels, probabilities)
    thresholds = class_thresholds(labels, probabilities)
    np.testing.assert_allclose(thresholds, t, rtol=1e-6)
    confident = confident_classes(probabilities, thresholds)
    assert [None if c < 0 else c for c in confident] == guesses
    counted = confident_joint(labels, confident, 4)
    assert np.array_equal(counted, joint)
    np.testing.assert_allclose(estimate_joint(counted, np.bincount(labels)), q, rtol=1e-12)
    found = find_wrong_labels(labels, probabilities)
    assert found.rows.tolist() == rows
    assert [guesses[row] for row in rows] == found.suggested.tolist()
    assert found.share == pytest.approx(1 - np.trace(q))
    assert (np.diff(found.margins) >= 0).all()


def test_swapped_labels_are_found():
    """Of a thousand images, thirty have another label; a good model tells all of them."""
    numbers = np.random.default_rng(0)
    truth = numbers.integers(0, 3, 1000)
    probabilities = np.full((1000, 3), 0.05, np.float32)
    probabilities[np.arange(1000), truth] = 0.9
    labels, swapped = truth.copy(), numbers.choice(1000, 30, replace=False)
    labels[swapped] = (labels[swapped] + 1) % 3
    found = find_wrong_labels(labels, probabilities)
    assert set(found.rows) == set(swapped)
    assert np.array_equal(found.suggested, truth[found.rows])
    assert found.share == pytest.approx(0.03)


def test_nothing_is_wrong():
    found = find_wrong_labels(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert len(found.rows) == 0 and found.share == 0
    # No image of class 1: it is never suggested. Of equal probabilities, all reach the mean.
    found = find_wrong_labels(np.zeros(3, int), np.array([[0.1, 0.9]] * 3, np.float32))
    assert len(found.rows) == 0 and found.share == 0


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """A cross-validation on a table in which one label of twenty-four is wrong."""
    root = tmp_path_factory.mktemp("labels")
    make_photos(root / "img", cat=12, dog=12)
    rows = [
        f"{name}/{i}.png,{'dog' if (name, i) == ('cat', 0) else name},p{i // 3}"
        for name in ("cat", "dog")
        for i in range(12)
    ]
    (root / "labels.csv").write_text("\n".join(["path,label,patient", *rows]))
    values = {**SMALL, "trainer.epochs": 8, "optim.lr": 0.01, "data.folds": 2, "data.fold": "all"}
    values |= {"data.root": root / "labels.csv", "data.images": root / "img"}
    values |= {"data.scale": "[0.5, 1]", "data.ordered": "[cat, dog]"}
    (root / "recipe.yaml").write_text("\n".join(f"{k}: {v}" for k, v in values.items()))
    return root


def test_a_cross_validation_looks_at_all_images(folds, tmp_path, capsys, refused):
    out = folds / "cv"
    status, printed, _ = call(capsys, "train", folds / "recipe.yaml", "--out", out)
    assert status == 0
    assert "labels are likely wrong: " in printed
    assert "24 images were looked at, each by the model of a fold" in printed
    joined = json.loads((out / "folds.json").read_text())["out_of_fold"]
    assert joined["images"] == joined["wrong_labels"]["images"] == 24
    metrics = joined["metrics"]  # of two ranks, the mean distance is the rate of errors
    assert metrics["rank_mae"] == pytest.approx(1 - metrics["accuracy"])
    assert metrics["kappa_quadratic"] is not None
    assert {row["group"] for row in joined["groups"]["groups"]} == {"p0", "p1", "p2", "p3"}
    answers = list(csv.DictReader((out / "errors/answers.csv").open(newline="")))
    assert sorted(row["path"] for row in answers) == sorted(
        f"{name}/{i}.png" for name in ("cat", "dog") for i in range(12)
    )
    rows = list(csv.DictReader((out / "errors/likely_wrong_labels.csv").open(newline="")))
    assert len(rows) == joined["wrong_labels"]["likely"]
    assert all(row["given"] != row["suggested"] for row in rows)
    page = (out / "errors/likely_wrong_labels.html").read_text()
    assert page.count("<figure") == len(rows)

    # The same numbers by the command; other options are refused.
    words = ["eval", out, "--workers", "0"]
    status, printed, _ = call(capsys, *words, "--errors", tmp_path / "e", "--json")
    found = json.loads(printed)
    assert status == 0
    assert found["metrics"] == pytest.approx(joined["metrics"], abs=1e-6)
    assert found["wrong_labels"]["likely"] == len(rows)
    assert "--data is for one model" in refused(2, *words, "--data", folds / "img")
    (out / "fold-1/results.json").rename(out / "fold-1/away")
    assert "fold-1: is not finished; finish it with: spanets train" in refused(1, *words)
    (out / "fold-1/away").rename(out / "fold-1/results.json")


def test_one_run_looks_at_its_held_out_part(small_run, tmp_path, capsys):
    words = ["eval", small_run / "last.ckpt", "--errors", tmp_path, "--workers", "0"]
    status, printed, _ = call(capsys, *words)
    assert status == 0
    assert "only the 4 images of val were looked at" in printed
    assert (tmp_path / "likely_wrong_labels.csv").read_text().startswith("path,given,suggested")
    assert call(capsys, *words)[0] == 0  # its own files are replaced
