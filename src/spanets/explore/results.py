"""What a panel gives: pictures, answers, and the numbers behind them, as JSON or CSV."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spanets.training.mistakes import check_folder
from spanets_runtime.files import write_atomically
from spanets_runtime.pictures import check_outputs, save_picture
from spanets_runtime.text import escape_controls

NUMBERS = {"numbers.json": b'{\n "command": ', "numbers.csv": b"plot,name,x,y,value"}
"""Files of numbers, with the first bytes that show that they are ours."""

Axis = Sequence[float] | Sequence[str]


@dataclass(frozen=True)
class Series:
    """The numbers of one curve or picture.

    Attributes:
        plot: Name of the plot, with the unit of its values.
        name: Name of the curve or picture in it.
        x: Position of each value, or of each column; words where the values are by name.
        values: Values (P,), or a picture's (R, P).
        y: Position of each row of a picture.
    """

    plot: str
    name: str
    x: Axis
    values: NDArray[Any]
    y: Axis | None = None


@dataclass(frozen=True)
class Shown:
    """The result of a panel.

    Attributes:
        pictures: Pictures, by title.
        answers: What a model says of an image, by title: values by label, largest first.
        series: The numbers of all pictures and answers.
        notes: Lines about what was left out or has no meaning here.
    """

    pictures: dict[str, Image.Image] = field(default_factory=dict)
    answers: dict[str, dict[str, float]] = field(default_factory=dict)
    series: tuple[Series, ...] = ()
    notes: tuple[str, ...] = ()


def join(parts: Sequence[Shown]) -> Shown:
    """Returns the pictures, answers, numbers and notes of several parts of a panel together."""
    pictures = {title: picture for part in parts for title, picture in part.pictures.items()}
    answers = {title: rows for part in parts for title, rows in part.answers.items()}
    series = tuple(one for part in parts for one in part.series)
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return Shown(pictures, answers, series, notes)


def answer_series(answers: Mapping[str, Mapping[str, float]]) -> tuple[Series, ...]:
    """Returns answers as series."""
    return tuple(
        Series("answer", title, list(row), np.array([*row.values()], dtype=float))
        for title, row in answers.items()
    )


def map_series(plot: str, maps: Mapping[str, NDArray[Any]]) -> tuple[Series, ...]:
    """Returns pictures of maps (H, W) as series; positions count from 0, from the upper left."""
    return tuple(
        Series(plot, name, [*range(values.shape[1])], values, [*range(values.shape[0])])
        for name, values in maps.items()
    )


def spectrum_series(plot: str, maps: Mapping[str, NDArray[Any]]) -> tuple[Series, ...]:
    """Returns centred spectra (H, W) as series; positions are frequencies in bins."""
    found = []
    for name, values in maps.items():
        y, x = ([i - side // 2 for i in range(side)] for side in values.shape)
        found.append(Series(plot, name, x, values, y))
    return tuple(found)


def to_json(shown: Shown, command: str) -> str:
    """Returns the numbers as JSON, with the command that computes the same."""
    plots: dict[str, dict[str, Any]] = {}
    for one in shown.series:
        row = {"x": list(one.x), "values": _plain(one.values)}
        plots.setdefault(one.plot, {})[one.name] = row if one.y is None else {**row, "y": one.y}
    content = {"command": command, "notes": shown.notes, "plots": plots}
    return json.dumps(content, indent=1, allow_nan=False)


def to_csv(shown: Shown) -> str:
    """Returns the numbers as CSV: a row for each value, with plot, name, x and y."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["plot", "name", "x", "y", "value"])
    for one in shown.series:
        for x, y, value in _points(one):
            writer.writerow([one.plot, _cell(one.name), _cell(x), y, value])
    return buffer.getvalue()


def _points(one: Series) -> list[tuple[Any, Any, Any]]:
    values = _plain(one.values)
    if one.y is None:
        return [(x, "", value) for x, value in zip(one.x, values, strict=True)]
    return [
        (x, y, value)
        for y, row in zip(one.y, values, strict=True)
        for x, value in zip(one.x, row, strict=True)
    ]


def _cell(value: Any) -> Any:
    """Returns a text that no spreadsheet takes for a formula."""
    if not isinstance(value, str):
        return value
    text = escape_controls(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _plain(values: NDArray[Any]) -> Any:
    """Returns nested lists, rounded to seven digits; what is not finite becomes None."""
    if values.ndim > 1:
        return [_plain(row) for row in values]
    return [float(f"{v:.7g}") if math.isfinite(v) else None for v in values.tolist()]


def check_numbers(folder: Path) -> None:
    """Checks before the work that `save` can write its numbers.

    Raises:
        UserError: the folder cannot be written, or another file is in the way.
    """
    check_folder(folder, NUMBERS, option="--out")


def save(shown: Shown, folder: Path, command: str) -> list[Path]:
    """Writes the pictures as PNG, and the numbers as numbers.json and numbers.csv.

    Raises:
        UserError: the folder cannot be written, or a file exists and is not ours.
    """
    check_numbers(folder)
    pictures = {folder / f"{_file_name(title)}.png": p for title, p in shown.pictures.items()}
    check_outputs([], pictures)
    for path, picture in pictures.items():
        save_picture(picture, path)
    texts = (to_json(shown, command), to_csv(shown))
    for name, text in zip(NUMBERS, texts, strict=True):
        write_atomically(folder / name, partial(_write, text=text))
    return [*pictures, *(folder / name for name in NUMBERS)]


def _write(file: Any, text: str) -> None:
    file.write(text.encode())


def _file_name(title: str) -> str:
    kept = "".join(c if c.isalnum() or c in "._-" else "_" for c in title)
    return kept.strip("._") or "picture"
