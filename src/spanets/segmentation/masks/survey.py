"""Surveys images and masks before a run: unusable files, and the values that masks hold.

Of a large data set, it reads an evenly spaced sample, which is the same in every run.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spanets.segmentation.masks.reading import MaskedImages
from spanets.segmentation.masks.values import IGNORED
from spanets_runtime.images import ImageError, load_image
from spanets_runtime.labels import Labels
from spanets_runtime.progress import progress
from spanets_runtime.sizes import quick_size

# Limits for one part. Decoding a mask of 512x384 pixels takes 5 ms, comparing two headers 0.3 ms.
MAX_MASKS = 2000
MAX_MASK_PIXELS = 2**28
MAX_HEADERS = 20_000

# Number of unusable files at which the survey stops.
MAX_BROKEN = 100

Colour = tuple[int, int, int]


@dataclass
class Survey:
    """The result of surveying a part.

    Attributes:
        samples: The part.
        decoded: Number of decoded masks.
        pixels: Number of pixels by mask value.
        holders: Masks with such pixels by mask value.
        colours: Masks by mask value and by its colour in their palettes.
        broken: A message for each unusable file.
    """

    samples: MaskedImages
    decoded: int = 0
    pixels: Counter[int] = field(default_factory=Counter)
    holders: dict[int, list[Path]] = field(default_factory=dict)
    colours: dict[int, dict[Colour, list[Path]]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def add(self, path: Path, labels: Labels) -> None:
        """Adds a decoded mask."""
        counts = np.bincount(labels.numbers.ravel())
        self.decoded += 1
        has_colours = labels.palette is not None and not _is_ramp(labels.palette)
        for number in counts.nonzero()[0].tolist():
            self.pixels[number] += int(counts[number])
            self.holders.setdefault(number, []).append(path)
            if has_colours and labels.palette is not None and number < len(labels.palette):
                red, green, blue = labels.palette[number].tolist()
                by_colour = self.colours.setdefault(number, {})
                by_colour.setdefault((red, green, blue), []).append(path)

    def classes(self) -> set[int]:
        """Returns the classes that have pixels."""
        found = {self.samples.values.class_of(number) for number in self.pixels}
        return {c for c in found if c is not None and c != IGNORED}

    def holding(self, number: int) -> set[Path]:
        """Returns the masks that hold a mask value."""
        return set(self.holders.get(number, ()))

    def unknown(self) -> list[int]:
        """Returns the mask values without a meaning, in order."""
        return [n for n in sorted(self.pixels) if self.samples.values.class_of(n) is None]


def survey(samples: MaskedImages, part: str) -> Survey:
    """Surveys the images and masks of a part.

    Args:
        samples: The part.
        part: Its name, for the progress bar.
    """
    found = Survey(samples)
    to_decode = set(_choose_masks(samples))
    order = sorted(to_decode | set(_spread(len(samples), MAX_HEADERS)))
    for index in progress(order, f"look at {part}"):
        try:
            if index in to_decode:
                _look_at(samples, index, found)
            elif _header_differs(samples, index):
                _check_pair(samples, index)
        except ImageError as error:
            found.broken.append(str(error))
            if len(found.broken) == MAX_BROKEN:
                break
    return found


def _choose_masks(samples: MaskedImages) -> list[int]:
    """Chooses the masks to decode, limited in number and pixels."""
    chosen = _spread(len(samples), MAX_MASKS)
    sizes = [quick_size(samples.masks[i]) or (0, 0) for i in chosen]
    pixels = sum(height * width for height, width in sizes)
    if pixels <= MAX_MASK_PIXELS:
        return chosen
    return _spread(len(samples), max(1, len(chosen) * MAX_MASK_PIXELS // pixels))


def _spread(count: int, most: int) -> list[int]:
    """Returns at most `most` indices, evenly spaced from the first to the last."""
    if count <= most:
        return list(range(count))
    return np.unique(np.linspace(0, count - 1, most).round().astype(int)).tolist()


def _look_at(samples: MaskedImages, index: int, found: Survey) -> None:
    labels = samples.read_mask(index)
    size = quick_size(samples.images[index])
    if size != labels.numbers.shape:
        image = load_image(samples.images[index])
        size = (image.height, image.width)
    if size != labels.numbers.shape:
        raise ImageError(samples.describe_sizes(index, size, labels.numbers.shape))
    found.add(samples.masks[index], labels)


def _header_differs(samples: MaskedImages, index: int) -> bool:
    size = quick_size(samples.images[index])
    return size is None or size != quick_size(samples.masks[index])


def _check_pair(samples: MaskedImages, index: int) -> None:
    """Compares the sizes of an image and its mask by decoding both."""
    image = load_image(samples.images[index])
    shape = samples.read_mask(index).numbers.shape
    if shape != (image.height, image.width):
        raise ImageError(samples.describe_sizes(index, (image.height, image.width), shape))


def _is_ramp(palette: NDArray[np.uint8]) -> bool:
    """Whether a palette is all gray, so that its colours carry no meaning."""
    return bool((palette == palette[:, :1]).all())
