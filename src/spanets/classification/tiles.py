"""Classifies a large image tile by tile: a table of the tiles, and a picture of their labels."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from spanets.classification.predict import Predictor
from spanets.training.mistakes import check_folder, first_bytes, write_table
from spanets_runtime.arrays import to_picture
from spanets_runtime.fonts import font_for, picture_label
from spanets_runtime.listing import ImageSource
from spanets_runtime.masks import class_colours
from spanets_runtime.pictures import check_outputs, name_outputs, save_picture
from spanets_runtime.predict import Prediction, check_answer, predict_each
from spanets_runtime.preprocessing import Pixels, cut, size_of
from spanets_runtime.windows import Box, Tiling

TABLE = "tiles.csv"

HEADER = ("image", "row", "column", "x", "y", "width", "height", "label", "probability")

_SIDE = 1600  # longest side of a picture, in pixels
_LETTERS = 24  # of a name in a picture


@dataclass(frozen=True)
class TiledPrediction(Prediction):
    """The classes of an image's tiles.

    Attributes:
        image, error, was_read: See `ImagePrediction`.
        labels: Class names with their mean probability over the tiles.
        tiles: For each tile, "x", "y", "width" and "height" in pixels, "row" and "column", and
            "predictions" as for an image.
        picture: Path of the picture of the labels, if one was written.
    """

    tiles: list[dict[str, Any]] = field(default_factory=list)
    picture: str | None = None

    def __str__(self) -> str:
        """Returns a line for people: how many tiles have which label."""
        counts = Counter(tile["predictions"][0]["label"] for tile in self.tiles)
        shown = "  ".join(f"{name} {count}" for name, count in counts.most_common())
        picture = f"{self.picture}  " if self.picture else ""
        return f"{self.image}: {picture}{len(self.tiles)} tiles: {shown}"

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for machines."""
        picture = {"picture": self.picture} if self.picture else {}
        tiles = {} if self.error is not None else {"tiles": self.tiles}
        return {**super().to_dict(), **picture, **tiles}


def predict_tiles(
    predictor: Predictor,
    tiling: Tiling,
    images: Iterable[ImageSource],
    top: int = 5,
    out: Path | None = None,
) -> Iterator[TiledPrediction]:
    """Yields the classes of the tiles of each image; for an unreadable one, it carries the error.

    Args:
        predictor: A classifier.
        tiling: The tiles.
        images: Image paths.
        top: Number of classes for each tile and image.
        out: A folder for `TABLE` and for NAME-tiles.jpg of each image, or None.

    Raises:
        UserError: the folder cannot be written, or a file would be overwritten.
    """
    chosen = list(predictor.preprocess.choose(images))
    names = [f"{name}-tiles.jpg" for name in name_outputs(chosen)]
    if out is not None:
        check_folder(out, {TABLE: first_bytes(HEADER)}, option="--out")
        check_outputs(chosen, [out / name for name in names])
    places = iter(names)
    classes = predictor.info.classes
    rows: list[list[object]] = []

    def predict(path: ImageSource) -> TiledPrediction:
        name = next(places)  # also for an unreadable image, to stay in step
        image = predictor.preprocess.read(path)
        boxes = tiling.tiles(*size_of(image))
        shares = np.stack([_shares(predictor, cut(image, box)) for box in boxes])
        found = TiledPrediction(
            str(path),
            _highest(shares.mean(0), classes, top),
            _describe(boxes, shares, classes, top),
        )
        if out is None:
            return found
        shown = image if isinstance(image, Image.Image) else to_picture(image)
        picture = draw_tiles(shown, tiling.cells(*shown.size), shares, classes)
        save_picture(picture, out / name)
        rows.extend(_row(str(path), tile) for tile in found.tiles)
        return TiledPrediction(str(path), found.labels, found.tiles, str(out / name))

    try:
        yield from predict_each(chosen, predict, TiledPrediction)
    finally:  # if an image fails, keep the results of the others
        if out is not None:
            write_table(out / TABLE, HEADER, rows)


def _shares(predictor: Predictor, image: Pixels) -> NDArray[np.float64]:
    logits = predictor.run(image).astype(np.float64)
    check_answer(bool(np.isfinite(logits).all()))
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


def _highest(
    shares: NDArray[np.float64], classes: Sequence[str], top: int
) -> list[tuple[str, float]]:
    order = np.argsort(-shares, kind="stable")[:top]
    return [(classes[i], float(shares[i])) for i in order]


def _describe(
    boxes: Sequence[Box], shares: NDArray[np.float64], classes: Sequence[str], top: int
) -> list[dict[str, Any]]:
    columns = len({left for left, *_ in boxes})
    tiles = []
    for i, ((left, top_, right, bottom), row) in enumerate(zip(boxes, shares, strict=True)):
        place = {"row": i // columns, "column": i % columns, "x": left, "y": top_}
        labels = [{"label": n, "probability": p} for n, p in _highest(row, classes, top)]
        size = {"width": right - left, "height": bottom - top_}
        tiles.append({**place, **size, "predictions": labels})
    return tiles


def _row(image: str, tile: dict[str, Any]) -> list[object]:
    best = tile["predictions"][0]
    numbers = [tile[name] for name in HEADER[1:7]]
    return [image, *numbers, best["label"], best["probability"]]


def draw_tiles(
    image: Image.Image, cells: Sequence[Box], shares: NDArray[np.float64], classes: Sequence[str]
) -> Image.Image:
    """Returns the image in gray, with colour and name of the most likely class of each tile.

    Args:
        image: An RGB image.
        cells: The parts of the image that stand for the tiles.
        shares: Probabilities (tiles, classes).
        classes: Class names.
    """
    gray = image.convert("L").convert("RGB")
    gray.thumbnail((_SIDE, _SIDE))
    scale, colours = gray.width / image.width, class_colours(len(classes)).tolist()
    colour = gray.copy()
    painter, best = ImageDraw.Draw(colour), shares.argmax(1).tolist()
    places = [tuple(round(side * scale) for side in cell) for cell in cells]
    for (left, top, right, bottom), i in zip(places, best, strict=True):
        painter.rectangle((left, top, right - 1, bottom - 1), tuple(colours[i]), "white")
    shown = Image.blend(gray, colour, 0.5)
    painter = ImageDraw.Draw(shown)
    for (left, top, *_), i, row in zip(places, best, shares, strict=True):
        word = f"{picture_label(classes[i], _LETTERS)} {row[i]:.2f}"
        font, place = font_for(word), (left + 3, top + 2)
        painter.rectangle(painter.textbbox(place, word, font), "white")
        painter.text(place, word, "black", font)
    return shown
