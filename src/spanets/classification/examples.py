"""What the page of a run shows of a classifier: confusions, and good and bad answers."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from spanets.classification.answers import Answers, read_answers
from spanets.classification.evaluation import as_classifier, choose_images, classify
from spanets.classification.recipe import ClassificationRecipe
from spanets.data.image_level.dataset import evaluation_loader, unreadable_of
from spanets.sources import Source
from spanets.training.options import EvalOptions
from spanets.training.own_data import info_recipe
from spanets.training.report_parts import (
    MOST_IMAGES,
    Examples,
    Line,
    Scatter,
    Table,
    choose_examples,
    describe_images,
)
from spanets_runtime.errors import UserError
from spanets_runtime.listing import spread_evenly
from spanets_runtime.text import shorten

MOST_CLASSES = 10
"""Largest number of classes whose confusion matrix is shown whole."""

CONFUSIONS = 20


def report_results(results: Mapping[str, Any]) -> list[Table | Scatter]:
    """Returns the confusion matrix or, of many classes, recalls and frequent confusions."""
    classes, recall = results["classes"], results.get("recall")
    if "confusion" not in results:  # of ImageNet's classes
        return [] if recall is None else [_recalls(classes, recall, None)]
    confusion = np.array(results["confusion"], np.int64).reshape(len(classes), len(classes))
    totals = confusion.sum(1)
    recall = np.divide(
        confusion.diagonal(), totals, out=np.full(len(classes), np.nan), where=totals > 0
    ).tolist()
    if len(classes) <= MOST_CLASSES:
        header = ["truth ↓ predicted →", *(shorten(name, 20) for name in classes), "recall"]
        rows = [[name, *confusion[i].tolist(), recall[i]] for i, name in enumerate(classes)]
        about = "Images by true class (rows) and predicted class (columns)."
        return [Table("Confusion matrix", header, rows, about)]
    wrong = confusion - np.diag(confusion.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS].tolist()
    pairs = [divmod(place, len(classes)) for place in order if wrong.flat[place]]
    found = [[classes[t], classes[p], int(wrong[t, p]), int(totals[t])] for t, p in pairs]
    return [
        _recalls(classes, recall, totals.tolist()),
        Table("Most frequent confusions", ["truth", "taken for", "images", "of"], found),
    ]


def _recalls(classes: list[str], recall: list[Any], totals: list[int] | None) -> Table:
    known = [x if x is not None and np.isfinite(x) else None for x in recall]
    order = sorted(range(len(classes)), key=lambda i: (known[i] is None, known[i] or 0.0))
    header = ["class", "recall", *([] if totals is None else ["images"])]
    rows = [[classes[i], known[i], *([] if totals is None else [totals[i]])] for i in order]
    return Table("Recall by class", header, rows, "Lowest first.")


def find_examples(source: Source, options: EvalOptions) -> Examples:
    """Returns the images whose true class has the highest and the lowest probability.

    Raises:
        UserError: the images cannot be read.
    """
    source, started = as_classifier(source), time.monotonic()
    recipe = info_recipe(source, ClassificationRecipe)
    found = choose_images(source, options.root, recipe, options.trusted)
    samples = found.samples.subset(spread_evenly(range(len(found.samples)), MOST_IMAGES))
    loader = evaluation_loader(
        samples,
        source.info.preprocessing,
        options.batch_size or 64,
        options.workers,
        max_unreadable=recipe.data.max_unreadable,
    )
    answers = Answers.joined(
        [read_answers(logits, labels) for logits, labels in classify(source.network, loader)]
    )
    if not len(answers):
        raise UserError(f"{found.part}: no readable images")
    seconds, samples = time.monotonic() - started, unreadable_of(loader).readable()

    def describe(row: int) -> list[Line]:
        kind, classes = "right" if answers.right[row] else "wrong", samples.classes
        return [
            (kind, f"{kind}:", classes[answers.predicted[row]], f"{answers.confidence[row]:.3f}"),
            ("", "truth:", classes[answers.truth[row]], f"{answers.of_truth[row]:.3f}"),
        ]

    view, root = source.preprocess.view, found.root
    best, worst = choose_examples(samples, root, answers.of_truth, describe, view)
    order = (
        "They are in the order of the probability of the true class. Probabilities stand behind "
        "the names."
    )
    about = describe_images(len(answers), len(found.samples), found.part, order)
    return Examples(about, best, worst, samples.images, seconds)
