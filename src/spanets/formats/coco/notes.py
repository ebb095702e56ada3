"""Notes about two annotation files, shown before training: classes, files and small objects."""

from collections.abc import Callable, Iterable
from pathlib import Path

from spanets.formats.coco.faults import show_value
from spanets.formats.coco.names import identify
from spanets.formats.coco.objects import CocoData, CocoImage
from spanets_runtime.listing import list_images

Rescale = Callable[[int, int], tuple[int, int]]
"""Maps the height and width of an image to those of the network's input."""


def describe_classes(train: CocoData, val: CocoData) -> list[str]:
    """Returns notes on classes without an object in training or validation.

    Args:
        train: The training part.
        val: The validation part, with the same classes.
    """
    learnt, measured = _used(train), _used(val)
    unlearnt = [name for name in train.classes if name not in learnt]
    lines = []
    if unlearnt:
        only_measured = [name for name in unlearnt if name in measured]
        more = f"; {len(only_measured)} of them in validation" if only_measured else ""
        lines.append(f"{train.source}: no object to learn {_name(unlearnt, train)} from{more}")
    unmeasured = [name for name in learnt if name not in measured]
    if unmeasured:
        lines.append(f"{val.source}: no object to measure {_name(unmeasured, train)} on")
    return lines


def describe_files(train: CocoData, val: CocoData, folders: Iterable[Path]) -> list[str]:
    """Returns notes on files listed in both parts, and on images of the folders listed in neither.

    Raises:
        UserError: a folder cannot be read.
    """
    of_train = {identify(image.path): image for image in train.images}
    of_val = {identify(image.path): image for image in val.images}
    listed = of_train.keys() | of_val.keys()
    both = [of_val[file].path for file in of_val if file in of_train]
    lines = []
    if both:
        lines.append(
            f"{val.source}: {len(both)} of {len(of_val)} image files are trained on as well "
            f"({show_value(both[0].name)}); measured on them, a detector looks better than it is"
        )
    for folder in dict.fromkeys(folders):
        found = list_images(folder).images if folder.is_dir() else []
        unlisted = [path for path in found if identify(path) not in listed]
        if unlisted:
            lines.append(
                f"{folder}: {len(unlisted)} of {len(found)} images are in no annotation file "
                f"({show_value(unlisted[0].name)}), left out"
            )
    return lines


def count_small(images: Iterable[CocoImage], rescale: Rescale) -> int:
    """Returns the number of objects less than a pixel wide or high in the network's input."""
    count = 0
    for image in images:
        height, width = rescale(image.height, image.width)
        least = (image.width / width, image.height / height)  # size of an input pixel in the file
        for x1, y1, x2, y2 in (annotation.box for annotation in image.annotations):
            count += x2 - x1 < least[0] or y2 - y1 < least[1]
    return count


def _used(data: CocoData) -> dict[str, None]:
    """Returns the classes that have an object other than crowd regions, in order."""
    labels = {a.label for image in data.images for a in image.annotations if not a.crowd}
    return {name: None for i, name in enumerate(data.classes, start=1) if i in labels}


def _name(classes: list[str], data: CocoData) -> str:
    more = ", …" if len(classes) > 5 else ""
    count = f"{len(classes)} of {len(data.classes)} classes"
    return f"{count} ({', '.join(map(show_value, classes[:5]))}{more})"
