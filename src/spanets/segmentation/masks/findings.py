"""Turns a survey of images and masks into errors and notes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from spanets.segmentation.masks.reading import MaskedImages
from spanets.segmentation.masks.survey import MAX_BROKEN, Colour, Survey
from spanets.segmentation.masks.values import IGNORE, IGNORED, suggest_values
from spanets_runtime.errors import UserError

# Number of reasons shown for unusable files.
MAX_REASONS = 3


def check_surveys(surveys: Mapping[str, Survey], is_training: bool, is_known: bool = False) -> None:
    """Refuses data that cannot be used, with all problems in one message.

    Args:
        surveys: Surveys by part, "train" first.
        is_training: Whether the first part is for training, which needs two classes.
        is_known: Whether a run has found out already that 255 is no class.

    Raises:
        UserError: files cannot be used, mask values have no meaning, or they are probably misread.
    """
    every = list(surveys.values())
    problems = _describe_broken(every) + _describe_unknown(every)
    if problems:
        raise UserError("; ".join(problems))
    samples = every[0].samples
    # A list of colours names the one of ignored pixels.
    if not (is_known or samples.values.is_given or samples.colours is not None):
        _refuse_white(every, is_training)
    if is_training and every[0].decoded == len(every[0].samples):
        _refuse_one_class(every[0])


def survey_notes(surveys: Mapping[str, Survey]) -> tuple[str, ...]:
    """Returns notes about classes without pixels, ignored pixels and differing palettes."""
    notes: list[str] = []
    for part, found in surveys.items():
        classes, values, present = found.samples.classes, found.samples.values, found.classes()
        masks = f"{found.decoded} mask{'s' * (found.decoded > 1)}"
        if found.decoded < len(found.samples):
            notes.append(f"{part}: {masks} of {len(found.samples)} were looked at before the start")
        absent = [repr(name) for i, name in enumerate(classes) if i not in present]
        if absent:
            have = "1 class has" if len(absent) == 1 else f"{len(absent)} classes have"
            notes.append(f"{part}: {have} no pixel in {masks}: {_list(absent)}")
        ignored = [n for n in sorted(found.pixels) if values.class_of(n) == IGNORED]
        if ignored:
            share = sum(found.pixels[n] for n in ignored) / found.pixels.total()
            numbers = " and ".join(map(str, ignored))
            notes.append(f"{part}: {share:.1%} of the pixels of {masks} are ignored ({numbers})")
    return (*notes, *_describe_palettes(list(surveys.values())))


def _describe_broken(surveys: Sequence[Survey]) -> list[str]:
    """Returns a message with the number of unusable files and an example of each reason."""
    broken = [line for found in surveys for line in found.broken]
    if not broken:
        return []
    total = sum(len(found.samples) for found in surveys)
    least = "at least " if any(len(found.broken) == MAX_BROKEN for found in surveys) else ""
    count = f"{len(broken)} of {total} images or their masks"
    reasons: dict[str, list[str]] = {}
    for line in broken:
        reasons.setdefault(line.partition(": ")[2], []).append(line)
    shown = [
        found[0] + (f" ({len(found)} of them)" if len(found) > 1 else "")
        for found in list(reasons.values())[:MAX_REASONS]
    ]
    if len(reasons) > MAX_REASONS:
        shown.append(f"and {len(reasons) - MAX_REASONS} more")
    return [f"{least}{count} cannot be used: {'; '.join(shown)}; mend or remove them"]


def _describe_unknown(surveys: Sequence[Survey]) -> list[str]:
    """Returns a message about mask values that are not classes, with a suggestion."""
    first: dict[int, Path] = {}
    masks: set[Path] = set()
    for found in surveys:
        for number in found.unknown():
            first.setdefault(number, found.holders[number][0])
            masks.update(found.holders[number])
    if not first:
        return []
    samples = surveys[0].samples
    numbers = sorted(set().union(*(found.pixels for found in surveys)))
    least = min(first)
    shown = _list([str(number) for number in sorted(first)])
    count = "a mask holds numbers" if len(masks) == 1 else f"{len(masks)} masks hold numbers"
    advice = "mend data.mask_values"
    if not samples.values.is_given:
        advice = "mend them"
        if 2 * len(masks) > sum(found.decoded for found in surveys):
            advice += f", or set data.mask_values, such as {_suggest(numbers, samples)}"
    return [
        f"{count} that are no class: {shown} (first: {least} in {first[least]}), but the "
        f"{len(samples.classes)} classes are {samples.values.describe()}; {advice}"
    ]


def _suggest(numbers: Sequence[int], samples: MaskedImages) -> str:
    if len(samples.classes) == 2 and len(numbers) == 2 and numbers[0] == 0:
        return f"binary (0 is {samples.classes[0]!r}, every other number {samples.classes[1]!r})"
    return suggest_values(numbers, samples.classes)


def _refuse_white(surveys: Sequence[Survey], is_training: bool) -> None:
    """Refuses masks in which 255 seems to be a class and not ignored pixels.

    With two classes, this is if no mask holds both class 1 and 255. With more classes, it is if the
    training masks hold only one class and 255.

    Raises:
        UserError: 255 seems to be a class.
    """
    names = surveys[0].samples.classes
    if len(names) == 2:
        if any(found.holding(1) & found.holding(IGNORED) for found in surveys):
            return
        suspects = [found for found in surveys if found.holding(IGNORED)]
    else:
        first = surveys[0]
        is_suspect = is_training and first.holding(IGNORED) and len(first.classes()) == 1
        suspects = [first] if is_suspect else []
    if suspects:
        folder, held = suspects[0].samples.masks[0].parent, _describe_white(suspects[0])
        raise UserError(
            f"{folder}: {held}, but 255 is for pixels to ignore; {_advise(names, is_training)}"
        )


def _describe_white(found: Survey) -> str:
    """Describes which masks hold 255 and which hold class 1."""
    white, second = found.holding(IGNORED), found.holding(1)
    if len(found.classes()) < 2:
        return f"the masks hold {' and '.join(map(str, sorted(found.holders)))} alone"
    return (
        f"some masks hold 1 ({len(second)}, such as {min(second).name}), others 255 "
        f"({len(white)}, such as {min(white).name}), and none both"
    )


def _advise(names: Sequence[str], is_training: bool) -> str:
    """Returns advice about a mask value of 255 that may be a class."""
    if not is_training:
        return f"if it is {names[1]!r}, save it as 1, or train with data.mask_values binary"
    if len(names) > 2:
        return "set data.mask_values, which says the class of each number"
    kept = f"{{0: 0, 1: 1, {IGNORED}: {IGNORE}}}"
    return f"set data.mask_values to binary if it is {names[1]!r}, or to {kept} if it is not"


def _refuse_one_class(found: Survey) -> None:
    """Raises a UserError if the training masks hold fewer than two classes."""
    classes = sorted(found.classes())
    if len(classes) < 2:
        names = ", ".join(f"{c} ({found.samples.classes[c]})" for c in classes) or "none"
        raise UserError(
            f"{found.samples.masks[0].parent}: of the {len(found.samples.classes)} classes the "
            f"training masks hold {names}, but training needs two; check the masks and "
            "data.mask_values"
        )


def _describe_palettes(surveys: Sequence[Survey]) -> list[str]:
    """Returns a note if palettes show one number in different colours."""
    merged: dict[int, dict[Colour, list[Path]]] = {}
    for found in surveys:
        for number, by_colour in found.colours.items():
            for colour, paths in by_colour.items():
                merged.setdefault(number, {}).setdefault(colour, []).extend(paths)
    differing = {number: found for number, found in merged.items() if len(found) > 1}
    if not differing:
        return []
    number, by_colour = min(differing.items())
    (one, mine), (other, theirs) = sorted(by_colour.items(), key=lambda item: -len(item[1]))[:2]
    masks = {path for found in merged.values() for paths in found.values() for path in paths}
    odd = {
        path
        for found in differing.values()
        for paths in sorted(found.values(), key=len)[:-1]
        for path in paths
    }
    return [
        f"numbers mean other colours in {len(odd)} of {len(masks)} masks with a palette: {number} "
        f"is {name_colour(one)} in {mine[0]} and {name_colour(other)} in {theirs[0]}; if the "
        "colours are the classes, number them alike in all masks"
    ]


def name_colour(colour: Colour) -> str:
    """Returns the nearest colour name, with the red, green and blue values."""
    named = {
        "black": (0, 0, 0), "gray": (128, 128, 128), "white": (255, 255, 255),
        "red": (255, 0, 0), "green": (0, 160, 0), "blue": (0, 0, 255),
        "yellow": (255, 255, 0), "cyan": (0, 255, 255), "magenta": (255, 0, 255),
        "orange": (255, 140, 0), "brown": (128, 64, 0), "purple": (128, 0, 128),
        "pink": (255, 170, 190), "olive": (128, 128, 0), "teal": (0, 128, 128),
    }  # fmt: skip
    distances = {
        word: sum((a - b) ** 2 for a, b in zip(colour, middle, strict=True))
        for word, middle in named.items()
    }
    return f"{min(distances, key=distances.__getitem__)} {colour}"


def _list(names: Sequence[str], limit: int = 10) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if names[limit:] else "")
