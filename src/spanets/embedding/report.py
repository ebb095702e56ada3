"""Answers what is asked about embeddings: accuracy, copies, nearest images, with their files."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spanets.embedding.duplicates import (
    Pair,
    check_table,
    find_duplicates,
    save_duplicates,
)
from spanets.embedding.extract import compute_vectors, origin_of
from spanets.embedding.neighbours import measure_knn, nearest
from spanets.embedding.network import EmbeddingNetwork, open_network
from spanets.embedding.probe import measure_probe
from spanets.embedding.vectors import Embeddings
from spanets.sources import Source
from spanets_runtime.errors import UsageError
from spanets_runtime.files import check_place
from spanets_runtime.pictures import check_outputs, identify
from spanets_runtime.sheets import MOST_GROUPS, Cell, save_sheet


@dataclass(frozen=True)
class Questions:
    """What is asked about embeddings.

    Attributes:
        knn: Number of neighbours of the classifier, or None.
        probe: Whether to fit a linear probe.
        duplicates: Lowest cosine of near-duplicates, or None.
        queries: Images whose nearest images are wanted.
        nearest: Number of images for each query.
        beside: File beside which tables and sheets are written, "cells.npz" for
            "cells-duplicates.csv"; None if there is none.
    """

    knn: int | None = None
    probe: bool = False
    duplicates: float | None = None
    queries: Sequence[str] = ()
    nearest: int = 10
    beside: Path | None = None

    def __bool__(self) -> bool:
        """Whether anything is asked."""
        return self.needs_labels or self.duplicates is not None or bool(self.queries)

    @property
    def needs_labels(self) -> bool:
        """Whether the images need classes."""
        return self.knn is not None or self.probe

    def place(self, ending: str) -> Path:
        """Returns the path of a table or sheet."""
        assert self.beside is not None
        return self.beside.with_name(f"{self.beside.stem}-{ending}")

    def check(self, images: Sequence[str | os.PathLike[str]]) -> None:
        """Checks before any work that the answers can be written.

        Args:
            images: Images that will be read; none of them is overwritten.

        Raises:
            UsageError: no place for tables and sheets, or too many queries.
            UserError: a place cannot be written, or belongs to another file.
        """
        if len(self.queries) > MOST_GROUPS:
            raise UsageError(
                f"--query: {len(self.queries)} images are too many for a sheet, at most "
                f"{MOST_GROUPS}"
            )
        if self.duplicates is None and not self.queries:
            return
        if self.beside is None:
            raise UsageError("--duplicates and --query write files beside --out FILE; add --out")
        sheets = []
        if self.duplicates is not None:
            check_table(self.place("duplicates.csv"))
            sheets.append(self.place("duplicates.png"))
        if self.queries:
            sheets.append(self.place("nearest.png"))
        check_outputs([*map(str, images), *self.queries], sheets)
        for sheet in sheets:
            check_place(sheet)


def answer(
    embeddings: Embeddings,
    questions: Questions,
    network: EmbeddingNetwork | Source | str | None = None,
    batch_size: int = 32,
) -> dict[str, Any]:
    """Answers questions about embeddings, and writes tables and sheets.

    Args:
        embeddings: The embeddings.
        questions: What is asked.
        network: Model for the query images; None opens the one that the embeddings name.
        batch_size: Query images at a time.

    Returns:
        "knn" and "probe" as `measure_knn` and `measure_probe` return them, "duplicates", "nearest",
        and "left_out": a line for each picture that cannot be read.

    Raises:
        UserError: the embeddings have no classes to measure, the model is another one, or no
            query image is readable.
    """
    results: dict[str, Any] = {"left_out": []}
    if questions.knn is not None:
        results["knn"] = measure_knn(embeddings, questions.knn)
    if questions.probe:
        results["probe"] = measure_probe(embeddings)
    if questions.duplicates is not None:
        found, errors = report_duplicates(embeddings, questions)
        results["duplicates"] = found
        results["left_out"] += errors
    if questions.queries:
        ready = open_like(embeddings, network)
        results["nearest"], errors = report_nearest(embeddings, ready, questions, batch_size)
        results["left_out"] += errors
    return results


def open_like(
    embeddings: Embeddings,
    network: EmbeddingNetwork | Source | str | None = None,
    where: str = "the embeddings",
    weights: str | None = None,
    pretrained: bool | None = False,
) -> EmbeddingNetwork:
    """Opens the model that made the embeddings, with their layer and size.

    Args:
        embeddings: The embeddings.
        network: The model; None opens the one that the embeddings name.
        where: Name of the embeddings, for messages.
        weights: See `open_source`.
        pretrained: See `open_source`.

    Raises:
        UsageError: unknown model.
        UserError: the model has other weights, or another layer or preprocessing.
    """
    origin = embeddings.origin
    if not isinstance(network, EmbeddingNetwork):
        size = int(origin.preprocessing["input_size"][-1])
        word = network or origin.model
        network = open_network(word, origin.layer, size, weights, pretrained)
    origin.check_same(origin_of(network, origin.normalized), where)
    return network


def report_duplicates(
    embeddings: Embeddings, questions: Questions
) -> tuple[dict[str, Any], list[str]]:
    """Finds copies; writes a table and, if there are any, a sheet.

    Returns:
        Plain values, and a line for each picture that cannot be read.
    """
    assert questions.duplicates is not None
    found = find_duplicates(embeddings, questions.duplicates)
    table, sheet = questions.place("duplicates.csv"), questions.place("duplicates.png")
    save_duplicates(embeddings, found, table)
    values = {**found.to_dict(embeddings), "table": str(table), "sheet": None}
    shown = _choose_shown(found.pairs, found.leaking(embeddings))
    if not shown:
        return values, []
    groups = [_pair_cells(embeddings, pair) for pair in shown]
    errors = save_sheet(groups, sheet, groups_a_row=3)
    return {**values, "sheet": str(sheet), "on_sheet": len(shown)}, list(errors)


def _choose_shown(pairs: Sequence[Pair], leaking: Sequence[Pair]) -> list[Pair]:
    """Returns the pairs for the sheet: those across parts first."""
    across = set(leaking)
    return [*leaking, *(pair for pair in pairs if pair not in across)][:MOST_GROUPS]


def _pair_cells(embeddings: Embeddings, pair: Pair) -> list[Cell]:
    parts = [embeddings.parts[row] for row in (pair.first, pair.second)]
    leaks = all(parts) and parts[0] != parts[1]
    kind = "same content" if pair.exact else f"cosine {pair.cosine:.4f}"
    ends = (kind, "ACROSS PARTS" if leaks else "")
    return [
        _cell(embeddings, row, end, "red" if leaks else None)
        for row, end in zip((pair.first, pair.second), ends, strict=True)
    ]


def _cell(embeddings: Embeddings, row: int, end: str, colour: str | None = None) -> Cell:
    path = embeddings.paths[row]
    place = " ".join(filter(None, (embeddings.parts[row], embeddings.label_of(row))))
    return Cell(path, (Path(path).name, place, end), colour)


def report_nearest(
    embeddings: Embeddings,
    network: EmbeddingNetwork,
    questions: Questions,
    batch_size: int = 32,
) -> tuple[dict[str, Any], list[str]]:
    """Finds the images nearest to the queries and draws them; a query is not its own neighbour.

    Returns:
        Plain values, and a line for each query or picture that cannot be read.
    """
    queries = [Path(query) for query in questions.queries]
    _, vectors, errors = compute_vectors(network, queries, batch_size)
    readable = [str(query) for i, query in enumerate(queries) if i not in errors]
    among = embeddings.in_order_of_paths(np.arange(len(embeddings)))
    similarities, rows = nearest(vectors, embeddings.vectors, among, questions.nearest + 1)
    table, groups = [], []
    for query, similar, found in zip(readable, similarities, rows, strict=True):
        own = identify(query)
        pairs = [
            (float(cosine), int(row))
            for cosine, row in zip(similar, found, strict=True)
            if own is None or identify(embeddings.paths[row]) != own
        ][: questions.nearest]
        table.append({"image": query, "nearest": [_entry(embeddings, *pair) for pair in pairs]})
        cells = [_cell(embeddings, row, f"cosine {cosine:.3f}") for cosine, row in pairs]
        groups.append([Cell(query, (Path(query).name, "query", ""), "blue"), *cells])
    sheet = questions.place("nearest.png")
    lost = save_sheet(groups, sheet)
    return {"queries": table, "sheet": str(sheet)}, [*errors.values(), *lost]


def _entry(embeddings: Embeddings, cosine: float, row: int) -> dict[str, Any]:
    return {
        "image": embeddings.paths[row],
        "cosine": round(cosine, 6),
        "label": embeddings.label_of(row) or None,
    }
