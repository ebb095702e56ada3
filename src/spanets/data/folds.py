"""Divides images into folds for cross-validation, by a draw, a column of the data set, or a list.

    image,fold              folds.csv in the folder of all runs
    cat/0001.jpg,0
    cat/0002.jpg,3

A run validates on one fold and trains on the others. The list is written before the first of them,
so that each image keeps its fold when others are added or removed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from spanets.data.balanced_draw import draw_parts
from spanets.data.run_data import RunData
from spanets.data.samples import Samples
from spanets.data.split_list import SplitList, read_pairs, write_pairs
from spanets.data.splits import apply_division, divide, number_repeats
from spanets.runs.file_names import FOLD_LIST
from spanets_runtime.errors import UsageError, UserError

_HEADER = ("image", "fold")


@dataclass(frozen=True)
class Folds:
    """The fold of each image.

    Attributes:
        names: Names of the images, as in a split list.
        numbers: The fold of each; a negative one is for training in every fold.
    """

    names: Sequence[str]
    numbers: Sequence[int]

    def choices(self) -> list[int]:
        """Returns the numbers of the folds, ascending."""
        return sorted({number for number in self.numbers if number >= 0})

    def split(self, fold: int) -> tuple[list[int], list[int]]:
        """Returns the indices of the training and of the validation images of a fold."""
        val = [i for i, number in enumerate(self.numbers) if number == fold]
        return [i for i, number in enumerate(self.numbers) if number != fold], val

    def split_list(self, fold: int, path: Path) -> SplitList:
        """Returns the split list of a fold."""
        pairs = zip(self.names, self.numbers, strict=True)
        return SplitList(path, {name: "val" if n == fold else "train" for name, n in pairs})


def find_folds(
    samples: Samples, names: Sequence[str], count: int | None, seed: int, origin: str
) -> Folds:
    """Returns the folds that the data set gives, or draws them, by class and group.

    Args:
        samples: All images that are divided.
        names: Their names in a split list.
        count: Number of folds to draw, or None if the data set gives them.
        seed: Seed of the draw.
        origin: Name of the data set, for messages.

    Raises:
        UsageError: there is no fold column and no count, or both disagree.
        UserError: fewer groups or images than folds.
    """
    if samples.folds is not None:
        given = Folds(names, samples.folds)
        if count not in (None, len(given.choices())):
            raise UsageError(
                f"{origin}: its fold column has {len(given.choices())} folds, and data.folds is "
                f"{count}; leave data.folds out, or draw folds by --data.columns '{{fold: null}}'"
            )
        return given
    if count is None:
        raise UsageError(
            f"{origin}: has no fold column for data.fold; set the number of folds, such as "
            "--data.folds 5, or name the column: --data.columns '{fold: NAME}'"
        )
    groups = samples.groups or names
    if (units := len(set(groups))) < count:
        what = "groups" if samples.groups else "images"
        raise UserError(f"{origin}: {units} {what} are too few for data.folds {count}")
    drawn = draw_parts(samples.numbered_strata(), groups, [1 / count] * count, seed)
    return Folds(names, drawn.tolist())


def fold_parts(
    parts: dict[str, Samples],
    names: Sequence[str],
    origin: str,
    fold: int,
    folds: int | None,
    seed: int,
    run_data: RunData | None = None,
) -> dict[str, Samples]:
    """Divides "train" into "train" and "val" by a fold, or by the split list of a run.

    Raises:
        UsageError: no such fold; or see `find_folds`.
        UserError: see `find_folds` and `divide`.
    """
    samples, names = parts["train"], number_repeats(names)
    draw = partial(_draw, samples, names, origin, fold, folds, seed)
    divided = apply_division(samples, names, divide(samples.images, names, draw, origin, run_data))
    notes = [f"{origin}: fold {fold}: {len(divided['val'])} of {len(samples)} images to validate"]
    for part, own in divided.items():
        counts = own.counts() if samples.strata is None else {}
        if lacking := [name for name, count in counts.items() if not count]:
            shown = ", ".join(lacking[:5]) + (", …" if lacking[5:] else "")
            notes.append(
                f"{origin}: fold {fold}: no {part} images of {len(lacking)} classes: {shown}"
            )
    return {**parts, **{part: own.noted(notes) for part, own in divided.items()}}


def _draw(
    samples: Samples, names: Sequence[str], origin: str, fold: int, count: int | None, seed: int
) -> tuple[list[int], list[int]]:
    folds = find_folds(samples, names, count, seed, origin)
    if fold not in folds.choices():
        known = ", ".join(map(str, folds.choices()))
        raise UsageError(f"{origin}: no fold {fold}, as data.fold says; it has {known}")
    return folds.split(fold)


def write_folds(folder: Path, folds: Folds) -> None:
    """Writes the list of all folds.

    Raises:
        UserError: it cannot be written.
    """
    numbers = map(str, folds.numbers)
    write_pairs(folder / FOLD_LIST, _HEADER, zip(folds.names, numbers, strict=True))


def read_folds(folder: Path) -> Folds | None:
    """Reads the list of all folds; returns None if there is none.

    Raises:
        UserError: it cannot be read, or is damaged; the message names the line.
    """
    pairs = read_pairs(folder / FOLD_LIST, _HEADER, _is_number, "a number")
    return None if pairs is None else Folds(list(pairs), [int(fold) for fold in pairs.values()])


def _is_number(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 9
