"""Reports the statistics of a data set: as plain values, as lines of text, and as files."""

import json
import os
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spanets.data.samples import Samples
from spanets.data.sources.folder import existing_folder
from spanets.data.sources.hub import hub_parts
from spanets.data.sources.labelled import Listed, gather_labelled
from spanets.data.sources.runs_among_images import refuse_inside
from spanets.data.sources.shards import read_shards
from spanets.data.statistics.findings import (
    count_classes,
    describe_classes,
    describe_copies,
    describe_images,
    group_copies,
)
from spanets.data.statistics.measuring import Totals, measure_images
from spanets_runtime.errors import UserError
from spanets_runtime.files import check_place, write_atomically
from spanets_runtime.images import describe_unreadable
from spanets_runtime.pictures import check_outputs
from spanets_runtime.sheets import MOST_GROUPS, Cell, save_sheet
from spanets_runtime.text import escape_controls

SOURCES = ("folder", "webdataset", "hf")

LISTED = 1000
"""Largest number of groups of copies, and of unreadable images, that are listed by name."""

_A_ROW = 6  # pictures of a class on the sheet
_MOST_CLASSES = 20  # in the text

# The first bytes of the files, by which a second run knows that it may replace them.
_JSON, _YAML = '{\n  "stats": ', "# Measured by `spanets stats`"


def describe_data(
    root: str | os.PathLike[str],
    source: str = "folder",
    workers: int = 0,
    out: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Measures a data set, and says what looks odd in it.

    Args:
        root: A folder of images, of class folders or of parts; or shards, or a data set of the hub.
        source: One of `SOURCES`, as `data.source` in a recipe.
        workers: Processes that load images; 0 loads them in this one.
        out: Folder for stats.json, stats.yaml and sheet.png, or None.

    Returns:
        Plain values: "odd" has a line for each thing that looks odd; see docs/evaluate.md.

    Raises:
        UsageError: `out` lies among the images.
        UserError: no images, or `out` cannot be written or holds other people's files.
    """
    listed = _list(root, source)
    place = None if out is None else Path(out)
    if place is not None:
        _check_out(place, root, source, listed)
    part = "train" if "train" in listed.parts else ""
    totals = measure_images(listed.images, np.array(listed.parts) == part, workers)
    results = _summarize(str(root), source, listed, totals, part)
    if place is not None:
        results["files"] = {name: str(place / name) for name in _FILES}
        results["notes"] += _save_sheet(listed, totals, place / "sheet.png")
        _save(place / "stats.yaml", _to_yaml(results))
        text = _JSON + json.dumps(results, indent=2).replace("\n", "\n  ") + "\n}\n"
        _save(place / "stats.json", text)
    return results


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


def _summarize(root: str, source: str, listed: Listed, totals: Totals, part: str) -> dict[str, Any]:
    groups, classes = group_copies(totals), count_classes(listed)
    moments = totals.moments()
    mean, std = ([round(v, 4) for v in values] for values in moments or ([], []))
    errors = totals.errors.values()
    unreadable = [describe_unreadable(errors, len(listed.images))] if errors else []
    odd = [
        *unreadable,
        *describe_copies(listed, groups),
        *describe_classes(listed, classes),
        *describe_images(listed, totals),
    ]
    return {
        "data": root,
        "source": source,
        "images": len(listed.images),
        "odd": odd,
        "classes": classes,
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
        "pixels": {"mean": mean, "std": std, "images": totals.counted, "part": part or None},
        "command": _command(root, source, classes, mean, std),
        "notes": list(listed.notes),
    }


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


def _command(
    root: str,
    source: str,
    classes: Mapping[str, Any],
    mean: Sequence[float],
    std: Sequence[float],
) -> str | None:
    """Returns the command that trains with these numbers; None without classes or deviation."""
    if len(set(classes) - {""}) < 2 or not std or min(std) < 0.001:
        return None
    kind = [] if source == "folder" else ["--data.source", source]
    numbers = [",".join(map(str, values)) for values in (mean, std)]
    words = ["--data.root", root, *kind, "--data.mean", numbers[0], "--data.std", numbers[1]]
    return shlex.join(["spanets", "train", "photos", *words])


# ---- text


def describe_statistics(results: Mapping[str, Any]) -> str:
    """Returns the results of `describe_data` as readable lines: what looks odd comes first."""
    classes = {name: counts for name, counts in results["classes"].items() if name}
    lines = [f"{results['data']}: {results['images']} images, {len(classes)} classes"]
    odd = results["odd"]
    lines += [f"looks odd: {len(odd)}", *(f"  - {line}" for line in odd)] if odd else []
    lines += [] if odd else ["nothing looks odd"]
    lines += _table(results["classes"])
    for name, spread in results["sizes"].items():
        if spread is not None:
            shown = ", ".join(f"{key} {value:g}" for key, value in spread.items())
            of = " (width over height)" * (name == "aspect")
            lines.append(f"{name}{of}: {shown}")
    for name in ("kinds", "modes"):
        if results[name]:
            lines.append(f"{name}: " + "; ".join(f"{n} {k}" for k, n in results[name].items()))
    pixels = results["pixels"]
    if pixels["images"]:
        of = "training images" if pixels["part"] else "images"
        lines.append(
            f"mean {_numbers(pixels['mean'])}, standard deviation {_numbers(pixels['std'])} of "
            f"red, green and blue in 0..1, over {pixels['images']} {of} of equal weight"
        )
    lines += [f"written: {path}" for path in results.get("files", {}).values()]
    if results["command"]:
        lines.append(f"train from scratch with them: {results['command']}")
    return "\n".join(lines)


def _table(classes: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Returns the number of images by class and part; of many classes the rarest and largest."""
    parts = list(next(iter(classes.values())))
    total = {name: sum(counts.values()) for name, counts in classes.items()}
    names, lines = list(classes), []
    if len(names) > _MOST_CLASSES:
        half = _MOST_CLASSES // 2
        names = sorted(names, key=lambda name: (total[name], name))
        names = [*names[:half], *names[-half:]]
        lines.append(f"the {half} smallest and {half} largest classes; --json lists all:")
    header = ["class", *(part or "images" for part in parts)]
    rows = [header, *([n or "(no class)", *map(str, classes[n].values())] for n in names)]
    wide = [max(len(row[i]) for row in rows) for i in range(len(header))]
    for name, *numbers in rows:
        cells = [number.rjust(w) for number, w in zip(numbers, wide[1:], strict=True)]
        lines.append("  ".join([name.ljust(wide[0]), *cells]))
    return lines


def _numbers(values: Sequence[float]) -> str:
    return "[" + ", ".join(map(str, values)) + "]"


# ---- files


_FILES = {"sheet.png": None, "stats.yaml": _YAML, "stats.json": _JSON}


def _check_out(out: Path, root: str | os.PathLike[str], source: str, listed: Listed) -> None:
    if source == "folder":
        refuse_inside(out, [Path(root)])
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
        mean, std = _numbers(pixels["mean"]), _numbers(pixels["std"])
        lines += ["data:", f"  mean: {mean}", f"  std: {std}"]
    return "\n".join(lines) + "\n"


def _save(path: Path, text: str) -> None:
    content = text.encode("utf-8", "surrogateescape")
    write_atomically(path, lambda file: file.write(content))


def _save_sheet(listed: Listed, totals: Totals, path: Path) -> list[str]:
    """Draws a row of pictures, spread evenly, for each class; returns notes."""
    members: dict[str, list[int]] = {}
    for index in np.flatnonzero(totals.readable).tolist():
        members.setdefault(listed.classes[index], []).append(index)
    names = sorted(members)[:MOST_GROUPS]
    if not names:
        return [f"{path}: not drawn, because no image can be read"]
    groups = [
        [_cell(listed, members[name][i]) for i in _spread_evenly(len(members[name]))]
        for name in names
    ]
    save_sheet(groups, path)
    left = len(members) - len(names)
    return [f"{path}: shows the first {len(names)} of {len(members)} classes"] * bool(left)


def _spread_evenly(count: int) -> list[int]:
    return sorted({int(i) for i in np.linspace(0, count - 1, _A_ROW)})


def _cell(listed: Listed, index: int) -> Cell:
    name = listed.names[index]
    place = " ".join(filter(None, (listed.parts[index], listed.classes[index])))
    image: Any = listed.images[index]
    return Cell(str(image) if isinstance(image, Path) else image, (name.rsplit("/", 1)[-1], place))
