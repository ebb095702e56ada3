"""Draws detections over an image: boxes with class and score, masks, keypoints."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw

from spanets.formats.coco.results import MASK_THRESHOLD
from spanets_runtime.fonts import font_for, picture_label

# Okabe and Ito's colour-blind-safe palette, without black and yellow.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7")

MAX_NAME = 40
"""Largest number of characters of a class name beside its box."""


def draw_objects(
    image: Image.Image,
    found: Mapping[str, Any],
    classes: Sequence[str],
    min_score: float = 0.5,
    skeleton: Sequence[tuple[int, int]] = (),
) -> Image.Image:
    """Draws the detections with a high enough score.

    Args:
        image: An RGB image.
        found: torchvision's detections in pixels of the image: boxes (N, 4), labels (N,) from 1,
            scores (N,), and possibly masks, probabilities (1, H, W) each, and keypoints (N, K, 3).
        classes: The name of label 1, 2, and so on.
        min_score: Smallest score to draw.
        skeleton: Pairs of keypoints that a line joins, numbered from 0.

    Returns:
        An image of the same size.
    """
    kept = (found["scores"] >= min_score).cpu()
    boxes, labels = found["boxes"].cpu()[kept].tolist(), found["labels"].cpu()[kept].tolist()
    picture = image.copy()
    if not labels:
        return picture
    colours = [COLOURS[i % len(COLOURS)] for i in labels]
    if "masks" in found:
        for mask, colour in zip(found["masks"][kept], colours, strict=True):
            pixels = (mask[0] >= MASK_THRESHOLD).cpu().numpy()
            picture.paste(colour, mask=Image.fromarray(pixels))
        picture = Image.blend(image, picture, 0.5)
    draw, width = ImageDraw.Draw(picture), max(1, round(min(image.size) / 250))
    for box, colour in zip(boxes, colours, strict=True):
        draw.rectangle(box, width=width, outline=colour)
    if "keypoints" in found:
        for points, colour in zip(found["keypoints"].cpu()[kept].tolist(), colours, strict=True):
            _draw_points(draw, [(x, y) for x, y, _ in points], skeleton, colour, 2 * width)
    scores = found["scores"].cpu()[kept].tolist()
    words = [
        f"{picture_label(classes[i - 1], MAX_NAME)} {score:.2f}"
        for i, score in zip(labels, scores, strict=True)
    ]
    _write_words(draw, boxes, words, colours)
    return picture


def _draw_points(
    draw: ImageDraw.ImageDraw,
    points: Sequence[tuple[float, float]],
    skeleton: Sequence[tuple[int, int]],
    colour: str,
    radius: int,
) -> None:
    """Draws the lines of the skeleton, and over them the keypoints in white."""
    for start, end in skeleton:
        draw.line([points[start], points[end]], fill=colour, width=radius)
    for x, y in points:
        place = [x - radius, y - radius, x + radius, y + radius]
        draw.ellipse(place, fill="white", outline=colour, width=max(1, radius // 2))


def _write_words(
    draw: ImageDraw.ImageDraw, boxes: list[list[float]], words: list[str], colours: list[Any]
) -> None:
    """Writes a label above each box on its colour, or inside the box if there is no room above."""
    for (left, top, _, _), word, colour in zip(boxes, words, colours, strict=True):
        font = font_for(word)
        height = draw.textbbox((0, 0), word, font)[3] + 1
        place = (left + 1, top - height if top >= height else top)
        draw.rectangle(draw.textbbox(place, word, font), fill=colour)
        draw.text(place, word, "black", font)
