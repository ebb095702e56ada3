"""The panel "Compare": models on one folder: accuracy, cost, and where they disagree."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from spanets.analysis.study.inputs import batches, class_labels
from spanets.bench.costs import count_macs
from spanets.explore.pictures import TILE, sheet
from spanets.explore.results import Series, Shown
from spanets.explore.twins import share_tensors
from spanets.explore.workbench import Model, Settings, Workbench, run, tracked
from spanets_runtime.errors import UserError
from spanets_runtime.listing import spread_evenly

MOST_MODELS = 3

MOST_SHOWN = 12
"""Largest number of images in the picture of disagreements."""

_BATCH = 16


@dataclass
class Row:
    """What one model does on the folder.

    Attributes:
        answers: Label and probability, by image.
        labels: Class of each image from its folder, by image; {} without.
        seconds: Time in the network.
        unreadable: Reasons of skipped images.
    """

    answers: dict[Path, tuple[str, float]] = field(default_factory=dict)
    labels: dict[Path, str] = field(default_factory=dict)
    seconds: float = 0.0
    unreadable: dict[Path, str] = field(default_factory=dict)

    @property
    def accuracy(self) -> float | None:
        """Share of right answers, or None without labels."""
        if not self.labels:
            return None
        right = [self.answers[path][0] == self.labels[path] for path in self.answers]
        return sum(right) / len(right)


def compare(bench: Workbench, words: list[str], settings: Settings) -> Shown:
    """Runs two or three models on the folder's images.

    Raises:
        UserError: there is no folder, another number of models, or they are not classifiers.
    """
    if not 2 <= len(set(words)) == len(words) <= MOST_MODELS:
        raise UserError(f"{len(words)} models chosen, must be 2 or {MOST_MODELS} different ones")
    listing = bench.listing
    paths = spread_evenly(listing.images, settings.limit)
    rows = {word: _run(bench, word, paths) for word in words}
    seen = [path for path in paths if all(path in row.answers for row in rows.values())]
    if not seen:
        raise UserError(f"{listing.folder}: no image that all of these models can read")
    apart = [p for p in seen if len({row.answers[p][0] for row in rows.values()}) > 1]
    note = f"{len(apart)} disagreements among {len(seen)} of {len(listing.images)} images"
    notes = [note, *_left_out(rows), *listing.notes()]
    pictures = {"disagreements": _draw(bench, rows, apart)} if apart else {}
    table = {word: _numbers(bench.models[word], row) for word, row in rows.items()}
    keys = list(next(iter(table.values())))
    series = [
        Series(key, "by model", words, np.array([table[word][key] for word in words], dtype=float))
        for key in keys
    ]
    names = [str(path.relative_to(listing.folder)) for path in apart]
    for word, row in rows.items():
        shares = np.array([row.answers[path][1] for path in apart])
        labels = [f"{name}: {row.answers[p][0]}" for name, p in zip(names, apart, strict=True)]
        series.append(Series("probability where they disagree", word, labels, shares))
    return Shown(pictures, {}, tuple(series), tuple(notes))


def _run(bench: Workbench, word: str, paths: list[Path]) -> Row:
    model = bench.image_level(word)
    model.source.require_classifier()
    row, classes = Row(), model.source.info.classes
    found = None if bench.folder is None else class_labels(bench.folder, paths, classes or None)
    if found is not None:
        row.labels = {path: classes[i] for path, i in zip(paths, found, strict=True)}
    given = batches(paths, model.source.preprocess, _BATCH, unreadable=row.unreadable)
    total = -(-len(paths) // _BATCH)
    with model.twins.borrow() as network:
        for numbers, images in tracked(given, total, word):
            start = time.perf_counter()
            outputs = run(network, images)
            row.seconds += time.perf_counter() - start
            values, indices = model.interpret(outputs).max(1)
            names = [classes[i] if classes else f"output {i}" for i in indices.tolist()]
            for number, name, value in zip(numbers, names, values.tolist(), strict=True):
                row.answers[paths[number]] = (name, value)
    return row


def _numbers(model: Model, row: Row) -> dict[str, float]:
    network = model.source.network
    cost = {"parameters (million)": sum(p.numel() for p in network.parameters()) / 1e6}
    if not model.source.exported:
        # On the meta device nothing is computed; the counter watches all modules of this copy.
        bare = share_tensors(network).to("meta")
        side = model.source.preprocess.size
        cost["operations (GMAC)"] = count_macs(bare, side) / 1e9
    cost["time (ms an image, here)"] = 1e3 * row.seconds / len(row.answers)
    right = row.accuracy
    return {"accuracy": float("nan") if right is None else right, **cost}


def _left_out(rows: dict[str, Row]) -> list[str]:
    notes = [
        f"{word}: {len(row.unreadable)} images left out, unreadable"
        for word, row in rows.items()
        if row.unreadable
    ]
    without = [word for word, row in rows.items() if not row.labels]
    if without:
        notes.append(f"{', '.join(without)}: no accuracy, the folders are not its classes")
    return notes


def _draw(bench: Workbench, rows: dict[str, Row], apart: list[Path]) -> Image.Image:
    cells = {}
    some = spread_evenly(apart, MOST_SHOWN)
    preprocess = bench.models[next(iter(rows))].source.preprocess
    for number, path in enumerate(some):
        lines = [f"{number + 1}. {path.parent.name}/{path.name}"]
        lines += [f"{row.answers[path][0]} {row.answers[path][1]:.2f}" for row in rows.values()]
        picture = preprocess.view(path)
        picture.thumbnail((TILE, TILE))
        cells["\n".join(lines)] = picture
    return sheet(cells, 6)
