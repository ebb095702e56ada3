"""Finds the mask of each image by its name, with tolerance for different spellings."""

import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from spanets_runtime.errors import UserError
from spanets_runtime.listing import Listing, list_images

SUFFIX = ".png"

# Number of names searched for a similar one.
_MAX_NEAR = 2000


@dataclass(frozen=True)
class Pairs:
    """Images and their masks.

    Attributes:
        images: The image files.
        masks: The mask of each image.
        notes: Messages about names that differ, and files that were left out.
    """

    images: list[Path]
    masks: list[Path]
    notes: tuple[str, ...]


def pair_masks(images: Path, masks: Path) -> Pairs:
    """Finds the mask of each image of a folder, at any depth.

    The mask is the PNG file of the same name. Without one, it is the only image file whose name
    differs just in suffix, letter case, Unicode spelling, or an ending common to all masks, such as
    `_mask`.

    Args:
        images: The folder of images.
        masks: The folder of masks.

    Raises:
        UserError: a folder cannot be read or has no images, an image has no mask or several, or
            several images have one mask.
    """
    found, known = _list_both(images, masks)
    names = [path.relative_to(images).with_suffix("") for path in found.images]
    chosen = {i: masks / f"{name}{SUFFIX}" for i, name in enumerate(names)}
    exact = set(known.images)
    chosen = {i: path for i, path in chosen.items() if path in exact or path.is_file()}
    notes: list[str] = []
    if len(chosen) < len(names):
        _add_others(chosen, found.images, names, masks, known.images, notes)
    paths = [chosen[i] for i in range(len(names))]
    _refuse_shared(paths)
    left_out = sorted(exact - set(paths))
    if left_out:
        count = f"{len(left_out)} file{'s' * (len(left_out) > 1)}"
        notes.append(
            f"{masks}: {count} left out, no image has that name, such as {left_out[0].name}"
        )
    return Pairs(found.images, paths, (*found.notes(), *known.notes(), *notes))


def _list_both(images: Path, masks: Path) -> tuple[Listing, Listing]:
    """Lists images and masks; raises a UserError without images or a folder of masks."""
    if not os.path.isdir(images):
        raise UserError(f"{images}: no such folder")
    found = list_images(images)
    if not found.images:
        raise UserError("; ".join([f"{images}: a folder without images", *found.notes()]))
    if not os.path.isdir(masks):
        raise UserError(f"{masks}: no such folder; the masks of {images} belong there")
    return found, list_images(masks)


def _add_others(
    chosen: dict[int, Path],
    images: Sequence[Path],
    names: Sequence[Path],
    folder: Path,
    masks: Sequence[Path],
    notes: list[str],
) -> None:
    """Adds masks whose names differ from the images'.

    Raises:
        UserError: an image has no mask or several.
    """
    by_key: dict[str, list[Path]] = {}
    for path in masks:
        by_key.setdefault(_key(path.relative_to(folder).with_suffix("")), []).append(path)
    missing = [i for i in range(len(names)) if i not in chosen]
    keys = {i: _key(names[i]) for i in missing}
    similar = {i: by_key[key] for i, key in keys.items() if key in by_key}
    for i, paths in similar.items():
        if len(paths) > 1:
            _refuse_several(images[i], paths)
    if similar:
        first = min(similar)
        notes.append(
            f"{folder}: {_masks(len(similar))} found under names that differ in suffix, letter "
            f"case or Unicode spelling, such as {similar[first][0].name!r} for "
            f"{images[first].name!r}"
        )
    rest = {i: key for i, key in keys.items() if i not in similar}
    ending = _find_ending(rest, by_key, images) if rest else ""
    if ending:
        first = min(rest)
        notes.append(
            f"{folder}: {_masks(len(rest))} found under names with an ending of their own, such as "
            f"{by_key[rest[first] + ending][0].name!r} for {images[first].name!r}"
        )
    elif rest:
        used = {*chosen.values(), *(paths[0] for paths in similar.values())}
        _refuse_missing(sorted(rest), images, names, folder, set(masks) - used)
    chosen |= {i: paths[0] for i, paths in similar.items()}
    chosen |= {i: by_key[key + ending][0] for i, key in rest.items()}


def _masks(count: int) -> str:
    return f"{count} masks are" if count > 1 else "a mask is"


def _key(name: Path) -> str:
    """Returns a key that is equal for names differing in letter case or Unicode spelling."""
    return unicodedata.normalize("NFC", name.as_posix()).casefold()


def _find_ending(
    keys: Mapping[int, str], masks: Mapping[str, Sequence[Path]], images: Sequence[Path]
) -> str:
    """Returns the ending that all masks of these images append to the image's name, or "".

    Args:
        keys: Keys of the image names by index.
        masks: Mask files by key.
        images: The image files, for messages.

    Raises:
        UserError: several endings fit.
    """
    first = min(keys)
    start = len(keys[first])
    endings = {key[start:] for key in masks if key.startswith(keys[first])}
    # "1_mask" can be the mask of "1", but "12" and "12_mask" cannot.
    endings = {ending for ending in endings if not ending[0].isalnum() and "/" not in ending}
    fitting = [e for e in endings if all(len(masks.get(k + e, ())) == 1 for k in keys.values())]
    if len(fitting) > 1:
        _refuse_several(images[first], [masks[keys[first] + e][0] for e in sorted(fitting)])
    return fitting[0] if fitting else ""


def _refuse_several(image: Path, masks: Sequence[Path]) -> None:
    shown = " and ".join(path.name for path in masks[:2])
    raise UserError(f"{image}: {shown} in {masks[0].parent} may both be its mask; keep one")


def _refuse_missing(
    missing: Sequence[int],
    images: Sequence[Path],
    names: Sequence[Path],
    folder: Path,
    unused: Iterable[Path],
) -> None:
    """Raises a UserError with the first image without a mask and the most similar file name."""
    first = missing[0]
    expected = folder / f"{names[first]}{SUFFIX}"
    beside = [path.name for path in unused if path.parent == expected.parent][:_MAX_NEAR]
    near = get_close_matches(expected.name, sorted(beside), n=1, cutoff=0.4)
    there = f", but {near[0]} is there" if near else ""
    raise UserError(
        f"{folder}: {len(missing)} of {len(images)} images without a mask, such as {images[first]} "
        f"({expected} is missing{there}); rename or add the masks, or remove the images"
    )


def _refuse_shared(masks: Sequence[Path]) -> None:
    seen: set[Path] = set()
    for mask in masks:
        if mask in seen:
            raise UserError(f"{mask}: is the mask of several images; rename the images")
        seen.add(mask)
