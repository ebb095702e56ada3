"""What a survey of images and masks means: what is refused, and what people are told."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from spanets.data.sources.mask_survey import MAX_BROKEN, Colour, Survey
from spanets.data.sources.mask_values import IGNORE, IGNORED, suggest_values
from spanets.data.sources.masks import MaskedImages
from spanets_runtime.errors import UserError

# That are shown of why files cannot be used.
MAX_REASONS = 3


def check_surveys(surveys: Mapping[str, Survey], is_training: bool) -> None:
    """Refuses data that cannot be used, all that was found in one message.

    Args:
        surveys: By part, "train" the first.
        is_training: Whether the first is for training, for which one class is not enough.

    Raises:
        UserError: files that cannot be used, numbers that stand for nothing, or numbers that are
            hardly meant as they are read.
    """
    every = list(surveys.values())
    problems = _describe_broken(every) + _describe_unknown(every)
    if problems:
        raise UserError("; ".join(problems))
    first = next(iter(surveys.values()))
    if not first.samples.values.is_given:
        _refuse_white(first, is_training)
    if is_training and first.decoded == len(first.samples):
        _refuse_one_class(first)


def survey_notes(surveys: Mapping[str, Survey]) -> tuple[str, ...]:
    """Returns lines for people: of classes without pixels, ignored pixels, and palettes."""
    notes: list[str] = []
    for part, found in surveys.items():
        samples, looked = found.samples, found.decoded
        where = f"{part}: of {looked} mask{'s' * (looked > 1)}"
        if looked < len(samples):
            notes.append(
                f"{part}: {looked} of {len(samples)} masks were looked at before the start"
            )
        names = [repr(c) for i, c in enumerate(samples.classes) if i not in found.classes()]
        if names:
            one = "class without a pixel" if len(names) == 1 else "classes without a pixel"
            notes.append(f"{where}: {len(names)} {one}: {_list(names)}")
        ignored = [n for n in sorted(found.pixels) if samples.values.class_of(n) == IGNORED]
        if ignored:
            share = sum(found.pixels[n] for n in ignored) / found.pixels.total()
            numbers = " and ".join(map(str, ignored))
            notes.append(f"{where}: {share:.1%} of the pixels are ignored (number {numbers})")
    return (*notes, *_describe_palettes(list(surveys.values())))


def _describe_broken(surveys: Sequence[Survey]) -> list[str]:
    """Says how many files cannot be used, and shows one for each reason."""
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
    """Says which numbers stand for nothing, and what may be meant by them."""
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


def _refuse_white(found: Survey, is_training: bool) -> None:
    """Refuses masks in which 255 seems to be a class, and not pixels to ignore.

    Raises:
        UserError: beside 255 they hold one class alone; or there are two classes, and no mask holds
            both the second and 255.
    """
    names, folder = found.samples.classes, found.samples.masks[0].parent
    holders = {number: set(paths) for number, paths in found.holders.items()}
    white, second = holders.pop(IGNORED, set()), holders.get(1, set())
    is_binary = len(names) == 2
    if not white or not (is_binary or is_training):
        return
    if len(found.classes()) == 1:
        held = f"the masks hold {' and '.join(map(str, sorted(holders)))} and 255 alone"
    elif is_binary and not white & second:
        held = (
            f"some masks hold 1 ({len(second)}, such as {min(second).name}), others 255 "
            f"({len(white)}, such as {min(white).name}), and none both"
        )
    else:
        return
    raise UserError(
        f"{folder}: {held}, but 255 is for pixels to ignore; {_advise(names, is_training)}"
    )


def _advise(names: Sequence[str], is_training: bool) -> str:
    """Says what to do about a 255 that may be a class."""
    if not is_training:
        return f"if it is {names[1]!r}, save it as 1, or train with data.mask_values binary"
    if len(names) > 2:
        return "set data.mask_values, which says the class of each number"
    kept = f"{{0: 0, 1: 1, {IGNORED}: {IGNORE}}}"
    return f"set data.mask_values to binary if it is {names[1]!r}, or to {kept} if it is not"


def _refuse_one_class(found: Survey) -> None:
    """Raises a UserError where there is nothing to tell apart."""
    classes = sorted(found.classes())
    if len(classes) < 2:
        names = ", ".join(f"{c} ({found.samples.classes[c]})" for c in classes) or "none"
        raise UserError(
            f"{found.samples.masks[0].parent}: of the {len(found.samples.classes)} classes the "
            f"training masks hold {names}, and a segmenter tells two apart; check the masks and "
            "data.mask_values"
        )


def _describe_palettes(surveys: Sequence[Survey]) -> list[str]:
    """Returns a line where masks show one number in several colours."""
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
    """Returns a plain word for a colour and its red, green and blue."""
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
