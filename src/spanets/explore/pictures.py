"""Turns maps into pictures, and puts pictures on sheets; fast enough for a slider."""

from collections.abc import Mapping
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from spanets_runtime.figures import add_fonts, name_label
from spanets_runtime.fonts import font_for, picture_label

TILE = 132
"""Side of a picture on a sheet, in pixels."""

_LINE, _GAP = 15, 6

_DRAWING = Lock()  # one thread at a time changes a figure that is kept


@lru_cache(maxsize=8)
def _colours(name: str) -> NDArray[np.uint8]:
    import matplotlib

    return (matplotlib.colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255).astype(np.uint8)


def colour(
    values: NDArray[Any],
    low: float | None = None,
    high: float | None = None,
    name: str = "viridis",
    side: int = TILE,
) -> Image.Image:
    """Returns a map (H, W) in colours, each value a square block of pixels.

    Args:
        values: The map.
        low: Value of the first colour; None means the smallest.
        high: Value of the last colour; None means the largest.
        name: matplotlib's colour map.
        side: Longest side of the picture, in pixels; it is resized without smoothing.
    """
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    share = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    picture = Image.fromarray(_colours(name)[(share * 255).round().astype(np.uint8)])
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.NEAREST)


def heat(pixels: NDArray[Any], values: NDArray[Any], side: int = TILE) -> Image.Image:
    """Returns a map from 0 to 1 in colours over the gray image.

    Args:
        pixels: The image (H, W, 3), from 0 to 1.
        values: The map (H, W).
        side: Side of the picture, in pixels.
    """
    gray = to_image(pixels).convert("L").convert("RGB")
    colours = Image.fromarray(_colours("jet")[(np.clip(values, 0, 1) * 255).astype(np.uint8)])
    return Image.blend(gray, colours, 0.5).resize((side, side), Image.Resampling.BILINEAR)


def to_image(pixels: NDArray[Any]) -> Image.Image:
    """Returns pixels (H, W, 3) as an image; values beyond 0 and 1 are clipped."""
    return Image.fromarray((np.clip(pixels, 0, 1) * 255).round().astype(np.uint8))


def to_unit(values: NDArray[Any]) -> NDArray[Any]:
    """Scales a map to 0..1; a constant one becomes 0."""
    span = values.max() - values.min()
    return (values - values.min()) / span if span > 0 else np.zeros_like(values)


def sheet(cells: Mapping[str, Image.Image], columns: int, side: int = TILE) -> Image.Image:
    """Puts pictures on a white sheet, with their titles of one or more lines above them."""
    lines = max(title.count("\n") + 1 for title in cells)
    columns = min(columns, len(cells))
    wide, high = side + _GAP, side + lines * _LINE + _GAP
    rows = -(-len(cells) // columns)
    result = Image.new("RGB", (columns * wide + _GAP, rows * high + _GAP), "white")
    draw = ImageDraw.Draw(result)
    for number, (title, picture) in enumerate(cells.items()):
        x, y = _GAP + number % columns * wide, _GAP + number // columns * high
        for place, line in enumerate(title.split("\n")):
            text = picture_label(line, side // 6)
            draw.text((x, y + place * _LINE), text, "black", font_for(text, 11))
        fitted = picture.copy()
        fitted.thumbnail((side, side))
        result.paste(fitted, (x, y + lines * _LINE))
    return result


def curves(
    lines: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
    x: str,
    y: str,
    limits: tuple[float, float] | None = None,
) -> Image.Image:
    """Draws curves, from shallow to deep in the order of the colours.

    Args:
        lines: Positions and values of each curve, by name.
        x: Label of the horizontal axis.
        y: Label of the vertical axis.
        limits: Limits of the vertical axis.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with _DRAWING:
        figure = _empty_plot(tuple(lines), x, y, limits)
        (axes,) = figure.axes
        for line, (places, values) in zip(axes.lines, lines.values(), strict=True):
            line.set_data(places, values)
        axes.relim()
        axes.autoscale_view()
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


@lru_cache(maxsize=8)
def _empty_plot(names: tuple[str, ...], x: str, y: str, limits: tuple[float, float] | None) -> Any:
    # Kept, since making axes and texts takes longer than drawing them.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), dpi=100)
    axes = figure.add_axes((0.11, 0.15, 0.86 if len(names) == 1 else 0.65, 0.8))
    for number, name in enumerate(names):
        shade = _colours("viridis")[round(230 * number / max(1, len(names) - 1))] / 255
        axes.plot([], [], color=shade, label=name_label(name, 30))
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.grid(alpha=0.3)
    axes.locator_params(nbins=6)
    if limits is not None:
        axes.set_ylim(*limits)
    if len(names) > 1:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    add_fonts(figure)
    return figure
