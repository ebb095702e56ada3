"""Generates a data set of stick figures with keypoints on photographs, in COCO's format.

Figures face the viewer, so their left hand and foot are on the right side of an upright figure. For
the photographs see `spanets.detection.shapes`.

root/images/train/00000.png      8-bit RGB
root/annotations/train.json      COCO's instances, with masks and keypoints
root/images/val/…                likewise
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from spanets.detection.shapes import (
    MIN_VISIBLE,
    PHOTOGRAPHS,
    SUPERSAMPLING,
    coco_images,
    coco_shape,
    crop_photograph,
    load_photographs,
    new_parts,
    paint,
)
from spanets.formats.coco.keypoints import Keypoints
from spanets_runtime.progress import progress

FIGURE = Keypoints(
    ("head", "neck", "left_hand", "right_hand", "hip", "left_foot", "right_foot"),
    ((0, 1), (1, 2), (1, 3), (1, 4), (4, 5), (4, 6)),
)
"""The keypoints, and the limbs that join them."""

NAME = "figure"
"""Name of the only class."""


@dataclass(frozen=True)
class Figures:
    """An image with the figures on it.

    Attributes:
        image: (S, S, 3), uint8.
        masks: (N, S, S), bool: the visible part of each figure, without overlaps.
        points: (N, 7, 2): x and y of the keypoints in pixels, also outside of the image.
    """

    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    points: NDArray[np.float64]

    def visibilities(self) -> NDArray[np.int64]:
        """Returns COCO's visibility of each keypoint, (N, 7).

        2 is visible, 1 covered by another figure, 0 outside of the image.
        """
        places = np.floor(self.points).astype(int)
        size = len(self.image)
        inside = ((places >= 0) & (places < size)).all(-1)
        columns, rows = np.moveaxis(places.clip(0, size - 1), -1, 0)
        shown = self.masks[np.arange(len(self.masks))[:, None], rows, columns]
        return np.where(inside, np.where(shown, 2, 1), 0)


def draw_figures(photograph: Image.Image, size: int, rng: np.random.Generator) -> Figures:
    """Draws up to three figures on a part of a photograph, later ones over earlier ones.

    A figure is left out if too little of it or of another figure would be visible.

    Args:
        photograph: An RGB image.
        size: Side of the result in pixels; figures are 0.45 to 0.8 of it high.
        rng: Random generator.
    """
    image = crop_photograph(photograph, size, rng)
    masks: list[NDArray[np.bool_]] = []
    points: list[NDArray[np.float64]] = []
    areas: list[float] = []
    for _ in range(rng.integers(1, 4)):
        height = size * rng.uniform(0.45, 0.8)
        pose = _pose(rng) * height + rng.uniform((0.2, 0.4), (0.8, 0.6)) * size
        coverage, area = _rasterise(pose, height * rng.uniform(0.07, 0.1), size)
        mask = coverage >= 0.5
        remaining, whole = [*(earlier & ~mask for earlier in masks), mask], [*areas, area]
        if any(m.sum() < MIN_VISIBLE * a for m, a in zip(remaining, whole, strict=True)):
            continue
        image = paint(image, coverage, mask, rng)
        masks, points, areas = remaining, [*points, pose], whole
    return Figures(
        image.round().astype(np.uint8),
        np.array(masks, bool).reshape(-1, size, size),
        np.array(points).reshape(-1, len(FIGURE.names), 2),
    )


def _pose(rng: np.random.Generator) -> NDArray[np.float64]:
    """Returns the keypoints (7, 2) of a random pose around the hip, as x and y down.

    A standing figure has a height of about one.
    """
    neck = np.array([0.0, -0.33])
    arms, legs = rng.uniform(0.35, 2.6, 2), rng.uniform(0.15, 0.75, 2)  # from straight down
    sides = np.array([1.0, -1.0])  # left, right
    hands = neck + 0.33 * np.stack([sides * np.sin(arms), np.cos(arms)], 1)
    feet = 0.42 * np.stack([sides * np.sin(legs), np.cos(legs)], 1)
    head = neck + np.array([0.0, -0.15])
    points = np.stack([head, neck, *hands, np.zeros(2), *feet])
    angle = rng.uniform(-0.5, 0.5)
    sine, cosine = math.sin(angle), math.cos(angle)
    return points @ np.array([[cosine, sine], [-sine, cosine]])


def _rasterise(
    points: NDArray[np.float64], thickness: float, size: int
) -> tuple[NDArray[np.float64], float]:
    """Returns the covered fraction of each pixel, (S, S), and the figure's whole area in pixels."""
    margin = size // 2  # figures reach beyond the image by less than this
    fine = Image.new("L", ((size + 2 * margin) * SUPERSAMPLING,) * 2)
    draw = ImageDraw.Draw(fine)
    places, width = (points + margin) * SUPERSAMPLING, thickness * SUPERSAMPLING
    for start, end in FIGURE.skeleton:
        draw.line([*places[start], *places[end]], fill=255, width=round(width))
    radii = [1.2 * width, *[width / 2] * (len(points) - 1)]  # the head is wider than the limbs
    for (x, y), radius in zip(places.tolist(), radii, strict=True):
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)
    whole = np.asarray(fine.reduce(SUPERSAMPLING)) / 255
    inner = slice(margin, margin + size)
    return whole[inner, inner], float(whole.sum())


def draw_part(
    photographs: list[Image.Image], part: str, count: int, size: int, seed: int
) -> Iterator[Figures]:
    """Yields the images of a part; each depends on (seed, part, number) and a photograph."""
    stream = list(PHOTOGRAPHS).index(part)
    for number in range(count):
        rng = np.random.default_rng((seed, stream, number))
        yield draw_figures(photographs[number % len(photographs)], size, rng)


def coco_annotations(drawn: list[Figures], names: list[str]) -> dict[str, Any]:
    """Returns images in COCO's format, with masks as uncompressed run lengths and keypoints.

    Args:
        drawn: The images with their figures.
        names: The file name of each image.
    """
    images = coco_images([one.image for one in drawn], names)
    annotations: list[dict[str, Any]] = []
    for image, one in zip(images, drawn, strict=True):
        for mask, places, seen in zip(one.masks, one.points, one.visibilities(), strict=True):
            own = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": 1}
            points = np.where(seen[:, None] > 0, places, 0).round(2)
            values = np.column_stack([points, seen]).ravel().tolist()
            known = {"keypoints": values, "num_keypoints": int((seen > 0).sum())}
            annotations.append({**own, **coco_shape(mask), **known})
    categories = [{"id": 1, "name": NAME, **FIGURE.to_category()}]
    return {"images": images, "categories": categories, "annotations": annotations}


def write_figures(
    out: Path, images: int = 1000, size: int = 160, seed: int = 0, val_fraction: float = 0.2
) -> None:
    """Writes the data set into a new folder; see `spanets.detection.shapes.write_shapes`.

    Raises:
        UsageError: the folder exists, or a part would have no image.
        UserError: the photographs are missing.
    """
    with new_parts(out, images, size, val_fraction) as (aside, counts):
        for part, count in counts.items():
            folder = aside / "images" / part
            folder.mkdir(parents=True)
            drawn = draw_part(load_photographs(part), part, count, size, seed)
            drawn_all = list(progress(drawn, part, total=count))
            names = [f"{number:05}.png" for number in range(count)]
            for one, name in zip(drawn_all, names, strict=True):
                Image.fromarray(one.image).save(folder / name)
            (aside / "annotations").mkdir(exist_ok=True)
            text = json.dumps(coco_annotations(drawn_all, names))
            (aside / "annotations" / f"{part}.json").write_text(text)
