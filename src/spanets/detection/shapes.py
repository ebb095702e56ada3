"""Generates a data set of shapes on photographs, in COCO's format and as images with masks.

The photographs come with the pip package scikit-image, which lists each of those used here as CC0
or public domain, so the data set may be shown and shared freely. Training and validation use
different photographs.

root/images/train/00000.png      8-bit RGB
root/masks/train/00000.png       class of each pixel: 0 is background, 1 the first of `CLASSES`
root/annotations/train.json      COCO's instances; category ids as in the masks
    root/classes.txt                 the masks' classes, background first
    root/images/val/…                likewise
"""

import importlib.util
import json
import math
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from spanets.formats.coco.rle import encode_runs
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.images import load_image
from spanets_runtime.progress import progress

CLASSES = ("circle", "square", "triangle", "star")

PHOTOGRAPHS = {
    "train": (
        *("astronaut.png", "brick.png", "chelsea.png", "grass.png", "gravel.png"),
        *("hubble_deep_field.jpg", "text.png"),
    ),
    "val": ("camera.png", "coffee.png", "rocket.jpg"),
}

# Colours of background and classes in the mask files, for image viewers.
PALETTE = (0, 0, 0, 230, 60, 60, 60, 120, 230, 70, 180, 80, 240, 190, 40)

# Smallest visible fraction of a shape, because less is hard to recognise.
MIN_VISIBLE = 0.4

SUPERSAMPLING = 4


@dataclass(frozen=True)
class Scene:
    """An image with the shapes on it.

    Attributes:
        image: (S, S, 3), uint8.
        labels: The class of each shape, an index into `CLASSES`.
        masks: (N, S, S), bool: the visible part of each shape, without overlaps.
    """

    image: NDArray[np.uint8]
    labels: list[int]
    masks: NDArray[np.bool_]

    def class_map(self) -> NDArray[np.uint8]:
        """Returns the class of each pixel, (S, S), 0 for the background."""
        classes = np.zeros(self.image.shape[:2], np.uint8)
        for label, mask in zip(self.labels, self.masks, strict=True):
            classes[mask] = label + 1
        return classes


def draw_scene(photograph: Image.Image, size: int, rng: np.random.Generator) -> Scene:
    """Draws up to five shapes on a part of a photograph, later ones over earlier ones.

    A shape is left out if too little of it or of another shape would be visible.

    Args:
        photograph: An RGB image.
        size: Side of the result in pixels; shapes are 0.2 to 0.5 of it across.
        rng: Random generator.
    """
    image = crop_photograph(photograph, size, rng)
    labels: list[int] = []
    masks: list[NDArray[np.bool_]] = []
    areas: list[float] = []
    for _ in range(rng.integers(2, 6)):
        label = int(rng.integers(len(CLASSES)))
        corners = _place(CLASSES[label], size, rng)
        coverage = _rasterise(corners, size)
        mask = coverage >= 0.5
        remaining = [*(earlier & ~mask for earlier in masks), mask]
        whole = [*areas, _polygon_area(corners)]
        if any(m.sum() < MIN_VISIBLE * a for m, a in zip(remaining, whole, strict=True)):
            continue
        image = paint(image, coverage, mask, rng)
        labels, masks, areas = [*labels, label], remaining, whole
    return Scene(
        image.round().astype(np.uint8), labels, np.array(masks, bool).reshape(-1, size, size)
    )


def crop_photograph(
    photograph: Image.Image, size: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Crops a random square, from a seventh to all of the short side, and resizes and turns it.

    Small crops are smooth when enlarged, like skies and walls, which few of the photographs show.
    """
    width, height = photograph.size
    side = int(min(width, height) * math.exp(rng.uniform(math.log(1 / 7), 0)))
    left, top = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
    box = (left, top, left + side, top + side)
    resized = photograph.resize((size, size), Image.Resampling.BILINEAR, box=box)
    turned = np.rot90(np.asarray(resized), int(rng.integers(4)))
    tint = rng.uniform(0.6, 1.1, 3)  # most of the photographs are gray
    return np.clip(turned * tint, 0, 255)


def _place(kind: str, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Returns the corners (n, 2) of a shape of random size, angle and place, as x and y."""
    radius = size * math.exp(rng.uniform(math.log(0.1), math.log(0.25)))
    centre = rng.uniform(0.3 * radius, size - 0.3 * radius, 2)
    return centre + radius * _unit_outline(kind, rng.uniform(0, 2 * math.pi))


def _unit_outline(kind: str, angle: float) -> NDArray[np.float64]:
    """Returns the corners (n, 2) of a shape in the unit circle."""
    count = {"circle": 64, "square": 4, "triangle": 3, "star": 10}[kind]
    angles = angle + np.arange(count) * (2 * math.pi / count)
    radii = np.where(np.arange(count) % 2, 0.45, 1.0) if kind == "star" else np.ones(count)
    return radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _rasterise(corners: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Returns the covered fraction of each pixel, (S, S)."""
    fine = Image.new("L", (size * SUPERSAMPLING,) * 2)
    points = [(float(x), float(y)) for x, y in corners * SUPERSAMPLING - 0.5]
    ImageDraw.Draw(fine).polygon(points, fill=255)
    return np.asarray(fine.reduce(SUPERSAMPLING)) / 255


def paint(
    image: NDArray[np.float64],
    coverage: NDArray[np.float64],
    mask: NDArray[np.bool_],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Paints a shaded colour with noise over an image (S, S, 3)."""
    size = len(image)
    colour = _contrasting_colour(image[mask].mean(axis=0), rng)
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[:size, :size] / size - 0.5
    shade = 1 + rng.uniform(0, 0.8) * (x * math.cos(angle) + y * math.sin(angle))
    grain = rng.normal(0, 6, (size, size, 1))
    painted = np.clip(colour * shade[..., None] + grain, 0, 255)
    return image + coverage[..., None] * (painted - image)


def _contrasting_colour(ground: NDArray[np.float64], rng: np.random.Generator) -> Any:
    """Returns a random RGB colour that differs clearly from the mean colour below it."""
    while True:
        colour = rng.uniform(20, 235, 3)
        if np.abs(colour - ground).max() > 80:
            return colour


def _polygon_area(corners: NDArray[np.float64]) -> float:
    x, y = corners.T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def draw_part(
    photographs: list[Image.Image], part: str, count: int, size: int, seed: int
) -> Iterator[Scene]:
    """Yields the scenes of a part; each depends on (seed, part, number) and a photograph."""
    stream = list(PHOTOGRAPHS).index(part)
    for number in range(count):
        rng = np.random.default_rng((seed, stream, number))
        yield draw_scene(photographs[number % len(photographs)], size, rng)


def coco_annotations(scenes: list[Scene], names: list[str]) -> dict[str, Any]:
    """Returns scenes in COCO's format, masks as uncompressed run lengths.

    Args:
        scenes: The scenes, one per image.
        names: The file name of each image.
    """
    images = coco_images([scene.image for scene in scenes], names)
    annotations: list[dict[str, Any]] = []
    for image, scene in zip(images, scenes, strict=True):
        for label, mask in zip(scene.labels, scene.masks, strict=True):
            own = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": label + 1}
            annotations.append({**own, **coco_shape(mask)})
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)]
    return {"images": images, "categories": categories, "annotations": annotations}


def coco_images(images: Iterable[NDArray[np.uint8]], names: list[str]) -> list[dict[str, Any]]:
    """Returns COCO's entries of images (H, W, 3) with these file names, numbered from 1."""
    return [
        {"id": number, "file_name": name, "width": image.shape[1], "height": image.shape[0]}
        for number, (image, name) in enumerate(zip(images, names, strict=True), start=1)
    ]


def coco_shape(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Returns an annotation's box, area and run lengths of a mask (H, W) with at least a pixel."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return {
        "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": {"size": list(mask.shape), "counts": encode_runs(mask)},
    }


def load_photographs(part: str) -> list[Image.Image]:
    """Decodes the photographs of "train" or "val" from the installed scikit-image.

    Raises:
        UserError: the package is not installed, or its images are missing or damaged.
    """
    spec = importlib.util.find_spec("skimage")  # found, not imported: only its files are used
    if spec is None or not spec.submodule_search_locations:
        raise UserError("scikit-image's photographs are missing; run: pip install 'spanets[demo]'")
    folder = Path(spec.submodule_search_locations[0], "data")
    return [load_image(folder / name) for name in PHOTOGRAPHS[part]]


def write_shapes(
    out: Path, images: int = 300, size: int = 160, seed: int = 0, val_fraction: float = 0.2
) -> None:
    """Writes the data set into a new folder; the same arguments give the same bytes.

    Args:
        out: The folder, which is created when all files are written.
        images: Number of images in both parts.
        size: Side of an image in pixels.
        seed: Random seed.
        val_fraction: Fraction of the images in "val".

    Raises:
        UsageError: the folder exists, or a part would have no image.
        UserError: see `load_photographs`.
    """
    with new_parts(out, images, size, val_fraction) as (aside, counts):
        for part, count in counts.items():
            scenes = draw_part(load_photographs(part), part, count, size, seed)
            _write_part(aside, part, progress(scenes, part, total=count))
        (aside / "classes.txt").write_text("\n".join(("background", *CLASSES)) + "\n")


@contextmanager
def new_parts(
    out: Path, images: int, size: int, val_fraction: float
) -> Iterator[tuple[Path, dict[str, int]]]:
    """Yields a folder to write and the images by part; it becomes `out` when the block ends.

    Args: See `write_shapes`.

    Raises:
        UsageError: the folder exists, or a part would have no image.
    """
    counts = {"val": round(images * val_fraction)}
    counts = {"train": images - counts["val"], **counts}
    if min(counts.values()) < 1 or size < 32:
        raise UsageError(f"{images} images of {size} pixels: ask for 5 or more, of 32 or more")
    if out.exists():
        raise UsageError(f"{out}: exists already; name a new folder, or remove it")
    aside = out.with_name(f".{out.name}.{token_hex(4)}.part")  # two calls may run at once
    try:
        yield aside, counts
        aside.replace(out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _write_part(root: Path, part: str, scenes: Iterable[Scene]) -> None:
    folders = [root / "images" / part, root / "masks" / part, root / "annotations"]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    drawn: list[Scene] = []
    for number, scene in enumerate(scenes):
        Image.fromarray(scene.image).save(folders[0] / f"{number:05}.png")
        classes = Image.fromarray(scene.class_map())
        classes.putpalette(PALETTE)  # mode "P": class numbers with colours
        classes.save(folders[1] / f"{number:05}.png")
        drawn.append(scene)
    names = [f"{number:05}.png" for number in range(len(drawn))]
    text = json.dumps(coco_annotations(drawn, names))
    (folders[2] / f"{part}.json").write_text(text)
