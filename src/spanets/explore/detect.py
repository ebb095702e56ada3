"""The panel "Detect": boxes, masks and keypoints of detectors and segmenters, above a score."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from spanets.detection import keypoints_of
from spanets.detection.overlay import draw_objects
from spanets.detection.predict import ObjectPredictor
from spanets.explore.results import Series, Shown
from spanets.explore.workbench import MOST_PIXELS, Model, Settings, Workbench, stamp_of
from spanets.segmentation.labels import label_map
from spanets.segmentation.predict import MaskPredictor
from spanets.segmentation.views import infer_views
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.images import load_image
from spanets_runtime.masks import class_colours

SIDE = 1024
"""Longest side of the picture, in pixels; objects are found in the whole image."""

LOWEST = 0.05
"""Smallest score of a listed object."""


def detect(bench: Workbench, words: list[str], settings: Settings) -> Shown:
    """Shows objects or classes of pixels with at least a score.

    Raises:
        UsageError: the score is out of range.
        UserError: the model is no detector or segmenter.
    """
    if not 0 <= settings.min_score <= 1:
        raise UsageError(f"score is {settings.min_score:g}, must be from 0 to 1")
    (word,) = words
    model = bench.model(word)
    task = model.source.info.task
    if task not in ("detection", "segmentation") or model.source.exported:
        raise UserError(f"{word}: this panel takes checkpoints of detectors and segmenters")
    find = _show_objects if task == "detection" else _show_pixels
    return find(model, settings.image, stamp_of(settings.image), settings.min_score)


def _fit(image: Image.Image) -> Image.Image:
    """Makes a large picture smaller, and a small one larger by a whole factor."""
    factor = SIDE // 2 // max(image.size)
    if factor > 1:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    return small


@lru_cache(maxsize=4)
def _find_objects(model: Model, path: str, _: tuple[int, int]) -> tuple[Image.Image, Any]:
    """Returns an image and its detections, in its pixels; a slider asks again and again."""
    image = load_image(path, MOST_PIXELS)
    found = ObjectPredictor(model.source, "cpu").find(image)
    likely = found["scores"] >= LOWEST
    return image, {name: values[likely] for name, values in found.items()}


def _show_objects(model: Model, path: str, stamp: tuple[int, int], score: float) -> Shown:
    image, found = _find_objects(model, path, stamp)
    info = model.source.info
    keypoints = keypoints_of(info.head)
    skeleton = keypoints.skeleton if keypoints else ()
    picture = _fit(draw_objects(image, found, info.classes, score, skeleton))
    kept = found["scores"] >= score
    names = [info.classes[i - 1] for i in found["labels"][kept].tolist()]
    titles = [f"{i + 1} {name}" for i, name in enumerate(names)]
    boxes = found["boxes"][kept].numpy().reshape(-1, 4)
    series = (
        Series("score of objects", "score", titles, found["scores"][kept].numpy()),
        Series("box (pixels)", "x1 y1 x2 y2", ["x1", "y1", "x2", "y2"], boxes, titles),
    )
    below = int((~kept).sum())
    return Shown(
        {"objects": picture},
        {},
        series,
        (f"{len(titles)} objects; {below} more between {LOWEST:g} and {score:g}",),
    )


@lru_cache(maxsize=4)
@torch.inference_mode()
def _find_pixels(model: Model, path: str, _: tuple[int, int]) -> tuple[Image.Image, Any, Any]:
    """Returns a small image, the class of each of its pixels, and that class's probability."""
    image = load_image(path, MOST_PIXELS)
    predictor = MaskPredictor(model.source, "cpu")
    pixels = torch.from_numpy(predictor.preprocess(image))[None]
    logits = infer_views(predictor.model, pixels, model.source.info.preprocessing, None).float()
    small = _fit(image)
    size = (small.height, small.width)
    labels = label_map(logits, *size).numpy()
    best = logits.softmax(1).amax(1, keepdim=True)
    return small, labels, F.interpolate(best, size, mode="bilinear")[0, 0].numpy()


def _show_pixels(model: Model, path: str, stamp: tuple[int, int], score: float) -> Shown:
    image, labels, best = _find_pixels(model, path, stamp)
    classes = model.source.info.classes
    sure = best >= score
    colours = Image.fromarray(class_colours(len(classes))[labels])
    gray = image.convert("L").convert("RGB")
    picture = Image.composite(Image.blend(gray, colours, 0.5), gray, Image.fromarray(sure))
    counts = np.bincount(labels[sure], minlength=len(classes)) / labels.size
    order = [i for i in np.argsort(-counts, kind="stable") if counts[i]]
    shares = {classes[i]: float(counts[i]) for i in order}
    series = (Series("share of the pixels", "share", list(shares), np.array([*shares.values()])),)
    note = f"{sure.mean():.1%} of the pixels have a class of probability {score:g} or more"
    return Shown({"classes": picture}, {"share of the pixels": shares}, series, (note,))
