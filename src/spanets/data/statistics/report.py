"""Reports the statistics of a data set: as plain values and as files; `text` has the lines."""

import json
import os
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spanets.data.image_level.bands import choose_bands
from spanets.data.samples import Samples
from spanets.data.sources.folder_paths import existing_folder
from spanets.data.sources.hub import hub_parts
from spanets.data.sources.labelled import Listed, gather_labelled
from spanets.data.sources.runs_among_images import refuse_inside
from spanets.data.sources.shards import read_shards
from spanets.data.statistics.arrays import measure_array
from spanets.data.statistics.findings import (
    Groups,
    count_classes,
    count_folds,
    describe_classes,
    describe_copies,
    describe_empty,
    describe_folds,
    describe_groups,
    describe_images,
    group_copies,
)
from spanets.data.statistics.measuring import Totals, measure_image, measure_images
from spanets.data.statistics.tables import TableKeys, list_table
from spanets.data.statistics.targets import (
    choose_pictures,
    count_labels,
    count_numbers,
    describe_odd_labels,
    describe_odd_numbers,
    number_of,
)
from spanets.data.statistics.text import numbers
from spanets_runtime.arrays import PIXEL_KEYS, PixelFormat
from spanets_runtime.errors import UserError
from spanets_runtime.files import check_place, write_atomically
from spanets_runtime.images import describe_unreadable, load_image
from spanets_runtime.listing import listing_arrays
from spanets_runtime.pictures import check_outputs
from spanets_runtime.sheets import MOST_GROUPS, Cell, save_sheet
from spanets_runtime.text import escape_controls

SOURCES = ("folder", "table", "webdataset", "hf")

LISTED = 1000
"""Largest number of groups of copies, and of unreadable images, that are listed by name."""

_A_ROW = 6  # pictures of a class on the sheet

# The first bytes of the files, by which a second run knows that it may replace them.
_JSON, _YAML = '{\n  "stats": ', "# Measured by `spanets stats`"


def describe_data(
    root: str | os.PathLike[str],
    source: str = "folder",
    workers: int = 0,
    out: str | os.PathLike[str] | None = None,
    table: TableKeys | None = None,
    pixels: PixelFormat | None = None,
) -> dict[str, Any]:
    """Measures a data set, and says what looks odd in it.

    Args:
        root: A folder of images, of class folders or of parts; or a table, shards, or a data set
            of the hub.
        source: One of `SOURCES`, as `data.source` in a recipe.
        workers: Processes that load images; 0 loads them in this one.
        out: Folder for stats.json, stats.yaml and sheet.png, or None.
        table: How a table is read; None finds it.
        pixels: How images of other channels or depths are read; None is 8-bit RGB.

    Returns:
        Plain values: "odd" has a line for each thing that looks odd; see docs/evaluate.md.

    Raises:
        UsageError: `out` lies among the images.
        UserError: no images, the table is wrong, or `out` cannot be written or holds other
            people's files.
    """
    with listing_arrays(pixels is not None):
        if source == "table":
            listed, table = list_table(os.fspath(root), table or TableKeys())
        else:
            listed = _list(root, source)
    if pixels is not None and pixels.bands:
        kept, notes = choose_bands(listed.images, pixels.bands, str(root))
        listed.keep(kept)
        listed.notes += notes
    place = None if out is None else Path(out)
    if place is not None:
        check_out(place, [Path(root)] if source == "folder" else [], listed)
    totals, part = measure_listed(listed, workers, pixels)
    results = summarize(str(root), source, listed, totals, part, pixels)
    if table is not None and listed.targets is not None:
        _add_targets(results, listed, table.task or "", group_copies(totals))
        members = choose_pictures(listed, totals.readable, "labels" in results)
        rows = {name: spread_evenly(own) for name, own in members.items()}
    else:
        advice = "; see data.sampler and optim.class_weights"
        odd = describe_classes(results["classes"], advice=advice)
        results["odd"] += [*odd, *describe_empty(listed.empty)]
        rows = group_by_class(listed, totals)
    if name := _find_unlisted(table):
        results["notes"].append(
            f"no command: the comma in {name!r} would divide it; list the names in a recipe"
        )
    else:
        results["command"] = _command(results, table, source)
    if place is not None:
        cells = {
            row: [_cell(listed, i, _caption(results, listed, i, row), pixels) for i in rows[row]]
            for row in rows
        }
        save_files(results, place, cells)
    return results


def measure_listed(
    listed: Listed, workers: int, pixels: PixelFormat | None = None
) -> tuple[Totals, str]:
    """Measures all images; returns the sums, and the part whose pixels count: "train" or ""."""
    part = "train" if "train" in listed.parts else ""
    measure = measure_image if pixels is None else partial(measure_array, pixels=pixels)
    totals = measure_images(listed.images, np.array(listed.parts) == part, workers, measure)
    totals.is_of_arrays = pixels is not None
    return totals, part


def save_files(results: dict[str, Any], out: Path, rows: Mapping[str, Sequence[Cell]]) -> None:
    """Writes the sheet, with a row of pictures for each class, and the results; adds their paths.

    Raises:
        UserError: a file cannot be written.
    """
    results["files"] = {name: str(out / name) for name in _FILES}
    path, names = out / "sheet.png", list(rows)[:MOST_GROUPS]
    if names:
        save_sheet([rows[name] for name in names], path)
        left = len(rows) > len(names)
        shown = f"{path}: shows the first {len(names)} of {len(rows)} classes"
        results["notes"] += [shown] * left
    else:
        results["notes"].append(f"{path}: not drawn, because no image can be read")
    _save(out / "stats.yaml", _to_yaml(results))
    text = _JSON + json.dumps(results, indent=2).replace("\n", "\n  ") + "\n}\n"
    _save(out / "stats.json", text)


def _add_targets(results: dict[str, Any], listed: Listed, task: str, groups: Groups) -> None:
    """Adds the numbers of other targets than a class, and what looks odd in them."""
    results["task"] = task
    if task == "multilabel":
        results["labels"] = count_labels(listed)
        results["odd"] += describe_odd_labels(listed, results["labels"], groups)
    else:
        results["numbers"] = count_numbers(listed)
        results["odd"] += describe_odd_numbers(listed, groups)


def _list(root: str | os.PathLike[str], source: str) -> Listed:
    if source == "folder":
        return gather_labelled([existing_folder(root)])
    read: Callable[[str], dict[str, Samples]] = read_shards if source == "webdataset" else hub_parts
    parts = read(os.fspath(root))
    listed = Listed()
    for part, samples in parts.items():
        listed.images += samples.images  # type: ignore[arg-type]
        listed.names += [str(image) for image in samples.images]
        listed.classes += [samples.classes[label] for label in samples.labels]
        listed.parts += [part if len(parts) > 1 else ""] * len(samples)
        listed.notes += [note for note in samples.notes if note not in listed.notes]
    return listed


def summarize(
    root: str,
    source: str,
    listed: Listed,
    totals: Totals,
    part: str,
    pixels: PixelFormat | None = None,
) -> dict[str, Any]:
    """Returns the results of `describe_data`, but for what looks odd in classes and the command."""
    groups, classes, folds = group_copies(totals), count_classes(listed), count_folds(listed)
    moments = totals.moments()
    shorten: Callable[[float], float] = _to_four if pixels is None else _to_six
    mean, std = ([shorten(v) for v in values] for values in moments or ([], []))
    keys = {} if pixels is None else {k: v for k, v in asdict(pixels).items() if v}
    errors = totals.errors.values()
    unreadable = [describe_unreadable(errors, len(listed.images))] if errors else []
    odd = [
        *unreadable,
        *describe_copies(listed, groups),
        *describe_groups(listed),
        *describe_folds(folds),
        *describe_images(listed, totals),
    ]
    return {
        "data": root,
        "source": source,
        "images": len(listed.images),
        "odd": odd,
        "classes": classes,
        **({"folds": folds} if folds else {}),
        **({"groups": len(set(listed.groups))} if listed.groups else {}),
        "sizes": {
            "width": _spread(totals.widths),
            "height": _spread(totals.heights),
            "aspect": _spread(totals.aspects),
        },
        "modes": dict(totals.modes.most_common()),
        "kinds": dict(totals.kinds.most_common()),
        "unreadable": list(totals.errors.values())[:LISTED],
        "unreadable_images": len(totals.errors),
        "copies": {
            "images": sum(len(group) - 1 for group in groups),
            "contents": len(groups),
            "listed": [[listed.names[i] for i in group] for group in groups[:LISTED]],
        },
        "pixels": {"mean": mean, "std": std, "images": totals.counted, "part": part or None} | keys,
        "command": None,
        "notes": list(listed.notes),
    }


def _to_four(value: float) -> float:
    return round(value, 4)


def _to_six(value: float) -> float:
    """Rounds to six digits: 12-bit numbers in 16 bits have small deviations."""
    return float(f"{value:.6g}")


def _spread(counts: Counter[Any]) -> dict[str, float] | None:
    """Returns smallest, median and largest value; the median is the lower one of two."""
    if not counts:
        return None
    values, middle = sorted(counts), (counts.total() + 1) // 2
    passed = 0
    for value in values:
        passed += counts[value]
        if passed >= middle:
            return {"smallest": values[0], "median": value, "largest": values[-1]}
    raise AssertionError


def _command(results: Mapping[str, Any], table: TableKeys | None, source: str) -> str | None:
    """Returns the command that trains with these numbers; None if training would refuse."""
    mean, std = results["pixels"]["mean"], results["pixels"]["std"]
    least = 1e-6 if "channels" in results["pixels"] else 0.001
    if not std or min(std) < least or not _can_train(results):
        return None
    own = [*_table_words(table), *_source_words(source), *_pixel_words(results["pixels"])]
    moments = [",".join(map(str, values)) for values in (mean, std)]
    root = ["--data.root", results["data"]]
    words = [*root, *own, "--data.mean", moments[0], "--data.std", moments[1]]
    recipe = results.get("task", "photos")
    return shlex.join(["spanets", "train", recipe, *words])


def _can_train(results: Mapping[str, Any]) -> bool:
    """Returns whether there are two classes, a label, or numbers for all images that differ."""
    if "labels" in results:
        return bool(results["labels"]["labels"])
    if "numbers" in results:
        columns = [part for of in results["numbers"].values() for part in of.values()]
        return not any(column["missing"] or not column["std"] for column in columns)
    return len(set(results["classes"]) - {""}) > 1


def _pixel_words(pixels: Mapping[str, Any]) -> list[str]:
    words = []
    for key in (key for key in PIXEL_KEYS if key in pixels):
        value = pixels[key]
        words += [f"--data.{key}", str(value) if key == "channels" else ",".join(map(str, value))]
    return words


def _source_words(source: str) -> list[str]:
    return [] if source in ("folder", "table") else ["--data.source", source]


def _table_words(table: TableKeys | None) -> list[str]:
    keys = {} if table is None else table.to_data()
    return [word for name in keys for word in (f"--data.{name}", _to_word(keys[name]))]


def _find_unlisted(table: TableKeys | None) -> str | None:
    """Returns a column that a list on a command line cannot name, because it holds a comma."""
    lists = [] if table is None else [v for v in table.to_data().values() if isinstance(v, list)]
    return next((name for names in lists for name in names if "," in name), None)


def _to_word(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(value)}]"
    return value if isinstance(value, str) else json.dumps(value)


# ---- files


_FILES = {"sheet.png": None, "stats.yaml": _YAML, "stats.json": _JSON}


def check_out(out: Path, scanned: Sequence[Path], listed: Listed) -> None:
    """Checks before measuring that the files can be written.

    Raises:
        UsageError: the folder lies in one that is scanned for images.
        UserError: it cannot be written, or holds other people's files.
    """
    refuse_inside(out, list(scanned))
    check_outputs(map(str, listed.images), [out / "sheet.png"])
    for name, beginning in _FILES.items():
        check_place(out / name)
        if beginning is not None and (out / name).is_file():
            with (out / name).open("rb") as file:
                if file.read(len(beginning)) != beginning.encode():
                    raise UserError(
                        f"{out / name}: already exists, and `spanets stats` did not write it; move "
                        "it, or name another folder with --out"
                    )


def _to_yaml(results: Mapping[str, Any]) -> str:
    pixels = results["pixels"]
    lines = [f"{_YAML}: {pixels['images']} {pixels['part'] or ''} images, values in 0..1."]
    if results["command"]:
        lines.append("# Copy the keys into a recipe, or train with")
        lines.append(f"#   {escape_controls(results['command'])}")
    if pixels["images"]:
        mean, std = numbers(pixels["mean"]), numbers(pixels["std"])
        keys = [f"  {k}: {json.dumps(pixels[k])}" for k in PIXEL_KEYS if k in pixels]
        lines += ["data:", *keys, f"  mean: {mean}", f"  std: {std}"]
    return "\n".join(lines) + "\n"


def _save(path: Path, text: str) -> None:
    content = text.encode("utf-8", "surrogateescape")
    write_atomically(path, lambda file: file.write(content))


def group_by_class(listed: Listed, totals: Totals) -> dict[str, list[int]]:
    """Returns some readable images of each class, spread evenly, for the sheet."""
    members: dict[str, list[int]] = {}
    for index in np.flatnonzero(totals.readable).tolist():
        members.setdefault(listed.classes[index], []).append(index)
    return {name: spread_evenly(members[name]) for name in sorted(members)}


def spread_evenly(members: Sequence[int]) -> list[int]:
    """Returns as many of the members as a row of the sheet has, spread evenly."""
    return [members[i] for i in sorted({int(i) for i in np.linspace(0, len(members) - 1, _A_ROW)})]


def _caption(results: Mapping[str, Any], listed: Listed, index: int, row: str) -> str:
    """Returns part and class of a picture on the sheet, or the label or number of its row."""
    is_number = "numbers" in results
    what = f"{row} {number_of(listed, index, row):.6g}" if is_number else row
    return " ".join(filter(None, (listed.parts[index], what)))


def _cell(listed: Listed, index: int, place: str, pixels: PixelFormat | None) -> Cell:
    name = listed.names[index]
    image: Any = listed.images[index]
    lines = (name.rsplit("/", 1)[-1], place)
    view = load_image if pixels is None else pixels.view
    return Cell(str(image) if isinstance(image, Path) else image, lines, view=view)
