"""Measures the trained network of a cell on validation images: corruptions, bands, reliance."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spanets.analysis.reliance import CONFLICT_CUTOFFS
from spanets.analysis.study.measure import MEASUREMENTS, Options, Subject
from spanets.data.image_level.splits import read_splits
from spanets.data.run_data import read_run_data
from spanets.data.samples import map_classes
from spanets.recipe import Recipe
from spanets.runs.file_names import LAST, RESULTS
from spanets.runs.listing import read_results
from spanets.sources import open_checkpoint
from spanets_runtime.errors import UserError
from spanets_runtime.files import write_atomically
from spanets_runtime.images import describe_unreadable
from spanets_runtime.listing import spread_evenly

MEASURED = "measured.json"
"""File in a run folder with the numbers, by name."""

Numbers = dict[str, float | None]
"""Numbers by name; an undefined one is None."""


@dataclass(frozen=True)
class Measure:
    """What is measured of each trained network.

    Attributes:
        what: Names from `WHAT`.
        images: Largest number of validation images, evenly spread over their list; None takes all.
    """

    what: tuple[str, ...] = ()
    images: int | None = None


NOTHING = Measure()


def _of_corruptions(found: Mapping[str, Any]) -> Numbers:
    kinds = {f"corruptions {kind}": row["accuracy"] for kind, row in found["kinds"].items()}
    return {"corruptions": found["mean"], **kinds}


def _of_bands(found: Mapping[str, Any]) -> Numbers:
    return {
        f"{kind} {cutoff:.2g}": float(accuracy)
        for kind in ("low_pass", "high_pass")
        for cutoff, accuracy in zip(found["cutoffs"], found[kind]["accuracy"], strict=True)
    }


def _of_reliance(found: Mapping[str, Any]) -> Numbers:
    """Returns the accuracy without each suppressed cue, relative to whole images."""
    numbers: Numbers = {
        f"without {name}": row["relative"]["accuracy"] for name, row in found["suppressed"].items()
    }
    conflict = found["conflict"]
    # Images of one class have no conflict: a study must tell this from a metric of a wrong name.
    numbers |= {f"follows_low {cutoff:g}": None for cutoff in CONFLICT_CUTOFFS}
    for cutoff, share in zip(
        conflict.get("cutoffs", ()), conflict.get("follows_low", {}).get("share", ()), strict=True
    ):
        numbers[f"follows_low {cutoff:g}"] = share
    return numbers


_NUMBERS: Mapping[str, Callable[[Mapping[str, Any]], Numbers]] = {
    "corruptions": _of_corruptions,
    "bands": _of_bands,
    "reliance": _of_reliance,
}

WHAT = tuple(_NUMBERS)
"""The measurements of `spanets analyze` that a study can make."""


def measure_cell(folder: Path, recipe: Recipe, measure: Measure) -> None:
    """Measures the checkpoint that a run evaluated on its validation images; writes `MEASURED`.

    Images that cannot be read are left out and counted on standard error.

    Raises:
        UserError: the run is no classifier of image files, its results are damaged, or the images
            are gone.
    """
    source = open_checkpoint(_evaluated(folder))
    if source.info.task != "classification":
        raise UserError(f"{folder}: measure is for classifiers, and this run is {recipe.task}")
    data: Any = recipe.data
    val = read_splits(data, read_run_data(folder, source.info, source.content))["val"]
    samples = map_classes(val, source.info.classes)
    chosen = spread_evenly(range(len(samples)), measure.images)
    paths = [samples.images[i] for i in chosen]
    if not all(isinstance(path, Path) for path in paths):
        raise UserError(f"{folder}: measure needs image files; data.source is {data.source}")
    subject = Subject(
        source.word,
        source.network,
        source.preprocess,
        [path for path in paths if isinstance(path, Path)],
        [samples.labels[i] for i in chosen],
        Options(batch_size=64),
    )
    numbers: Numbers = {}
    for name in measure.what:
        numbers |= _NUMBERS[name](MEASUREMENTS[name].run(subject))
    if subject.unreadable:
        print(describe_unreadable(subject.unreadable.values(), len(paths)), file=sys.stderr)
    text = json.dumps(numbers, indent=2) + "\n"
    write_atomically(folder / MEASURED, lambda file: file.write(text.encode()))


def _evaluated(folder: Path) -> Path:
    """Returns the checkpoint that the metrics of a run are of: with early stopping, the best one.

    The name counts, and not its folder, because a study may have been moved.
    """
    word = (read_results(folder / RESULTS) or {}).get("checkpoint")
    name = Path(word).name if isinstance(word, str) else LAST
    return folder / (name if (folder / name).is_file() else LAST)
