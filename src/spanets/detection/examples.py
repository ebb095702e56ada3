"""What the page of a run shows of a detector: precisions by class, mistakes, and images."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from spanets.detection.data import evaluation_loader
from spanets.detection.evaluation import detect, read_truth
from spanets.detection.matching import CORRECT, KINDS, Match, add_missed, match
from spanets.formats.coco.objects import CocoImage, to_xywh
from spanets.sources import Source
from spanets.training.mistakes import name_images
from spanets.training.options import EvalOptions
from spanets.training.report_parts import (
    Example,
    Examples,
    Scatter,
    Table,
    describe_images,
    rank,
)
from spanets_runtime.errors import UserError
from spanets_runtime.images import load_image
from spanets_runtime.listing import spread_evenly

MOST_IMAGES, SHOWN = 24, 4
"""Largest number of images that are predicted, and of best and of worst ones."""

SIDE = 320
"""Longer side of a picture in pixels."""

DEFAULT_SCORE = 0.5
"""Lowest score of a detection that counts, if the run has not measured a better one."""

_COLOURS = {CORRECT: "#00c070", "missed": "#2080ff"}
_MISTAKE = "#ff5020"

_PLURALS = {"box": "boxes", "mask": "masks", "keypoint": "keypoints"}


def report_results(results: Mapping[str, Any]) -> list[Table | Scatter]:
    """Returns the average precisions of each class, and the number of each mistake."""
    mistakes = results["mistakes"]
    kinds = [[kind, mistakes[kind], meaning] for kind, meaning in KINDS.items()]
    about = (
        f"Of detections with a score of at least {mistakes['score']:.4f}; {mistakes[CORRECT]} of "
        "them are correct. IoU is that of boxes."
    )
    tables: list[Table | Scatter] = [Table("Mistakes", ["kind", "count", "meaning"], kinds, about)]
    thresholds = {row["class"]: row for row in results["thresholds"] if row["goal"] == "f1"}
    for kind, precisions in results["by_class"].items():
        rows = [
            [
                name,
                thresholds[name]["objects"],
                *(values[key] for key in ("ap", "ap50", "ap75")),
                thresholds[name]["f1"],
                thresholds[name]["threshold"],
            ]
            for name, values in precisions.items()
        ]
        rows.sort(key=lambda row: (row[2] is None, row[2] or 0.0))
        header = ["class", "objects", "AP", "AP50", "AP75", "best F1", "at score"]
        tables.append(
            Table(f"Average precision of {_PLURALS[kind]}", header, rows, "Lowest first.")
        )
    return tables


def find_examples(source: Source, options: EvalOptions, results: Mapping[str, Any]) -> Examples:
    """Returns the images of highest and of lowest F1 at the run's threshold.

    Raises:
        UserError: the images cannot be read.
    """
    whole = read_truth(source, options.root, options.trusted, keypoints=False)
    chosen = spread_evenly(whole.images, MOST_IMAGES)
    truth, started = replace(whole, images=chosen), time.monotonic()
    loader = evaluation_loader(truth, source.info.preprocessing, 1, options.workers)
    found = detect(source.network, loader, truth, masks=False)
    seconds = time.monotonic() - started
    least = results.get("mistakes", {}).get("score") or DEFAULT_SCORE
    counted = add_missed(truth, match(truth, found.results), least)
    by_image = {image.id: [one for one in counted if one.image.id == image.id] for image in chosen}
    scores = np.array([_f1(by_image[image.id]) for image in chosen])
    names = name_images([image.path for image in chosen], None)

    def show(row: int) -> Example:
        image, matches = chosen[row], by_image[chosen[row].id]
        right = sum(one.kind == CORRECT for one in matches)
        missed = sum(one.kind == "missed" for one in matches)
        lines = [
            ("", names[row].rsplit("/", 1)[-1]),
            ("right", f"right: {right}"),
            ("wrong", f"wrong: {len(matches) - right - missed}, missed: {missed}"),
        ]
        return Example(names[row], {"": _draw(image, matches)}, lines)

    best, worst = rank(scores, SHOWN)
    order = (
        f"They are in the order of the F1 of their objects, at a score of at least {least:.4f}. "
        "Green boxes are right, orange ones wrong, and blue objects are missed."
    )
    about = describe_images(len(chosen), len(whole.images), options.root or "val", order)
    images = [image.path for image in chosen]
    return Examples(about, list(map(show, best)), list(map(show, worst)), images, seconds)


def _f1(matches: Sequence[Match]) -> float:
    """Returns the F1 of an image; NaN without objects and detections."""
    right = sum(one.kind == CORRECT for one in matches)
    wrong = sum(one.kind in KINDS for one in matches)
    return 2 * right / (2 * right + wrong) if right + wrong else float("nan")


def _draw(given: CocoImage, matches: Sequence[Match]) -> Image.Image | None:
    """Draws the boxes of an image at the size of the page, the correct ones last."""
    try:
        image = load_image(given.path)
    except UserError:
        return None
    scale = SIDE / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    picture = image.resize(size)
    draw = ImageDraw.Draw(picture)
    for one in sorted(matches, key=lambda one: one.kind == CORRECT):
        box = one.box if one.score is not None or one.truth is None else to_xywh(one.truth.box)
        x, y, width, height = (value * scale for value in box)
        colour = _COLOURS.get(one.kind, _MISTAKE)
        draw.rectangle([x, y, x + max(1, width), y + max(1, height)], outline=colour, width=2)
    return picture
