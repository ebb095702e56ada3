"""Pictures and lines for all that runs bring."""

import math
import warnings

import numpy as np
import pytest
from PIL import Image

from spanets.classification.report import describe_metrics, plot_confusion
from spanets.training.callbacks import best_row, format_history
from spanets.training.report import plot_curves
from spanets_runtime.text import format_duration

CURVES = "cross entropy", {"val/accuracy": "accuracy", "val/auroc": "AUROC"}


def inked(path) -> float:
    """The share of a picture's pixels that are not white."""
    pixels = np.asarray(Image.open(path).convert("L"))
    assert min(pixels.shape) > 300
    return float((pixels < 250).mean())


@pytest.fixture(autouse=True)
def silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # older matplotlib, newer pyparsing
        yield


@pytest.mark.parametrize(
    "history",
    [
        [],
        [{"epoch": 1, "train/loss": 1.0}],
        [{"epoch": e, "train/loss": 1 / e, "val/accuracy": 1.0} for e in range(1, 300)],
        [{"epoch": 1, "train/loss": 1.0, "val/auroc": float("nan")}],
        [{"epoch": 1, "train/loss": 2.0}, {"epoch": 2, "train/loss": 1.0, "val/loss": 1.5}],
    ],
    ids=["none", "one epoch", "many epochs", "undefined", "sparse"],
)
def test_curves(history, tmp_path):
    plot_curves(history, tmp_path / "a.png", "a_name with $1 and _under_scores", *CURVES)
    assert inked(tmp_path / "a.png") > 0.01


def test_curves_differ_by_the_numbers(tmp_path):
    for name, loss in (("a", 1.0), ("b", 2.0)):
        history = [{"epoch": 1, "train/loss": 3.0}, {"epoch": 2, "train/loss": loss}]
        plot_curves(history, tmp_path / f"{name}.png", "", *CURVES)
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    "classes",
    [
        ["cat", "dog"],
        ["$5", "$\\frac{", "_a", "^b", "%"],
        ["\u732b", "\u72ac"],
        [f"a rather long name of a class {i}" for i in range(15)],
        [f"class {i}" for i in range(40)],
        [f"class {i}" for i in range(300)],
    ],
    ids=["two", "odd names", "other scripts", "long names", "forty", "three hundred"],
)
def test_confusion(classes, tmp_path):
    count = len(classes)
    matrix = np.eye(count, dtype=int) * 9
    matrix[0] = 0  # a class without images
    plot_confusion(matrix.tolist(), classes, tmp_path / "a.png")
    assert inked(tmp_path / "a.png") > 0.01


def test_metrics_in_words():
    results = {
        "checkpoint": "a.ckpt",
        "data": "val",
        "images": 3,
        "metrics": {"loss": 0.25, "auroc": None},
        "classes": ["cat", "dog"],
        "confusion": [[2, 1], [0, 0]],
    }
    assert describe_metrics(results).splitlines() == [
        "a.ckpt on val (3 images)",
        "  loss           0.2500",
        "  auroc          undefined on these images",
        "  recall of cat: 0.667 (3 images)",
        "  recall of dog: undefined (0 images)",
    ]


def test_history_as_a_table():
    history = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "val": 1.0}]
    assert format_history(history) == "epoch,loss,val\n1,0.5,\n2,0.25,1.0\n"


def test_the_best_epoch_is_the_first_of_highest_accuracy():
    rows = [{"val/accuracy": 0.5}, {"val/accuracy": 0.9}, {}, {"val/accuracy": 0.9}]
    assert best_row(rows, "val/accuracy") is rows[1]
    assert best_row([{}], "val/accuracy") is None
    losses = [{"val/loss": 0.5}, {"val/loss": 0.2}, {"val/loss": math.nan}, {"val/loss": 0.2}]
    assert best_row(losses, "val/loss") is losses[1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599, "59:59"), (3600, "1:00:00")],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text
