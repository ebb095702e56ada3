"""Statistics of a data set as lines of text."""

from collections.abc import Mapping, Sequence
from typing import Any

from spanets.data.statistics.targets import NUMBERS

_MOST_CLASSES = 20
_MOST_PAIRS = 10
_TITLES = {"q1": "25 %", "q3": "75 %"}


def describe_statistics(results: Mapping[str, Any]) -> str:
    """Returns the results of `describe_data` as readable lines: what looks odd comes first."""
    classes = {name: counts for name, counts in results["classes"].items() if name}
    lines = [f"{results['data']}: {results['images']} images, {_head(results, len(classes))}"]
    if (objects := results.get("objects")) is not None:
        lines = [_head_of_objects(results, objects)]
    odd = results["odd"]
    lines += [f"looks odd: {len(odd)}", *(f"  - {line}" for line in odd)] if odd else []
    lines += [] if odd else ["nothing looks odd"]
    if "labels" in results:
        lines += _describe_labels(results)
    elif "numbers" in results:
        lines += _describe_numbers(results)
    elif objects is None:
        lines += _table(results["classes"])
    else:
        lines += [_images_by_part(results["classes"][""]), *_table_of_objects(objects)]
    if groups := results.get("groups"):
        lines.append(f"groups: {groups}")
    if folds := results.get("folds"):
        counts = {f: sum(row[f] for row in folds.values()) for f in next(iter(folds.values()))}
        lines.append("; ".join(f"fold {fold}: {count} images" for fold, count in counts.items()))
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
        names = "red, green and blue"
        if "channels" in pixels:
            names = f"channels 1 to {pixels['channels']}"
        lines.append(
            f"mean {numbers(pixels['mean'])}, standard deviation {numbers(pixels['std'])} of "
            f"{names} in 0..1, over {pixels['images']} {of} of equal weight"
        )
    lines += [f"written: {path}" for path in results.get("files", {}).values()]
    if results["command"]:
        lines.append(f"train from scratch with them: {results['command']}")
    return "\n".join(lines)


def _table(classes: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Returns the number of images by class and part; of many classes the rarest and largest."""
    parts = list(next(iter(classes.values())))
    header = ["class", *(part or "images" for part in parts)]
    total = {name: sum(counts.values()) for name, counts in classes.items()}
    rows = {n or "(no class)": list(map(str, counts.values())) for n, counts in classes.items()}
    return aligned(header, rows, {n or "(no class)": count for n, count in total.items()})


def aligned(
    header: Sequence[str],
    cells: Mapping[str, Sequence[str]],
    total: Mapping[str, float],
    noun: str = "classes",
) -> list[str]:
    """Returns a table with a row for each class; of many classes the rarest and largest.

    Args:
        header: Titles of the columns.
        cells: Cells of each class after its name.
        total: Size of each class.
        noun: What the rows are called.
    """
    names, lines = list(cells), []
    if len(names) > _MOST_CLASSES:
        half = _MOST_CLASSES // 2
        names = sorted(names, key=lambda name: (total[name], name))
        names = [*names[:half], *names[-half:]]
        lines.append(f"the {half} smallest and {half} largest {noun}; --json lists all:")
    return lines + _laid_out([list(header), *([name, *cells[name]] for name in names)])


def _laid_out(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns rows as lines, with the first column left-aligned and the others right-aligned."""
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [name.ljust(wide[0]), *(c.rjust(w) for c, w in zip(others, wide[1:], strict=True))]
        )
        for name, *others in rows
    ]


def numbers(values: Sequence[float]) -> str:
    """Returns numbers as a YAML list."""
    return "[" + ", ".join(map(str, values)) + "]"


def _head(results: Mapping[str, Any], classes: int) -> str:
    """Returns the number of classes, of labels, or of columns of numbers."""
    if "labels" in results:
        without = sum(results["labels"]["without"].values())
        of = f" ({without} images without any)" if without else ""
        return f"{len(results['labels']['labels'])} labels{of}"
    count = len(results.get("numbers", ()))
    return f"{count} number{'s' * (count > 1)} to estimate" if count else f"{classes} classes"


def _head_of_objects(results: Mapping[str, Any], objects: Mapping[str, Any]) -> str:
    empty = {part: n for part, n in objects["empty_images"].items() if n}
    of = ", ".join(f"{n} of {part}" if part else str(n) for part, n in empty.items())
    without = f" (without objects: {of})" if of else ""
    return (
        f"{results['data']}: {objects['format']}, {results['images']} images{without}, "
        f"{objects['count']} objects, {len(objects['classes'])} classes"
    )


def _images_by_part(counts: Mapping[str, int]) -> str:
    return "images: " + ", ".join(f"{part or 'all'} {count}" for part, count in counts.items())


def _table_of_objects(objects: Mapping[str, Any]) -> list[str]:
    """Returns the objects of each class by part and size, or the share of pixels."""
    classes = objects["classes"]
    parts = list(next(iter(classes.values()))["objects"]) if classes else []
    sizes = ("share",) if objects["is_pixels"] else ("small", "medium", "large")
    titles = {"share": "of all pixels"}
    header = ["class", *(part or "objects" for part in parts), "images"]
    header += [titles.get(size, size) for size in sizes]
    cells = {
        name: [
            *map(str, row["objects"].values()),
            str(row["images"]),
            *(f"{row[size]:.2%}" if size == "share" else str(row[size]) for size in sizes),
        ]
        for name, row in classes.items()
    }
    total = {name: sum(row["objects"].values()) for name, row in classes.items()}
    note = "objects by class; small is below 32 x 32 pixels, large is 96 x 96 and more, by area"
    lines = [] if objects["is_pixels"] else [note]
    return [*lines, *aligned(header, cells, total)]


def _describe_labels(results: Mapping[str, Any]) -> list[str]:
    """Returns the numbers of images by label, by number of labels, and of pairs."""
    labels = results["labels"]
    counts: dict[str, dict[str, int]] = labels["labels"]
    total = {name: sum(of.values()) for name, of in counts.items()}
    header = ["label", *(part or "images" for part in labels["without"])]
    cells = {name: list(map(str, of.values())) for name, of in counts.items()}
    lines = [
        f"labels: {sum(total.values())}, {sum(total.values()) / results['images']:.3g} an image; "
        "images by number of labels: "
        + ", ".join(f"{number}: {count}" for number, count in labels["per_image"].items()),
        *aligned(header, cells, total, "labels"),
    ]
    if pairs := labels["pairs"][:_MOST_PAIRS]:
        shown = ", ".join(f"{' + '.join(pair['labels'])} {pair['images']}" for pair in pairs)
        lines.append(f"most frequent pairs: {shown}")
    return lines


def _describe_numbers(results: Mapping[str, Any]) -> list[str]:
    """Returns a table with a row for each column of numbers and part."""
    rows = [["number", *(_TITLES.get(name, name) for name in NUMBERS)]]
    for name, parts in results["numbers"].items():
        for part, of in parts.items():
            cells = ["" if of[key] is None else f"{of[key]:.6g}" for key in NUMBERS]
            rows.append([f"{name} ({part})" if part else name, *cells])
    return _laid_out(rows)
