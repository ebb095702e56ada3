"""Writes the page of a detector's mistakes, and a table of all its detections."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from spanets.detection.matching import KINDS, Match
from spanets.formats.coco.objects import CocoData, to_xywh
from spanets.training.mistakes import (
    MARK,
    PAGE,
    check_folder,
    first_bytes,
    name_images,
    write_table,
)
from spanets_runtime.errors import UserError
from spanets_runtime.html import Page, html_table, to_html
from spanets_runtime.images import load_image

TABLE = "detections.csv"

HEADER = (
    *("image", "label", "score", "x", "y", "width", "height"),
    *("kind", "annotation", "truth", "iou"),
)

SHOWN, CONFUSIONS = 24, 10
"""Largest number of pictures of a kind, and of rows of confused classes."""

_SIDE = 160  # of a picture, in pixels
_MARGIN = 0.4  # around the boxes of a picture, as a share of their longer side
_FOUND, _TRUTH = "#d55e00", "#00a060"


def check_errors(out: Path) -> None:
    """Checks before the evaluation that the files can be written.

    Raises:
        UserError: they cannot, or another file is in the way.
    """
    check_folder(out, {PAGE: MARK, TABLE: first_bytes(HEADER)})


def save_errors(
    out: Path,
    data: CocoData,
    matches: Sequence[Match],
    counted: Sequence[Match],
    results: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes the page and the table.

    Args:
        out: The folder.
        data: The ground truth.
        matches: All detections.
        counted: Those above the threshold, and the objects that they miss.
        results: The results of `evaluate`.

    Returns:
        The paths, by "page" and "table".

    Raises:
        UserError: a file cannot be written.
    """
    images = name_images([image.path for image in data.images], None)
    names = {image.id: name for image, name in zip(data.images, images, strict=True)}
    missed = [one for one in counted if one.kind == "missed"]
    rows = (_row(one, names[one.image.id], data.classes) for one in (*matches, *missed))
    write_table(out / TABLE, HEADER, rows)
    page = Page(MARK, _SIDE)
    body = [*_head(data, counted, results), *_pictures(page, data, counted, names)]
    page.write(out / PAGE, f"Mistakes of {results['checkpoint']}", body)
    return {"page": str(out / PAGE), "table": str(out / TABLE)}


def _row(one: Match, name: str, classes: Sequence[str]) -> list[object]:
    truth = [None, None] if one.truth is None else [one.truth.id, classes[one.truth.label - 1]]
    label = classes[one.label - 1]
    return [name, label, one.score, *map(float, one.box), one.kind, *truth, one.iou]


def _head(data: CocoData, counted: Sequence[Match], results: Mapping[str, Any]) -> Iterator[str]:
    counts, metrics = results["mistakes"], results["metrics"]
    shown = {name: "undefined" if v is None else f"{v:.3f}" for name, v in metrics.items()}
    yield (
        f"<p>{results['images']} images of {to_html(results['data'])}: box AP {shown['box_ap']}, "
        f"AP50 {shown['box_ap50']}. Counted are detections with a score of at least "
        f"{counts['score']:.4f}; {counts['correct']} of them are correct. IoU is that of boxes. "
        f"{TABLE} lists all detections, and the missed objects.</p>"
    )
    if "tta" in results:
        yield f"<p>{to_html(results['tta'])}</p>"
    rows = [(kind, counts[kind], meaning) for kind, meaning in KINDS.items()]
    yield html_table(("kind", "count", "meaning"), rows)
    pairs = Counter(
        (one.truth.label, one.label)
        for one in counted
        if one.kind == "classification" and one.truth is not None
    )
    if pairs:
        yield "<h2>The most frequent confusions</h2>"
        named = [
            (data.classes[truth - 1], data.classes[label - 1], count)
            for (truth, label), count in pairs.most_common(CONFUSIONS)
        ]
        yield html_table(("truth", "taken for", "objects"), named)


def _pictures(
    page: Page, data: CocoData, counted: Sequence[Match], names: Mapping[int, str]
) -> Iterator[str]:
    """Yields the most confident detections of each kind, and the largest missed objects."""
    yield "<p>Orange: the detection. Green: the object.</p>"
    load = lru_cache(maxsize=4)(_load)  # a picture often follows another one of the same image
    for kind in KINDS:
        found = [one for one in counted if one.kind == kind]
        found.sort(key=lambda one: -one.box[2] * one.box[3] if kind == "missed" else -_score(one))
        chosen = found[:SHOWN]
        order = "largest" if kind == "missed" else "most confident"
        yield f"<h2>{kind}: the {order} ({len(chosen)} of {len(found)})</h2>"
        yield from (_figure(page, data.classes, one, names[one.image.id], load) for one in chosen)


def _score(one: Match) -> float:
    return one.score or 0.0


def _load(path: Path) -> Image.Image | None:
    try:
        return load_image(path)
    except UserError:
        return None


def _figure(page: Page, classes: Sequence[str], one: Match, name: str, load: Any) -> str:
    lines = [to_html(name.rsplit("/", 1)[-1])]
    if one.truth is not None:
        truth = to_html(classes[one.truth.label - 1])
        lines.append(f'<span class="right">{truth}</span> (annotation {one.truth.id})')
    if one.score is not None:
        overlap = "" if one.iou is None else f", IoU {one.iou:.2f}"
        label = to_html(classes[one.label - 1])
        lines.append(f'<span class="wrong">&rarr; {label} ({one.score:.3f}{overlap})</span>')
    image = load(one.image.path)
    return page.figure(None if image is None else draw_match(image, one), lines, name)


def draw_match(image: Image.Image, one: Match) -> Image.Image:
    """Returns the part of an image around a match, with its boxes drawn."""
    boxes = [] if one.truth is None else [(to_xywh(one.truth.box), _TRUTH)]
    boxes += [] if one.score is None else [(list(one.box), _FOUND)]
    corners = [(x, y, x + w, y + h) for (x, y, w, h), _ in boxes]
    left, top = (min(box[i] for box in corners) for i in (0, 1))
    right, bottom = (max(box[i] for box in corners) for i in (2, 3))
    margin = max(8.0, _MARGIN * max(right - left, bottom - top))
    left, top = int(max(0, left - margin)), int(max(0, top - margin))
    right, bottom = min(image.width, right + margin), min(image.height, bottom + margin)
    crop = image.crop((left, top, max(left + 1, int(right)), max(top + 1, int(bottom))))
    scale = _SIDE / max(crop.size)  # drawn at the size of the picture, for lines of equal width
    size = tuple(max(1, round(side * scale)) for side in crop.size)
    picture = crop.resize(size)  # type: ignore[arg-type]
    draw = ImageDraw.Draw(picture)
    for (_, colour), (x1, y1, x2, y2) in zip(boxes, corners, strict=True):
        places = [(x1 - left), (y1 - top), (x2 - left), (y2 - top)]
        draw.rectangle([place * scale for place in places], outline=colour, width=2)
    return picture
