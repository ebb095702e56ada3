"""Reads ImageNet's evaluation sets in their authors' folder layouts.

| layout | what it measures | source |
| --- | --- | --- |
| imagenet | the validation images, one folder per WordNet id | Russakovsky et al., IJCV 2015 |
| imagenet-real | the same images, with several reassessed labels each | arXiv:2006.07159 |
| imagenet-v2 | new images, collected in the same way | Recht et al., ICML 2019 |
| imagenet-c | 15 corruptions at 5 severities | Hendrycks & Dietterich, ICLR 2019 |
| imagenet-a | images that fooled ResNet-50; 200 classes | Hendrycks et al., CVPR 2021 |
| imagenet-r | art, cartoons, toys, …; 200 classes | Hendrycks et al., ICCV 2021 |

WordNet ids ("n01440764") name the classes, and timm has their lists. A checkpoint may have the
classes in any order, and more classes.
"""

import json
import pkgutil
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

from timm.data import ImageNetInfo

from spanets.backbones.published_classes import imagenet_classes
from spanets.data.corruptions import KINDS, SEVERITIES
from spanets.data.samples import Samples, map_classes
from spanets.data.sources.folder import named_parts, scan_folder
from spanets.data.sources.folder_paths import existing_folder, subfolders
from spanets_runtime.errors import UserError, nearest
from spanets_runtime.listing import list_images

LAYOUTS = {
    "imagenet": "a folder for each WordNet id, such as n01440764/, there or in val/",
    "imagenet-real": "ILSVRC2012_val_00000001.JPEG and so on, at any depth, and perhaps real.json",
    "imagenet-v2": "folders 0/ to 999/, ImageNet's classes by number",
    "imagenet-c": "KIND/SEVERITY/WORDNET-ID/, such as gaussian_noise/1/n01440764/",
    "imagenet-a": "a folder for each WordNet id of ImageNet-A's 200 classes",
    "imagenet-r": "a folder for each WordNet id of ImageNet-R's 200 classes",
}
"""The expected content of a folder by layout, for messages."""

EXTRA_KINDS = ("gaussian_blur", "saturate", "spatter", "speckle_noise")
"""Corruptions that come with ImageNet-C but do not count in its error."""

REAL_LABELS = "real.json"

_SUBSETS = {"imagenet-a": "imagenet_a", "imagenet-r": "imagenet_r"}
_VALIDATION_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})$")


@cache
def wordnet_ids(layout: str = "imagenet") -> tuple[str, ...]:
    """Returns the classes of ImageNet-1K, or of a layout with a subset, in order."""
    if layout not in _SUBSETS:
        return tuple(ImageNetInfo().label_names())
    text = pkgutil.get_data("timm.data", f"_info/{_SUBSETS[layout]}_synsets.txt")
    assert text is not None
    return tuple(text.decode().split())


def has_imagenet_names(classes: Sequence[str]) -> bool:
    """Whether a model's classes are ImageNet-1K's in order, by the names that timm has for them."""
    return tuple(classes) == imagenet_classes()


def name_classes(folders: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Translates names of class folders to ImageNet's class names, where that is clear.

    A folder may have a class's WordNet id, its whole name, or one of the words for it that no other
    class has: "n01443537", "goldfish, Carassius auratus", "goldfish" and "Carassius_auratus" are
    the same.

    Returns:
        The class names, with unknown folder names unchanged, and a note if names were translated.

    Raises:
        UserError: a name that several classes have.
    """
    known = _classes_of_words()
    names: list[str] = []
    for folder in folders:
        meant = known.get(_plain(folder), (folder,))
        if len(meant) > 1:
            shown = " and ".join(map(repr, meant[:4]))
            raise UserError(
                f"class {folder!r} may mean {len(meant)} of ImageNet's classes, {shown}; "
                "use a whole name or a WordNet id"
            )
        names += meant
    changed = [(old, new) for old, new in zip(folders, names, strict=True) if old != new]
    if not changed:
        return names, ()
    old, new = changed[0]
    count = f"{len(changed)} class folder{'s' * (len(changed) > 1)}"
    return names, (f"{count} matched to ImageNet's names, such as {old!r} to {new!r}",)


@cache
def _classes_of_words() -> dict[str, tuple[str, ...]]:
    """Returns ImageNet's class names by WordNet id, by whole name, and by each word for them."""
    words: dict[str, tuple[str, ...]] = {}
    names = imagenet_classes()
    for name, described in zip(names, ImageNetInfo().label_descriptions(), strict=True):
        for word in described.split(","):
            words[_plain(word)] = (*words.get(_plain(word), ()), name)
    whole = {_plain(name): (name,) for name in names}
    return words | whole | {key: (name,) for key, name in zip(wordnet_ids(), names, strict=True)}


def _plain(word: str) -> str:
    return unicodedata.normalize("NFC", word).replace("_", " ").strip().casefold()


def find_layout(root: str | Path, classes: Sequence[str]) -> str | None:
    """Recognises the layout of a folder by the names in it.

    Args:
        root: The folder.
        classes: Class names of the checkpoint.

    Returns:
        A key of `LAYOUTS`, or None for any other folder.

    Raises:
        UserError: no such folder, or it cannot be read.
    """
    root = existing_folder(root)
    if not set(classes) & set(wordnet_ids()):
        return None
    names = {folder.name for folder in subfolders(root)}
    if (root / REAL_LABELS).exists() or _holds_validation_images(root):
        return "imagenet-real"
    if names & {*KINDS, *EXTRA_KINDS}:
        return "imagenet-c"
    if names and all(name.isdecimal() for name in names) and not names & set(classes):
        return "imagenet-v2"
    for layout in _SUBSETS:
        if names == set(wordnet_ids(layout)):
            return layout
    val = _validation_folder(root)
    return "imagenet" if val is not None and _has_ids(val) else None


def scan_classes(root: str | Path, layout: str, classes: Sequence[str]) -> Samples:
    """Lists the images of a layout with one folder per class.

    Args:
        root: The folder.
        layout: "imagenet", "imagenet-v2", "imagenet-a" or "imagenet-r".
        classes: Class names of the checkpoint.

    Returns:
        Samples with the classes among which the model chooses: the checkpoint's, or the 200 of
        ImageNet-A and ImageNet-R.

    Raises:
        UserError: the folder has another layout, or the checkpoint lacks classes.
    """
    root = existing_folder(root)
    ids = wordnet_ids(layout)  # all of ImageNet-1K, or the subset of the layout
    _check_known(() if layout == "imagenet" else ids, classes, layout)
    if layout == "imagenet" and not _has_ids(root):
        root = _validation_folder(root) or root
    names = [folder.name for folder in subfolders(root)]
    meaning = {str(i) if layout == "imagenet-v2" else name: name for i, name in enumerate(ids)}
    _check_names(root, layout, names, meaning)
    found = scan_folder(root, least=1, known=names)
    samples = replace(found, classes=[meaning[name] for name in found.classes])
    return map_classes(samples, list(ids if layout in _SUBSETS else classes))


def scan_reassessed(
    root: str | Path, classes: Sequence[str]
) -> tuple[Samples, list[frozenset[int]], int]:
    """Lists ImageNet's validation images with their reassessed labels.

    The labels come from real.json in the folder or, without it, from timm's copy.

    Returns:
        Samples labelled by each image's smallest label; all labels of each image, as indices into
        `classes`; and the number of images left out because they have no label.

    Raises:
        UserError: the folder has another layout, or the checkpoint lacks classes.
    """
    root, ids = existing_folder(root), wordnet_ids()
    _check_known(ids, classes, "imagenet-real")
    index = [list(classes).index(name) for name in ids]
    labels = _read_real_labels(root)
    images, accepted, skipped = [], [], 0
    listing = list_images(root)
    for path in listing.images:
        number = _image_number(path, len(labels), root)
        if labels[number]:
            images.append(path)
            accepted.append(frozenset(index[label] for label in labels[number]))
        else:
            skipped += 1
    if not images:
        raise UserError(f"{root}: none of its {skipped} images has a reassessed label")
    first = [min(of_image) for of_image in accepted]
    if (root / REAL_LABELS).exists():
        listing.left_out[".json"] -= 1
    notes = replace(listing, left_out=+listing.left_out).notes()
    return Samples(images, first, list(classes), notes=notes), accepted, skipped


def scan_corrupted(root: str | Path, classes: Sequence[str]) -> dict[str, dict[int, Samples]]:
    """Lists the available images of ImageNet-C by kind and severity.

    Raises:
        UserError: the folder has another layout.
    """
    root, known = existing_folder(root), (*KINDS, *EXTRA_KINDS)
    names = [folder.name for folder in subfolders(root)]
    _check_names(root, "imagenet-c", names, known)
    found: dict[str, dict[int, Samples]] = {}
    for kind, severity in product((kind for kind in known if kind in names), SEVERITIES):
        folder = root / kind / str(severity)
        if folder.is_dir():
            found.setdefault(kind, {})[severity] = scan_classes(folder, "imagenet", classes)
    if not found:
        raise UserError(_expected(root, "imagenet-c", f"no folders 1 to 5 in {names[0]}"))
    return found


def _validation_folder(root: Path) -> Path | None:
    """Returns the folder of the validation images under any of its names, or None."""
    names = [folder.name for folder in subfolders(root)]
    return named_parts(root, names).get("val")


def _holds_validation_images(root: Path) -> bool:
    folders = [root, *([val] if (val := _validation_folder(root)) else [])]
    return any(any(folder.glob("ILSVRC2012_val_*")) for folder in folders)


def _has_ids(root: Path) -> bool:
    return any(folder.name in wordnet_ids() for folder in subfolders(root))


def _check_known(needed: Sequence[str], classes: Sequence[str], layout: str) -> None:
    lacking = [name for name in needed if name not in set(classes)]
    if not set(classes) & set(wordnet_ids()):
        shown = ", ".join(classes[:3])
        raise UserError(
            f"layout {layout} needs a checkpoint whose classes are WordNet ids, such as n01440764; "
            f"this one's are {shown}"
        )
    if lacking:
        raise UserError(
            f"layout {layout} needs all its {len(needed)} classes, and the checkpoint lacks "
            f"{len(lacking)} of them, such as {lacking[0]}"
        )


def _check_names(root: Path, layout: str, names: Sequence[str], known: Collection[str]) -> None:
    if not names:
        raise UserError(_expected(root, layout, "no folders"))
    for name in names:
        if name not in known:
            hint = nearest(name, known) if layout == "imagenet-c" else ""
            raise UserError(_expected(root, layout, f"a folder {name!r}{hint}"))


def _expected(root: Path, layout: str, found: str) -> str:
    return f"{root}: not laid out as {layout}: expected {LAYOUTS[layout]}; found {found}"


def _image_number(path: Path, count: int, root: Path) -> int:
    """Returns the number of a validation image, from 0."""
    match = _VALIDATION_IMAGE.match(path.stem)
    if match is None:
        raise UserError(_expected(root, "imagenet-real", f"an image {path.name!r}"))
    if not 0 < int(match[1]) <= count:
        raise UserError(f"{path}: there are labels for images 1 to {count} alone")
    return int(match[1]) - 1


def _read_real_labels(root: Path) -> list[list[int]]:
    """Returns the labels of each validation image, as indices of ImageNet-1K's classes."""
    path = root / REAL_LABELS
    try:
        text = path.read_text("utf-8-sig") if path.exists() else _timms_real_labels()
        labels = json.loads(text)
        valid = isinstance(labels, list) and all(
            isinstance(row, list) and all(type(i) is int and 0 <= i < 1000 for i in row)
            for row in labels
        )
    except (OSError, ValueError, RecursionError):
        valid = False
    if not valid:
        raise UserError(f"{path}: damaged; must hold a list of numbers 0 to 999 for each image")
    return labels


def _timms_real_labels() -> str:
    data = pkgutil.get_data("timm.data", "_info/imagenet_real_labels.json")
    assert data is not None
    return data.decode()
